"""What the autoencoder loses of a picture, given back where an edit has changed nothing.

An edited picture D(z) has been through the autoencoder, and so has what nobody asked to change: it is softer than the
photo, and has the prior's resolution, not the photo's. What is lost, the photo less what the autoencoder makes of it,
`x - D(E(x))`, is known, and stays right wherever D(z) still shows what D(E(x)) shows. CSD-Edit subtracts the source's
score for the same reason: what the model gets wrong about the photo is no part of the edit (CSD Section 3.2). Neither
paper does this to the pixels.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from csd_nerf.distill.sizes import resize

DETAIL_THRESHOLD = 0.1
"""Of colours in [0, 1]: less than what recolouring changes, more than what an edit moves by the way."""

PIXELS_AT_ONCE = 1 << 20
"""Rows of so many pixels are worked on at a time: of a large panorama no more is held twice."""


def unchanged(
    rebuilt: Float[Tensor, "n 3 h w"],
    edited: Float[Tensor, "n 3 h w"],
    threshold: float,
    factor: int,
    wrap: bool = False,
) -> Float[Tensor, "n 1 h w"]:
    """Share in [0, 1] of each place that an edit has left as it was: `exp(-(d / threshold)^2)`.

    d is the root of the mean squared difference over colours and the pixels around, as far as one latent pixel reaches
    (`factor` pixels to each side). The `threshold` is above 0. With `wrap` the left and right side are neighbours, as
    those of a whole turn are.
    """
    square = (edited - rebuilt).square().mean(dim=1, keepdim=True)
    if wrap:
        square = square[..., torch.arange(-factor, square.shape[-1] + factor) % square.shape[-1]]
    around = avg_pool2d(square, 2 * factor + 1, stride=1, padding=factor, count_include_pad=False)
    if wrap:
        around = around[..., factor:-factor]
    return torch.exp(-around / threshold**2)


def give_back(
    source: Float[Tensor, "n 3 H W"],
    rebuilt: Float[Tensor, "n 3 h w"],
    edited: Float[Tensor, "n 3 h w"],
    threshold: float,
    factor: int,
    wrap: bool = False,
) -> Float[Tensor, "n 3 H W"]:
    """Edited pictures at their sources' size with what the autoencoder lost of them, where nothing has changed.

    All in [0, 1]. `rebuilt` is what the autoencoder makes of the sources, `edited` what it makes of the edit, both at
    the prior's size; `factor` is the autoencoder's, in pixels, and `wrap` that of `unchanged`.
    """
    height, width = size = (source.shape[-2], source.shape[-1])
    if tuple(edited.shape[-2:]) != size:
        pictures = (unchanged(rebuilt, edited, threshold, factor, wrap), rebuilt, edited)
        share, before, after = (resize(picture, size) for picture in pictures)
        return (after + share * (source - before)).clamp(0, 1)
    made, band = torch.empty_like(edited), max(1, PIXELS_AT_ONCE // width)
    for top in range(0, height, band):
        low, rows = max(0, top - factor), slice(top, top + band)
        around = slice(low, top + band + factor)
        share = unchanged(rebuilt[..., around, :], edited[..., around, :], threshold, factor, wrap)
        share = share[..., top - low :, :][..., :band, :]
        lost = source[..., rows, :] - rebuilt[..., rows, :]
        made[..., rows, :] = (edited[..., rows, :] + share * lost).clamp(0, 1)
    return made
