"""How different the pictures of one set are from each other."""

from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.metrics.perceptual import PerceptualDistance
from csd_nerf.metrics.types import Score

_PAIRS, _PIXELS = 64, 64 * 256 * 256


def diversity(distance: PerceptualDistance, images: Float[Tensor, "n 3 h w"], batch: int | None = None) -> Score:
    """Mean perceptual distance over all pairs of pictures in [0, 1] (LDP Table 3). Higher is more diverse.

    n (n - 1) / 2 distances: some hundred pictures are many. `batch` pairs are compared at once; default: 64, and fewer
    of pictures above 256 x 256 pixels. Raises `ValueError` for fewer than two pictures.
    """
    if len(images) < 2:
        raise ValueError("diversity compares pictures with each other: give at least two")
    pairs = torch.tensor(list(combinations(range(len(images)), 2)))
    batch = batch or max(1, min(_PAIRS, _PIXELS // images[0, 0].numel()))
    values: list[float] = []
    for part in pairs.split(batch):
        values += distance(images[part[:, 0]], images[part[:, 1]], batch).values
    note = f"{distance.note}; all pairs of {len(images)} pictures"
    return Score(f"{distance.name} diversity", values, "higher", note)
