"""Whether a picture shows a style: nearest among the outputs of all styles on the same photo, and the photo itself."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from csd_nerf.toyworld.judging.colour import to_lab

UNCHANGED = "unchanged"


def nearest_style(
    pictures: Float[Tensor, "n 3 h w"],
    photos: Float[Tensor, "n 3 h w"],
    styled: dict[str, Float[Tensor, "n 3 h w"]],
) -> list[str]:
    """The style (a key of `styled`, or `UNCHANGED`) whose output on its photo each picture (0..1) is nearest to.

    Lab at half the size: a stroke that is off by a pixel does not make another style.
    """
    ours = _features(pictures)
    distances = {
        name: (ours - _features(images)).square().mean((1, 2, 3)).tolist()
        for name, images in {UNCHANGED: photos, **styled}.items()
    }
    return [min(distances, key=lambda name: distances[name][index]) for index in range(len(pictures))]


def _features(pictures: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 _h _w"]:
    return F.avg_pool2d(to_lab(pictures), 2)
