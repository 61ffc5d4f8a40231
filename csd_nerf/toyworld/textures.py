"""Solid textures: smooth noise over world positions, and colour conversion."""

from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

PERIOD = 24


@lru_cache(maxsize=512)
def linear(colour: str) -> Float[Tensor, "3"]:
    """`#rrggbb` (sRGB) to linear RGB, 0..1."""
    return torch.tensor([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]).pow(2.2)


@lru_cache(maxsize=1)
def _lattice() -> Float[Tensor, "1 1 d h w"]:
    values = torch.rand((PERIOD,) * 3, generator=torch.Generator().manual_seed(5)) * 2 - 1
    return F.pad(values[None, None], (0, 1, 0, 1, 0, 1), mode="circular")


def noise(position: Float[Tensor, "3 n"]) -> Float[Tensor, "n"]:
    """Smooth noise, -1..1, with features about one unit apart; repeats every `PERIOD` units."""
    cell = torch.remainder(position, PERIOD)
    whole = cell.floor()
    part = cell - whole
    # smoothstep inside a cell makes the linear lookup smooth across cells
    grid = (whole + part * part * (3 - 2 * part)) / PERIOD * 2 - 1
    return F.grid_sample(_lattice(), grid.t()[None, :, None, None], align_corners=True)[0, 0, :, 0, 0]
