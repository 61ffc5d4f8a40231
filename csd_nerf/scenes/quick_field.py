"""nerfstudio's hash grid in torch, with the same numbers in half the time.

nerfstudio 1.1.5 hashes each of a cell's eight corners from its coordinates: 24 products of 64-bit numbers for every
point and level, and as many copies. Only the lowest bits of a hash count (the table has a power of two of entries), so
that 32-bit numbers, which wrap around, do; and a corner's hash is the exclusive or of one product along each axis, of
which there are six. Interpolation is nerfstudio's, operation for operation: values are equal to the bit. On a CPU,
where nothing asks for the gradient into the points, eight entries are weighed and summed as they are read, and their
gradient is summed into the table once instead of eight times: equal up to rounding.

Its contraction of space asks torch for the largest of three absolute values in a way that takes thirty times as long as
to take it.

On a CPU both are most of a step of a small field. Where tinycudann computes the grid there is nothing to do.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from nerfstudio.field_components.encodings import HashEncoding
from nerfstudio.field_components.spatial_distortions import SceneContraction
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

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
    columns = x0 ^ y0, x0 ^ y1, x1 ^ y0, x1 ^ y1
    if device.type == "cpu" and not (points.requires_grad and torch.is_grad_enabled()):
        entries = torch.stack([column ^ z for z in (z0, z1) for column in columns], dim=-1)
        values = _WeighedEntries.apply(encoding.hash_table, entries.view(-1, 8), _weights(offset).view(-1, 8))
        return values.view(*points.shape[:-1], -1)
    return _interpolated(encoding.hash_table, columns, (z0, z1), offset)


def _interpolated(table: Tensor, columns: Sequence[Tensor], levels: Sequence[Tensor], offset: Tensor) -> Tensor:
    """As nerfstudio does it; `columns` are the low-low, low-high, high-low and high-high corners in x and y."""
    x, y, z = (offset[..., axis : axis + 1] for axis in range(3))
    low_low, low_high, high_low, high_high = columns

    def between(high: Tensor, low: Tensor) -> Tensor:
        """Along x."""
        return table[high.long()] * x + table[low.long()] * (1 - x)

    below, above = (
        between(high_high ^ level, low_high ^ level) * y + between(high_low ^ level, low_low ^ level) * (1 - y)
        for level in levels
    )
    return torch.flatten(above * z + below * (1 - z), start_dim=-2)


def _weights(offset: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 8"]:
    """Of a cell's corners, x before y before z."""
    low, high = (1 - offset).unbind(-1), offset.unbind(-1)
    columns = [x * y for x in (low[0], high[0]) for y in (low[1], high[1])]
    return torch.stack([column * z for z in (low[2], high[2]) for column in columns], dim=-1)


class _WeighedEntries(torch.autograd.Function):
    """sum_k w_k table[e_k] for each row of entries e (m 8) and weights w (m 8); differentiable in the table."""

    @staticmethod
    def forward(context: Any, table: Tensor, entries: Tensor, weights: Tensor) -> Tensor:
        context.save_for_backward(entries, weights)
        context.shape = table.shape
        return torch.nn.functional.embedding_bag(entries, table, per_sample_weights=weights, mode="sum")

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        entries, weights = context.saved_tensors
        rows, features = context.shape
        sums = [
            torch.bincount(entries.view(-1), (weights * gradient[:, k, None]).view(-1), minlength=rows)
            for k in range(features)
        ]
        return torch.stack(sums, dim=1).to(gradient), None, None


def contract(contraction: SceneContraction, positions: Any) -> Any:
    """`SceneContraction.forward` for the largest coordinate as norm (mip-NeRF 360, Eq. 10)."""
    if not isinstance(positions, Tensor):  # Gaussians
        return SceneContraction.forward(contraction, positions)
    x, y, z = positions.abs().unbind(-1)
    norm = torch.maximum(torch.maximum(x, y), z)[..., None]
    return torch.where(norm < 1, positions, (2 - 1 / norm) * (positions / norm))
