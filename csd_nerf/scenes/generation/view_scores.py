"""Scores of one view of an object that needs no true picture: for `ns-eval` and the benchmark."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def view_scores(picture: Float[Tensor, "3 h w"], opacity: Float[Tensor, "h w"]) -> dict[str, float]:
    """How much of the view the object covers, how colourful it is, how sharp.

    coverage: mean opacity. saturation: mean of (max - min) over the channels, where the object is (opacity above a
    half); 0 if it is nowhere. sharpness: mean length of the brightness' gradient there, per pixel.
    """
    there = opacity > 0.5
    spread = picture.amax(dim=0) - picture.amin(dim=0)
    grey = picture.mean(dim=0)
    dy = F.pad(grey[1:] - grey[:-1], (0, 0, 0, 1))
    dx = F.pad(grey[:, 1:] - grey[:, :-1], (0, 1, 0, 0))
    steep = torch.sqrt(dx.square() + dy.square())
    return {
        "coverage": float(opacity.mean()),
        "saturation": float(spread[there].mean()) if there.any() else 0.0,
        "sharpness": float(steep[there].mean()) if there.any() else 0.0,
    }
