"""A NeRF whose loss is not finite any more: noticed at once, before a checkpoint of it is written."""

from pathlib import Path

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

    def check(self, loss: Tensor, step: int) -> None:
        """Raise `SceneError` if the loss has been non-finite for too long."""
        self._lost = 0 if torch.isfinite(loss).all() else self._lost + 1
        if self._lost > self._allowed:
            raise self.failure(step, "its loss is not finite")

    def failure(self, step: int, what: str) -> SceneError:
        """The error that says how to go on."""
        start = "Nothing is saved yet: start again with"
        if saved := sorted(self._checkpoints.glob("step-*.ckpt")):
            step_saved = int(saved[-1].stem.removeprefix("step-"))
            start = (
                f"The last checkpoint is from before, step {step_saved}: resume with --load-dir {self._checkpoints} and"
            )
        return SceneError(f"the NeRF failed at step {step}: {what}. {start} {self._remedy}.")
