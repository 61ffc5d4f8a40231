"""Gradients that stay within bounds on their way into a generator (StyleGANFusion; see `adaptation`)."""

import math
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.distill import Distiller, LatentLosses, LatentStep, Target, UniformTimesteps


def clip_at_percentile(gradient: Float[Tensor, "n c h w"], share: float) -> Float[Tensor, "n c h w"]:
    """Each picture's gradient, no element larger than the `share` quantile of its absolute values."""
    values = gradient.flatten(1).abs()
    kept = max(1, math.ceil(share * values.shape[1]))  # torch.quantile refuses more than 16 M values
    limit = values.kthvalue(kept, dim=1).values[:, None, None, None]
    return torch.minimum(torch.maximum(gradient, -limit), limit)


@runtime_checkable
class Pulled(Protocol):
    """What the directional regulariser asks of the particles."""

    before: Tensor | None
    """The source generator's latents of this step."""

    def pull(self, gradient: Float[Tensor, "n c h w"]) -> None:
        """Take a gradient into the latents that is not clipped in the pictures."""
        ...


@dataclass(frozen=True)
class GuidedLosses:
    """LDP Eq. 4 with its gradient bounded, and the directional regulariser."""

    losses: LatentLosses
    clamp: float | None
    """Bound of either gradient's elements."""
    weight: float = 0.0
    """Of the directional regulariser."""
    distiller: Distiller | None = None
    """Of the directional regulariser: its baseline is the source's score. It is asked at the losses' timestep."""
    shown: Pulled | None = None
    """Takes the regulariser's gradient."""

    def __call__(self, latents: Float[Tensor, "n c h w"], target: Target, generator: torch.Generator) -> LatentStep:
        """Gradient of the losses; that of the regulariser goes to `shown`. Raises `NonFiniteError`."""
        step = self.losses(latents, target, generator)
        samples = step.network_samples
        if self.weight:
            assert self.distiller is not None and self.shown is not None and step.t is not None
            share = step.t / self.distiller.prior.schedule.steps
            at_its_level = replace(self.distiller, timesteps=UniformTimesteps(share, share))
            target = replace(target, source=self.shown.before, source_text=target.texts[0])
            pull = at_its_level(latents.detach(), target, generator)
            self.shown.pull(self._bounded(self.weight * pull.gradient))
            samples += pull.network_samples
        return replace(step, gradient=self._bounded(step.gradient), network_samples=samples)

    def _bounded(self, gradient: Tensor) -> Tensor:
        return gradient if self.clamp is None else gradient.clamp(-self.clamp, self.clamp)
