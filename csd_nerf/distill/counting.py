"""What an edit costs, counted where it is spent."""

from jaxtyping import Float, Int
from torch import Tensor

from csd_nerf.distill.schedule import NoiseSchedule
from csd_nerf.distill.types import Condition, ScorePrior


class CountingPrior:
    """A `ScorePrior` that counts the rows that go through another one."""

    def __init__(self, prior: ScorePrior) -> None:
        self._prior = prior
        self.samples = 0
        """Network samples so far."""

    @property
    def schedule(self) -> NoiseSchedule:
        """The other prior's."""
        return self._prior.schedule

    def predict_noise(
        self, x_t: Float[Tensor, "n c h w"], t: Int[Tensor, "*m"], condition: Condition
    ) -> Float[Tensor, "n c h w"]:
        """The other prior's estimate; counted even if it fails."""
        self.samples += len(x_t)
        return self._prior.predict_noise(x_t, t, condition)
