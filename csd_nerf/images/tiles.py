"""Encoding and decoding pictures of any size, tile by tile: the codec never sees more pixels than one tile has.

A side of length L, in latent pixels, is divided into equal tiles that overlap by at least O. Where two tiles meet, the
outer quarter of the overlap is context only (a convolution next to an edge sees padding instead of picture), and the
half in the middle cross-fades with a raised cosine. With s the distance from the discarded margin over the width of
the fade, clamped to [0, 1], the window of tile i along one side and its share of an output pixel are

    v_i = sin^2(pi s_left / 2) sin^2(pi s_right / 2),    w_i = v_i / sum_j v_j,

so that shares sum to 1 whatever the rounding of positions; in two dimensions they are products of one for the rows and
one for the columns. Borders of the picture have no window.

A codec that normalises over a whole picture (group normalisation, attention in the middle block) sees other statistics
in each tile than in all of them: a tile differs from its part of a decode in one call by a slight, smooth change of
colour. Blending hides where it changes; the larger the tile, the smaller it is.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from csd_nerf.distill.types import ImagePrior
from csd_nerf.priors.autoencoder import PIXELS_PER_CALL

LARGEST_DEFAULT = math.isqrt(PIXELS_PER_CALL)
"""A default tile's side in pixels is at most this, so that it is no more than the codec takes in one call anyway."""


def default_tile(prior: ImagePrior) -> int:
    """Side in pixels of the tiles where none is asked for: four times what the prior was trained on, but bounded."""
    return max(1, min(4 * prior.size, LARGEST_DEFAULT) // prior.factor) * prior.factor


def encode_tiled(
    prior: ImagePrior,
    picture: Float[Tensor, "3 H W"],
    *,
    tile: int | None = None,
    overlap: int | None = None,
    wrap: bool = False,
    condition: bool = False,
    scaled_sample: torch.Generator | None = None,
    on_tile: Callable[[int, int], None] | None = None,
) -> Float[Tensor, "c h w"]:
    """Latents of a picture in [0, 1], as `prior.encode` gives them, accumulated on the CPU in float32.

    A picture that fits into one tile is encoded in one call.

    Args:
        prior: Whose codec is used.
        picture: On any device; its sides are multiples of `prior.factor` (see `csd_nerf.images.patches.pad_to`).
        tile: Largest side of a tile in pixels, a multiple of `prior.factor`; `default_tile` if None.
        overlap: Of neighbouring tiles at least, in pixels, a multiple of `prior.factor`, at most half a tile; a quarter
            of it if None.
        wrap: Whether left and right edge are neighbours: tiles then continue around.
        condition: Image condition (`prior.encode_condition`) instead of latents.
        scaled_sample: With a generator, the scaled posterior sample that the released code conditions on. Tiles draw
            their own; where they are cross-faded the sample's small noise is weaker.
        on_tile: Is told how many tiles are done, and of how many.

    Raises `ValueError` for other sizes, and what the codec raises.
    """
    encode = prior.encode_condition if condition else prior.encode
    if scaled_sample is not None:
        encode = partial(prior.encode_condition, scaled_sample=scaled_sample)
    return _encode(encode, prior, picture, _sizes(prior, tile, overlap), wrap, on_tile)


def encode_both_tiled(
    prior: ImagePrior,
    picture: Float[Tensor, "3 H W"],
    *,
    tile: int | None = None,
    overlap: int | None = None,
    wrap: bool = False,
    on_tile: Callable[[int, int], None] | None = None,
) -> tuple[Float[Tensor, "c h w"], Float[Tensor, "c h w"]]:
    """Latents and image condition, as two calls of `encode_tiled` give them; the codec sees each tile once.

    Of the tile that it saw last a codec still knows both, of all of a large picture it may not.
    """

    def both(piece: Tensor) -> Tensor:
        return torch.cat([prior.encode(piece), prior.encode_condition(piece)], dim=1)

    latents, condition = _encode(both, prior, picture, _sizes(prior, tile, overlap), wrap, on_tile).chunk(2)
    return latents.contiguous(), condition.contiguous()


def _encode(
    codec: Callable[[Tensor], Tensor],
    prior: ImagePrior,
    picture: Float[Tensor, "3 H W"],
    sizes: tuple[int, int],
    wrap: bool,
    on_tile: Callable[[int, int], None] | None,
) -> Float[Tensor, "b h w"]:
    height, width = picture.shape[-2:]
    factor = prior.factor
    if height % factor or width % factor:
        raise ValueError(
            f"a picture of {width} x {height} pixels cannot be encoded: pad its sides to multiples of {factor}"
        )
    grid = (_Line.divide(height // factor, *sizes), _Line.divide(width // factor, *sizes, wrap))
    return _blend(codec, picture, grid, (factor, 1), prior.device, on_tile)


def decode_tiled(
    prior: ImagePrior,
    latents: Float[Tensor, "c h w"],
    *,
    tile: int | None = None,
    overlap: int | None = None,
    wrap: bool = False,
    on_tile: Callable[[int, int], None] | None = None,
) -> Float[Tensor, "3 H W"]:
    """The picture in [0, 1] of these latents, as `prior.decode` gives it, accumulated on the CPU in float32.

    Arguments and errors as for `encode_tiled`; `tile` and `overlap` are in pixels of the picture here too. What
    overflows in the codec is NaN here as there.
    """
    tiles, shared = _sizes(prior, tile, overlap)
    height, width = latents.shape[-2:]
    grid = (_Line.divide(height, tiles, shared), _Line.divide(width, tiles, shared, wrap))
    return _blend(prior.decode, latents, grid, (1, prior.factor), prior.device, on_tile)


def _sizes(prior: ImagePrior, tile: int | None, overlap: int | None) -> tuple[int, int]:
    """Side and overlap of tiles in latent pixels."""
    factor = prior.factor
    tile = default_tile(prior) if tile is None else tile
    if tile < factor or tile % factor:
        raise ValueError(f"tile={tile}: give a positive multiple of {factor}, the pixels per latent pixel")
    overlap = tile // 4 // factor * factor if overlap is None else overlap
    if overlap % factor or not 0 <= overlap <= tile // 2:
        raise ValueError(f"overlap={overlap} of tiles of {tile} pixels: give a multiple of {factor} up to {tile // 2}")
    return tile // factor, overlap // factor


@dataclass(frozen=True)
class _Line:
    """How one side is divided into tiles; all in latent pixels."""

    length: int
    tile: int
    starts: tuple[int, ...]
    overlap: int
    wrap: bool

    @classmethod
    def divide(cls, length: int, tile: int, overlap: int, wrap: bool = False) -> "_Line":
        """As few tiles as the largest size allows, then as small as their number allows: nothing is done in vain."""
        if not wrap and length <= tile:
            return cls(length, length, (0,), overlap, False)
        if wrap:
            # Its neighbours are copies of itself if there is but one; what wraps is at least a tile and an overlap.
            count = math.ceil(length / (tile - overlap))
            starts = tuple(i * length // count for i in range(count))
            return cls(length, math.ceil(length / count) + overlap, starts, overlap, True)
        count = math.ceil((length - overlap) / (tile - overlap))
        tile = math.ceil((length + (count - 1) * overlap) / count)
        starts = tuple(i * (length - tile) // (count - 1) for i in range(count))
        return cls(length, tile, starts, overlap, False)

    def places(self, start: int, scale: int) -> Int[Tensor, " m"]:
        """Positions of a tile's pixels on the side, `scale` to a latent pixel."""
        return (start * scale + torch.arange(self.tile * scale)) % (self.length * scale)

    def shares(self, scale: int) -> list[Float[Tensor, " m"]]:
        """w_i of each tile, `scale` values to a latent pixel."""
        margin = self.overlap * scale / 4
        fade = max(self.overlap * scale / 2, 1.0)
        inside = torch.arange(self.tile * scale, dtype=torch.float64) + 0.5 - margin
        rise = torch.sin(torch.pi / 2 * (inside / fade).clamp(0, 1)).square()
        total = torch.zeros(self.length * scale, dtype=torch.float64)
        windows = []
        for i, start in enumerate(self.starts):
            window = torch.ones_like(rise)
            if self.wrap or i > 0:
                window = window * rise
            if self.wrap or i < len(self.starts) - 1:
                window = window * rise.flip(0)
            windows.append(window)
            total.index_add_(0, self.places(start, scale), window)
        return [
            (window / total[self.places(start, scale)]).float()
            for window, start in zip(windows, self.starts, strict=True)
        ]


def _blend(
    codec: Callable[[Tensor], Tensor],
    source: Float[Tensor, "a _h _w"],
    grid: tuple[_Line, _Line],
    scales: tuple[int, int],
    device: torch.device,
    on_tile: Callable[[int, int], None] | None,
) -> Float[Tensor, "b _H _W"]:
    """Run the codec on each tile and sum the answers by their shares.

    `scales` are the source's and the result's pixels per latent pixel.
    """
    rows, columns = grid
    before, after = scales
    row_shares, column_shares = rows.shares(after), columns.shares(after)
    count, total = len(rows.starts) * len(columns.starts), None
    for i, top in enumerate(rows.starts):
        strip = source[:, rows.places(top, before).to(source.device)]
        for j, left in enumerate(columns.starts):
            piece = strip[:, :, columns.places(left, before).to(source.device)]
            answer = codec(piece[None].to(device, torch.float32))[0].float().cpu()
            if total is None:
                total = torch.zeros(len(answer), rows.length * after, columns.length * after)
            shared = answer * (row_shares[i][:, None] * column_shares[j])
            bottom = top * after + answer.shape[-2]
            total[:, top * after : bottom].index_add_(2, columns.places(left, after), shared)
            if on_tile is not None:
                on_tile(i * len(columns.starts) + j + 1, count)
    assert total is not None
    return total
