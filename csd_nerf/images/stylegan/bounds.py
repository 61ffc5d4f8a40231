"""Gradients that stay within bounds on their way into a generator (StyleGANFusion; see `adaptation`)."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.distill import Distiller, LatentLosses, LatentStep, Target


def clip_at_percentile(gradient: Float[Tensor, "n c h w"], share: float) -> Float[Tensor, "n c h w"]:
    """Each picture's gradient, no element larger than the `share` quantile of its absolute values."""
    values = gradient.flatten(1).abs()
    kept = max(1, math.ceil(share * values.shape[1]))  # torch.quantile refuses more than 16 M values
    limit = values.kthvalue(kept, dim=1).values[:, None, None, None]
    return torch.minimum(torch.maximum(gradient, -limit), limit)


@dataclass(frozen=True)
class GuidedLosses:
    """LDP Eq. 4 with its gradient bounded, and the directional regulariser."""

    losses: LatentLosses
    clamp: float | None
    """Bound of either gradient's elements."""
    weight: float = 0.0
    """Of the directional regulariser."""
    distiller: Distiller | None = None
    """Of the directional regulariser: its baseline is the source's score."""
    before: Callable[[], Tensor | None] = lambda: None
    """The source generator's latents of this step."""

    def __call__(self, latents: Float[Tensor, "n c h w"], target: Target, generator: torch.Generator) -> LatentStep:
        """Total gradient. Raises `NonFiniteError`."""
        step = self.losses(latents, target, generator)
        gradient, samples = self._bounded(step.gradient), step.network_samples
        if self.weight:
            assert self.distiller is not None
            target = replace(target, source=self.before(), source_text=target.texts[0])
            pull = self.distiller(latents.detach(), target, generator)
            gradient = gradient + self.weight * self._bounded(pull.gradient)
            samples += pull.network_samples
        return replace(step, gradient=gradient, network_samples=samples)

    def _bounded(self, gradient: Tensor) -> Tensor:
        return gradient if self.clamp is None else gradient.clamp(-self.clamp, self.clamp)
