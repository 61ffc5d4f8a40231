"""The source branch of the next round, asked for while the NeRF trains.

What a round asks about the photos depends on neither the NeRF nor the instruction, only on seed, round and settings: a
prior that runs on another device than the NeRF answers it meanwhile, and the round then needs 3 samples of 5. The
answers are found by the content of their questions (`csd_nerf.distill.banked`), so that the round is the one that it
would have been, up to the rounding of a smaller batch, for as many steps as there was time to ask ahead; what the
viewer changes in between is asked anew.
"""

import threading
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.distill.banked import AnswerBank, MemoryBank
from csd_nerf.distill.editing import look_ahead_edit
from csd_nerf.distill.presets import EditSettings
from csd_nerf.distill.types import ImagePrior
from csd_nerf.priors.diffusion import DiffusionPrior
from csd_nerf.priors.sharded import AgreedBank, processes
from csd_nerf.priors.source_bank import Fingerprinted, open_bank
from csd_nerf.scenes.edit_options import EditPipelineConfig, Instruction
from csd_nerf.scenes.errors import SceneError

_ROWS = 64
"""Rows of a network call while looking ahead: enough to keep a device busy. The prior may split them further."""


class LookAhead:
    """Looks ahead in a thread. Whoever uses the prior ends it first: the networks are not for two threads."""

    def __init__(self, prior: ImagePrior, bank: AnswerBank) -> None:
        """`bank` is that of the rounds."""
        self._prior, self._bank = prior, bank
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._spent, self._error = 0, None

    def begin(
        self,
        originals: Sequence[Float[Tensor, "3 _h _w"]],
        instruction: Instruction,
        settings: EditSettings,
        generator: torch.Generator,
    ) -> None:
        """Ask what a round on these photos will ask. `generator` is as that of the round, and not used elsewhere."""
        self.finish()
        self._stop.clear()
        batched = isinstance(self._prior, DiffusionPrior)
        options: dict[str, Any] = {
            "negative_prompt": instruction.negative_prompt,
            "settings": settings,
            "generator": generator,
            "bank": self._bank,
            "steps_per_call": max(1, _ROWS // (2 * len(originals))) if batched else 1,
            "should_stop": self._stop.is_set,
        }

        def work() -> None:
            try:
                self._spent = look_ahead_edit(self._prior, originals, instruction.prompt, **options)
            except Exception as error:  # it is the round that has to tell
                self._error = error

        self._thread = threading.Thread(target=work, name="look-ahead", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Let it come to its own end."""
        if self._thread is not None:
            self._thread.join()

    def finish(self) -> int:
        """End it after its present call: the network samples that it spent. Raises what went wrong in it."""
        self._stop.set()
        self.wait()
        spent, error, self._thread, self._spent, self._error = self._spent, self._error, None, 0, None
        if error is not None:
            raise error
        return spent


def rounds_bank(options: EditPipelineConfig, prior: ImagePrior, device: str) -> tuple[AnswerBank | None, bool]:
    """The bank of a run's rounds, if it has one, and whether to look ahead into it.

    It looks ahead where the prior has a device of its own: on a shared one both would only wait for each other. Raises
    `SceneError` for a bank that cannot be opened.
    """
    ahead = _other_device(torch.device(device), prior.device) and options.settings().resolved().baseline == "source"
    ahead = ahead and not options.settings().parts.samples and isinstance(prior, Fingerprinted)
    try:
        bank = open_bank(options.source_bank, prior, options.source_bank_gigabytes)
    except ValueError as error:
        raise SceneError(f"--pipeline.source-bank: {error}.") from error
    if processes() > 1:  # a thread of each would ask at its own pace, where all have to ask together
        return (None if bank is None else AgreedBank(bank)), False
    if bank is None and ahead:
        assert isinstance(prior, Fingerprinted)
        return MemoryBank(prior.fingerprint()), True
    return bank, ahead


def _other_device(one: torch.device, other: torch.device) -> bool:
    """`cuda` is the first GPU, as nerfstudio understands it."""
    return (one.type, one.index or 0) != (other.type, other.index or 0)
