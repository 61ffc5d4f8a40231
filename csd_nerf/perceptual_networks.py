"""The networks behind learned perceptual distances: LPIPS, or ST-LPIPS where its weights cannot be had.

The package `lpips` carries its own weights but not AlexNet, which is downloaded; `stlpips-pytorch` carries all of its
weights. The metrics measure with them, and a kernel between views compares with them.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

_LEAST_LENGTH = 1e-10
"""What both packages add to the length of a feature before they divide by it."""


@dataclass(frozen=True)
class PerceptualNetwork:
    """A frozen network that compares pictures; autograd goes through it into them."""

    name: str
    """LPIPS or ST-LPIPS."""
    note: str
    """Network, and why it is not plain LPIPS if it is not."""
    distance: Callable[[Float[Tensor, "n 3 h w"], Float[Tensor, "n 3 h w"]], Float[Tensor, " n"]]
    """Distance of pictures in [0, 1], row by row, on the network's device."""
    embed: Callable[[Float[Tensor, "n 3 h w"]], Float[Tensor, "n d"]]
    """Features of pictures in [0, 1] whose squared Euclidean distance is `distance`."""


def load_perceptual_network(kind: str = "auto", device: str | torch.device = "cpu") -> PerceptualNetwork:
    """LPIPS with AlexNet; with `auto` ST-LPIPS where AlexNet's weights are neither cached nor reachable.

    Raises `ValueError` for a kind other than `auto`, `lpips`, `st-lpips`, and `OSError` when `lpips` is asked for and
    cannot be had.
    """
    if kind not in ("auto", "lpips", "st-lpips"):
        raise ValueError(f"--lpips {kind} is unknown: choose auto, lpips or st-lpips")
    reason = ""
    if kind != "st-lpips":
        try:
            return _comparing("LPIPS", "AlexNet", load_lpips(), device)
        except (OSError, RuntimeError) as error:
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            reason = f"; stands in for LPIPS, whose AlexNet cannot be had ({said})"
            if kind == "lpips":
                raise OSError(
                    f"--lpips lpips needs AlexNet, which cannot be had ({said}): put "
                    f"alexnet-owt-7be5be79.pth into {torch.hub.get_dir()}/checkpoints, or take --lpips st-lpips"
                ) from error
    return _comparing("ST-LPIPS", f"AlexNet, shift-tolerant{reason}", load_st_lpips(), device)


def load_lpips() -> Any:
    """LPIPS (Zhang et al. 2018). Raises `OSError` or `RuntimeError` where AlexNet cannot be had."""
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it calls torchvision by names that are deprecated
        return lpips.LPIPS(net="alex", verbose=False)


def load_st_lpips() -> Any:
    """ST-LPIPS (Ghildyal and Liu 2022)."""
    from stlpips_pytorch import stlpips

    return stlpips.LPIPS(net="alex", variant="shift_tolerant", verbose=False)


def _comparing(name: str, note: str, network: Any, device: str | torch.device) -> PerceptualNetwork:
    network = network.to(device).eval().requires_grad_(False)

    def distance(images: Tensor, references: Tensor) -> Tensor:
        return network(2 * images.to(device) - 1, 2 * references.to(device) - 1).flatten()

    def embed(images: Tensor) -> Tensor:
        # Both packages sum, over the levels of the network, the mean over pixels of w_c (f_c - f'_c)^2, with f of unit
        # length at each pixel and w_c at least 0: the squared distance of f_c sqrt(w_c / pixels).
        levels = network.net(network.scaling_layer(2 * images.to(device) - 1))
        parts = []
        for level, weigh in zip(levels, network.lins, strict=True):
            unit = level / (level.square().sum(dim=1, keepdim=True).sqrt() + _LEAST_LENGTH)
            weight = weigh.model[-1].weight[0, :, 0, 0] / (level.shape[-2] * level.shape[-1])
            parts.append((unit * weight.sqrt()[:, None, None]).flatten(1))
        return torch.cat(parts, dim=1)

    return PerceptualNetwork(name, note, distance, embed)
