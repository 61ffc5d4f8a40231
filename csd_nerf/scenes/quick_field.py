"""nerfstudio's hash grid in torch, with the same numbers in half the time.

nerfstudio 1.1.5 hashes each of a cell's eight corners from its coordinates: 24 products of 64-bit numbers for every
point and level, and as many copies. Only the lowest bits of a hash count (the table has a power of two of entries), so
that 32-bit numbers, which wrap around, do; and a corner's hash is the exclusive or of one product along each axis, of
which there are six. Interpolation is nerfstudio's, operation for operation: values are equal to the bit.

Its contraction of space asks torch for the largest of three absolute values in a way that takes thirty times as long as
to take it.

On a CPU both are most of a step of a small field. Where tinycudann computes the grid there is nothing to do.
"""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from nerfstudio.field_components.encodings import HashEncoding
from nerfstudio.field_components.spatial_distortions import SceneContraction
from torch import Tensor, nn

_PRIMES = (1, 2654435761 - (1 << 32), 805459861)
"""Of Instant-NGP (Mueller et al. 2022, Eq. 4), the second as a signed 32-bit number."""


def quicken(model: nn.Module) -> None:
    """Let the hash grids and contractions of a model compute the same in less time; parameters stay as they are."""
    for module in model.modules():
        if isinstance(module, HashEncoding) and module.tcnn_encoding is None:
            module.pytorch_fwd = partial(hash_grid, module)  # pyright: ignore[reportAttributeAccessIssue]
        elif isinstance(module, SceneContraction) and module.order == float("inf"):
            module.forward = partial(contract, module)


def hash_grid(encoding: HashEncoding, points: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n features"]:
    """`HashEncoding.pytorch_fwd`: trilinear interpolation of the table's entries, all levels side by side."""
    device = points.device
    scaled = points[..., None, :] * encoding.scalings.view(-1, 1).to(device)
    floor, mask = torch.floor(scaled), encoding.hash_table_size - 1
    offset = scaled - floor
    primes = torch.tensor(_PRIMES, dtype=torch.int32, device=device)
    low, high = ((corner.to(torch.int32) * primes) & mask for corner in (floor, torch.ceil(scaled)))
    # Each level has its own part of the table: a multiple of the mask's bits, added to one of the axes.
    start = encoding.hash_offset.to(device, torch.int32)
    (x0, y0, z0), (x1, y1, z1) = low.unbind(-1), high.unbind(-1)
    x0, x1 = x0 | start, x1 | start
    x, y, z = (offset[..., axis : axis + 1] for axis in range(3))

    def between(high_corner: Tensor, low_corner: Tensor) -> Tensor:
        """Along x."""
        return encoding.hash_table[high_corner.long()] * x + encoding.hash_table[low_corner.long()] * (1 - x)

    low_low, low_high, high_low, high_high = x0 ^ y0, x0 ^ y1, x1 ^ y0, x1 ^ y1
    above = between(high_high ^ z1, low_high ^ z1) * y + between(high_low ^ z1, low_low ^ z1) * (1 - y)
    below = between(high_high ^ z0, low_high ^ z0) * y + between(high_low ^ z0, low_low ^ z0) * (1 - y)
    return torch.flatten(above * z + below * (1 - z), start_dim=-2)


def contract(contraction: SceneContraction, positions: Any) -> Any:
    """`SceneContraction.forward` for the largest coordinate as norm (mip-NeRF 360, Eq. 10)."""
    if not isinstance(positions, Tensor):  # Gaussians
        return SceneContraction.forward(contraction, positions)
    x, y, z = positions.abs().unbind(-1)
    norm = torch.maximum(torch.maximum(x, y), z)[..., None]
    return torch.where(norm < 1, positions, (2 - 1 / norm) * (positions / norm))
