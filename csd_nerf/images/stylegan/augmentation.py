"""Adaptive augmentation of what the discriminator sees (Karras et al. 2020, "Training GANs with Limited Data", ADA).

Real and generated pictures pass through the same random changes, each made with probability p. A generator that makes
every picture with the same distribution before and after them then has the data's own distribution as long as p < 1:
the changes do not leak. p follows how sure the discriminator is of real pictures, r = E[sign D(real)]: it rises while
r is above its target (the discriminator knows the pictures by heart) and falls otherwise.

Changes: mirrored; moved by up to an eighth; brighter or darker; more or less contrast; more or less saturation.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_LUMA = (0.299, 0.587, 0.114)
_MOVE = 1 / 8


def augmented(images: Float[Tensor, "n 3 h w"], p: float, generator: torch.Generator) -> Float[Tensor, "n 3 h w"]:
    """Pictures (-1..1) after random changes, each made with probability `p`; differentiable."""
    if p <= 0:
        return images
    n, _, height, width = images.shape

    def chosen(values: Tensor, neutral: float) -> Tensor:
        """`values` where a coin of probability p says so."""
        made = torch.rand(n, generator=generator) < p
        return torch.where(made, values, torch.full_like(values, neutral)).to(images)[:, None, None, None]

    mirrored = chosen((torch.rand(n, generator=generator) < 0.5).float(), 0.0) > 0
    images = torch.where(mirrored, images.flip(3), images)
    moves = torch.rand(2, n, generator=generator) * 2 - 1
    down = chosen((moves[0] * _MOVE * height).round(), 0.0).long().flatten()
    right = chosen((moves[1] * _MOVE * width).round(), 0.0).long().flatten()
    images = _moved(images, down, right)
    images = images + chosen(torch.randn(n, generator=generator) * 0.2, 0.0)
    images = images * chosen(torch.exp2(torch.randn(n, generator=generator) * 0.5), 1.0)
    grey = torch.einsum("c,nchw->nhw", torch.tensor(_LUMA).to(images), images)[:, None]
    return grey + (images - grey) * chosen(torch.exp2(torch.randn(n, generator=generator)), 1.0)


def _moved(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Moved by whole pixels; what comes in is mirrored at the edge."""
    height, width = images.shape[-2:]
    rows = _mirrored(torch.arange(height, device=images.device)[None] - down[:, None], height)
    columns = _mirrored(torch.arange(width, device=images.device)[None] - right[:, None], width)
    sample = torch.arange(len(images), device=images.device)[:, None, None]
    # Indexed along the first three dimensions, so that colours stay together.
    return images.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _mirrored(places: Tensor, length: int) -> Tensor:
    places = places.abs()
    return torch.where(places >= length, 2 * (length - 1) - places, places)


@dataclass
class AdaptiveProbability:
    """p of ADA."""

    target: float = 0.6
    """Of r = E[sign D(real)]."""
    images_to_one: int = 500_000
    """Pictures over which p could rise from 0 to 1."""
    limit: float = 0.8
    """Largest p: changes of colour begin to leak near 1."""
    p: float = 0.0

    def update(self, real_logits: Float[Tensor, " n"], pictures: int) -> None:
        """Move p, after `pictures` more pictures were seen."""
        certainty = float(real_logits.detach().sign().mean())
        step = pictures / self.images_to_one * (1 if certainty > self.target else -1)
        self.p = min(self.limit, max(0.0, self.p + step))
