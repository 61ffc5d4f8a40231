"""How far edited pictures are from the true edits, in units of leaving the picture as it is.

    relative error = sum_i |edited_i - truth_i|^2 / sum_i |source_i - truth_i|^2        over edits i of one kind

0 is the truth, 1 is as good as doing nothing.
"""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor


def squared_errors(a: UInt8[Tensor, "n h w 3"], b: UInt8[Tensor, "n h w 3"]) -> Float[Tensor, " n"]:
    """Squared pixel error of each picture (bytes), summed over pixels and channels."""
    return (a.double() - b.double()).square().sum((1, 2, 3))


def relative_errors(
    sources: UInt8[Tensor, "n h w 3"],
    edited: UInt8[Tensor, "n h w 3"],
    truths: UInt8[Tensor, "n h w 3"],
    kinds: list[str],
) -> dict[str, float]:
    """Per kind: the relative error; kinds whose edits change nothing are left out."""
    ours, copying = squared_errors(edited, truths), squared_errors(sources, truths)
    table = {}
    for kind in sorted(set(kinds)):
        chosen = torch.tensor([other == kind for other in kinds])
        if (total := copying[chosen].sum()) > 0:
            table[kind] = (ours[chosen].sum() / total).item()
    return table


def bootstrap_interval(
    ours: Float[Tensor, " n"], copying: Float[Tensor, " n"], draws: int = 2000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of `ours.sum() / copying.sum()`: edits are drawn with replacement.

    Raises:
        ValueError: there is no edit, or none that changes anything.
    """
    if not len(ours) or not copying.sum() > 0:
        raise ValueError("an interval needs at least one edit that changes its picture")
    chosen = np.random.default_rng(seed).integers(len(ours), size=(draws, len(ours)))
    above, below = ours.numpy()[chosen].sum(1), copying.numpy()[chosen].sum(1)
    ratios = above[below > 0] / below[below > 0]
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
