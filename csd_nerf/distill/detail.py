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


def unchanged(
    rebuilt: Float[Tensor, "n 3 h w"], edited: Float[Tensor, "n 3 h w"], threshold: float, factor: int
) -> Float[Tensor, "n 1 h w"]:
    """Share in [0, 1] of each place that an edit has left as it was: `exp(-(d / threshold)^2)`.

    d is the root of the mean squared difference over colours and the pixels around, as far as one latent pixel reaches
    (`factor` pixels to each side). The `threshold` is above 0.
    """
    square = (edited - rebuilt).square().mean(dim=1, keepdim=True)
    around = avg_pool2d(square, 2 * factor + 1, stride=1, padding=factor, count_include_pad=False)
    return torch.exp(-around / threshold**2)


def give_back(
    source: Float[Tensor, "n 3 H W"],
    rebuilt: Float[Tensor, "n 3 h w"],
    edited: Float[Tensor, "n 3 h w"],
    threshold: float,
    factor: int,
) -> Float[Tensor, "n 3 H W"]:
    """Edited pictures at their sources' size with what the autoencoder lost of them, where nothing has changed.

    All in [0, 1]. `rebuilt` is what the autoencoder makes of the sources, `edited` what it makes of the edit, both at
    the prior's size; `factor` is the autoencoder's, in pixels.
    """
    share, size = unchanged(rebuilt, edited, threshold, factor), (source.shape[-2], source.shape[-1])
    share, before, after = (resize(picture, size) for picture in (share, rebuilt, edited))
    return (after + share * (source - before)).clamp(0, 1)
