"""Noise schedule, weights and timestep samplers.

Forward process (CSD B.1): `x_t = alpha_t x + sigma_t eps` with `alpha_t = sqrt(abar_t)`, `sigma_t = sqrt(1 - abar_t)`
and `abar_t = prod_{s <= t} (1 - beta_s)`. Timesteps are integers `0 .. steps - 1`; ranges are given as fractions of
`steps`, as in the papers: `t ~ U(0.2, 0.5)` means 200 to 500 of 1000.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class NoiseSchedule:
    """A variance-preserving schedule. It is kept on the CPU; values are moved to the tensors they multiply."""

    alphas_cumprod: Float[Tensor, " steps"]
    """abar_t in (0, 1], decreasing; float64."""

    @classmethod
    def scaled_linear(cls, start: float = 0.00085, end: float = 0.012, steps: int = 1000) -> "NoiseSchedule":
        """Stable Diffusion's schedule: betas linear in their square root."""
        betas = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
        return cls(torch.cumprod(1 - betas, dim=0))

    @property
    def steps(self) -> int:
        """Number of timesteps."""
        return len(self.alphas_cumprod)

    def alpha(self, t: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Signal scale sqrt(abar_t), float64."""
        return self.alphas_cumprod[t.cpu()].sqrt()

    def sigma(self, t: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Noise scale sqrt(1 - abar_t), float64."""
        return (1 - self.alphas_cumprod[t.cpu()]).sqrt()

    def weight(self, t: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """SDS weight `w(t) = sigma_t^2 = 1 - abar_t` (DreamFusion; also CSD's released code), float64."""
        return 1 - self.alphas_cumprod[t.cpu()]


@dataclass(frozen=True)
class UniformTimesteps:
    """`t ~ U(t_min, t_max)`, both ends included; fractions of the schedule's steps.

    One draw serves all particles of a step: the kernel compares particles at one noise level.
    """

    t_min: float = 0.2
    t_max: float = 0.5

    def __post_init__(self) -> None:
        """Refuse ranges that are empty or leave the schedule."""
        if not 0 <= self.t_min <= self.t_max <= 1:
            raise ValueError(
                f"t_min={self.t_min}, t_max={self.t_max}: give 0 <= t_min <= t_max <= 1, fractions of the schedule"
            )

    def __call__(self, schedule: NoiseSchedule, generator: torch.Generator) -> Int[Tensor, ""]:
        """Draw one timestep, int64 on the CPU."""
        low, high = self.bounds(schedule)
        return torch.randint(low, high + 1, (), generator=generator)

    def bounds(self, schedule: NoiseSchedule) -> tuple[int, int]:
        """Lowest and highest timestep that may be drawn."""
        last = schedule.steps - 1
        low, high = (min(round(fraction * schedule.steps), last) for fraction in (self.t_min, self.t_max))
        return low, high
