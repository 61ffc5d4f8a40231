"""Learned perceptual distance: LPIPS (Zhang et al. 2018), or its shift-tolerant relative where its weights are missing.

The package `lpips` carries its own weights but not AlexNet, which is downloaded. ST-LPIPS (Ghildyal and Liu 2022) is of
the same form, with a network whose pooling is blurred and which was trained on shifted pictures; its package carries
all of its weights. Numbers of the two must not be compared, so every score is named after the one it is.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Real
from torch import Tensor

from csd_nerf.metrics.levels import unit
from csd_nerf.metrics.types import Score
from csd_nerf.perceptual_networks import load_perceptual_network

SMALLEST_FOR_LPIPS = 32
"""Pixels a side: AlexNet's strides leave next to nothing of smaller pictures."""


@dataclass(frozen=True)
class PerceptualDistance:
    """Learned perceptual distance, per picture. Lower is nearer, 0 for equal pictures.

    LPIPS(x, y) = sum_l mean_hw sum_c w_lc (f_l(x) - f_l(y))_c^2, over the unit-length features f_l of five layers of
    AlexNet and learned weights w_l (Zhang et al. 2018; CSD Tables 1 and 2). ST-LPIPS is the same with a shift-tolerant
    AlexNet (Ghildyal and Liu 2022); numbers of the two must not be compared.
    """

    name: str
    """LPIPS or ST-LPIPS; the score's name."""
    note: str
    """Network, and why it is not plain LPIPS if it is not."""
    distance: Callable[[Float[Tensor, "n 3 h w"], Float[Tensor, "n 3 h w"]], Float[Tensor, " n"]]

    def __call__(self, images: Real[Tensor, "n 3 h w"], references: Real[Tensor, "m 3 p q"], batch: int = 16) -> Score:
        """Distance of each picture, in [0, 1] or in 8 bits, to its reference.

        Raises `ValueError` for pictures below 32 pixels a side, and for references of another number or size.
        """
        if images.shape != references.shape:
            raise ValueError(f"{self.name} compares pictures of one size, not {images.shape} with {references.shape}")
        if min(images.shape[-2:]) < SMALLEST_FOR_LPIPS:
            size = f"{images.shape[-1]} x {images.shape[-2]}"
            raise ValueError(
                f"{self.name} needs pictures of at least {SMALLEST_FOR_LPIPS} pixels a side, these have {size}"
            )
        with torch.no_grad():
            pairs = zip(images.split(batch), references.split(batch), strict=True)
            parts = [self.distance(unit(a), unit(b)) for a, b in pairs]
        return Score(self.name, torch.cat(parts).cpu().tolist(), "lower", self.note)


def load_perceptual_distance(kind: str = "auto", device: str | torch.device = "cpu") -> PerceptualDistance:
    """The distance of `load_perceptual_network`, which says what is raised."""
    network = load_perceptual_network(kind, device)
    return PerceptualDistance(network.name, network.note, network.distance)
