"""Learned perceptual distance: LPIPS (Zhang et al. 2018), or its shift-tolerant relative where its weights are missing.

The package `lpips` carries its own weights but not AlexNet, which is downloaded. ST-LPIPS (Ghildyal and Liu 2022) is of
the same form, with a network whose pooling is blurred and which was trained on shifted pictures; its package carries
all of its weights. Numbers of the two must not be compared, so every score is named after the one it is.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.metrics.types import Score, first_line

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

    def __call__(
        self, images: Float[Tensor, "n 3 h w"], references: Float[Tensor, "m 3 p q"], batch: int = 16
    ) -> Score:
        """Distance of each picture in [0, 1] to its reference.

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
            parts = [self.distance(a, b) for a, b in zip(images.split(batch), references.split(batch), strict=True)]
        return Score(self.name, torch.cat(parts).tolist(), "lower", self.note)


def load_perceptual_distance(kind: str = "auto", device: str | torch.device = "cpu") -> PerceptualDistance:
    """LPIPS with AlexNet; with `auto` ST-LPIPS where AlexNet's weights are neither cached nor reachable.

    Raises `ValueError` for a kind other than `auto`, `lpips`, `st-lpips`, and `OSError` when `lpips` is asked for and
    cannot be had.
    """
    if kind not in ("auto", "lpips", "st-lpips"):
        raise ValueError(f"--lpips {kind} is unknown: choose auto, lpips or st-lpips")
    reason = ""
    if kind != "st-lpips":
        try:
            return PerceptualDistance("LPIPS", "AlexNet", _scaled(_load_lpips(), device))
        except (OSError, RuntimeError) as error:
            reason = f"; stands in for LPIPS, whose AlexNet cannot be had ({first_line(error)})"
            if kind == "lpips":
                raise OSError(
                    f"--lpips lpips needs AlexNet, which cannot be had ({first_line(error)}): put "
                    f"alexnet-owt-7be5be79.pth into {torch.hub.get_dir()}/checkpoints, or take --lpips st-lpips"
                ) from error
    return PerceptualDistance("ST-LPIPS", f"AlexNet, shift-tolerant{reason}", _scaled(_load_st_lpips(), device))


def _load_lpips() -> Any:
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it calls torchvision by names that are deprecated
        return lpips.LPIPS(net="alex", verbose=False)


def _load_st_lpips() -> Any:
    from stlpips_pytorch import stlpips

    return stlpips.LPIPS(net="alex", variant="shift_tolerant", verbose=False)


def _scaled(network: Any, device: str | torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    network = network.to(device).eval().requires_grad_(False)

    def distance(images: Tensor, references: Tensor) -> Tensor:
        return network(2 * images.to(device) - 1, 2 * references.to(device) - 1).flatten().cpu()

    return distance
