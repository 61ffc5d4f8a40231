"""At which size pictures are edited, and how they get there and back."""

import math

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate


def edit_size(height: int, width: int, prior_size: int, factor: int) -> tuple[int, int]:
    """Height and width in pixels at which a picture is edited.

    Its aspect and `prior_size ** 2` pixels, as nearly as sides that are multiples of `factor` allow: the network then
    sees about as many latent pixels as in training. No side is below two latent pixels (`2 * factor`), so that strips
    of more than about `(prior_size / factor / 2) ** 2` to 1 lose some of their aspect and get more pixels.

    Args:
        height: The picture's, in pixels.
        width: The picture's, in pixels.
        prior_size: Side in pixels of the square pictures that the prior was trained on (`ImagePrior.size`).
        factor: Pixels per latent pixel (`ImagePrior.factor`).
    """
    scale = prior_size / math.sqrt(height * width)
    rows, columns = (max(2, round(side * scale / factor)) * factor for side in (height, width))
    return rows, columns


def resize(images: Float[Tensor, "n c H W"], size: tuple[int, int]) -> Float[Tensor, "n c h w"]:
    """Bicubic, antialiased, clamped to [0, 1]."""
    if tuple(images.shape[-2:]) == size:
        return images
    return interpolate(images, size=size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
