"""A NeRF whose loss is not finite any more: noticed at once, before a checkpoint of it is written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from csd_nerf.scenes.errors import SceneError

_PATIENCE = 20
"""Steps in a row that a gradient scaler may leave out, halving its scale each time, before the run has failed."""


class LossWatch:
    """Follows the loss of a run.

    Mixed precision overflows now and then; its gradient scaler leaves such a step out and goes on.
    """

    def __init__(self, checkpoints: Path, scaled: bool, remedy: str) -> None:
        """`checkpoints` is the run's folder of them; `scaled` says whether a gradient scaler is at work.

        `remedy` names the flags to change.
        """
        self._checkpoints, self._allowed, self._lost = checkpoints, _PATIENCE if scaled else 0, 0
        self._remedy = remedy
        self.resumed: Path | None = None
        """The checkpoint that the run went on from."""

    def check(self, loss: Tensor, step: int) -> None:
        """Raise `SceneError` if the loss has been non-finite for too long."""
        self._lost = 0 if torch.isfinite(loss).all() else self._lost + 1
        if self._lost > self._allowed:
            raise self.failure(step, "its loss is not finite")

    def check_weights(self, weights: Mapping[str, Any], step: int) -> None:
        """Raise `SceneError` if a checkpoint of these weights could not be gone on from."""
        for name, value in weights.items():
            if isinstance(value, Tensor) and not torch.isfinite(value).all():
                raise self.failure(step, f"{name} is not finite")

    def failure(self, step: int, what: str) -> SceneError:
        """The error that says how to go on."""
        start = "Nothing is saved yet: start again with"
        if saved := sorted(self._checkpoints.glob("step-*.ckpt")):
            step_saved = int(saved[-1].stem.removeprefix("step-"))
            start = (
                f"The last checkpoint is from before, step {step_saved}: resume with --load-dir {self._checkpoints} and"
            )
        elif self.resumed is not None:
            start = f"Nothing is saved since {self.resumed}: resume with --load-dir {self.resumed.parent} and"
        return SceneError(f"the NeRF failed at step {step}: {what}. {start} {self._remedy}.")
