"""Means over scenes, with bootstrap intervals (Efron 1979).

The scene is what is drawn anew: the cells of one scene share its object, its NeRF and its truth, and are no independent
samples of anything.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000


@dataclass(frozen=True)
class Interval:
    """A mean, and what its sampling may have made of it."""

    mean: float
    low: float | None
    """Lower end of the 95 % interval; None for fewer than two scenes, which say nothing about their spread."""
    high: float | None
    scenes: int
    """How many the mean is of."""


def bootstrap(values: Sequence[float], seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Mean of one value for each scene with its 95 % percentile interval: draw as many scenes with replacement.

    With few scenes such an interval is too narrow (two scenes can only be drawn in three ways).

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("there is nothing to average over")
    array = np.asarray(values, dtype=np.float64)
    if len(array) < 2:
        return Interval(float(array.mean()), None, None, 1)
    drawn = np.random.default_rng(seed).integers(len(array), size=(resamples, len(array)))
    low, high = np.percentile(array[drawn].mean(axis=1), (2.5, 97.5))
    return Interval(float(array.mean()), float(low), float(high), len(array))


Weighed = Callable[[np.ndarray], np.ndarray]
"""Values of a statistic of a whole set, such as the overlap of its colours with others, for rows of weights (m n) that
say how often each of its n members counts."""


def bootstrap_sets(
    statistics: Sequence[Weighed], count: int, seed: int = 0, resamples: int = RESAMPLES // 10
) -> Interval:
    """Mean of a statistic over several trainings, each measured on the same `count` members (latents, say).

    Drawn anew, with replacement, are the members, the same ones for all trainings, and the trainings where there are
    several. Few trainings say little about their spread, as few scenes do.

    Raises:
        ValueError: there is no training or no member.
    """
    if not statistics or count < 1:
        raise ValueError("there is nothing to average over")
    mean = float(np.mean([statistic(np.ones((1, count)))[0] for statistic in statistics]))
    if count < 2:
        return Interval(mean, None, None, count)
    random = np.random.default_rng(seed)
    drawn = random.integers(count, size=(resamples, count))
    weights = np.stack([np.bincount(one, minlength=count) for one in drawn]).astype(np.float64)
    values = np.stack([statistic(weights) for statistic in statistics])
    chosen = random.integers(len(values), size=(resamples, len(values)))
    means = values[chosen, np.arange(resamples)[:, None]].mean(axis=1)
    low, high = np.nanpercentile(means, (2.5, 97.5))  # a draw of one member alone has no pairs
    return Interval(mean, float(low), float(high), count)


def mean_of(values: Sequence[float]) -> Weighed:
    """The mean of one value for each member."""
    return lambda weights: weights @ np.asarray(values, dtype=np.float64) / weights.sum(axis=1)


def mean_of_pairs(values: np.ndarray) -> Weighed:
    """The mean over all pairs of members, from a symmetric matrix; a member drawn twice makes no pair with itself."""
    apart = values - np.diag(np.diag(values))

    def weighed(weights: np.ndarray) -> np.ndarray:
        pairs = weights.sum(axis=1) ** 2 - np.square(weights).sum(axis=1)
        total = ((weights @ apart) * weights).sum(axis=1)
        return np.divide(total, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)

    return weighed


def by_scene(values: Mapping[tuple[int, str, int], float]) -> dict[int, float]:
    """Mean of each scene, from values by scene, instruction and seed."""
    scenes: dict[int, list[float]] = {}
    for (scene, _, _), value in values.items():
        scenes.setdefault(scene, []).append(value)
    return {scene: float(np.mean(found)) for scene, found in scenes.items()}


def paired_difference(
    ours: Mapping[tuple[int, str, int], float], theirs: Mapping[tuple[int, str, int], float], seed: int = 0
) -> Interval | None:
    """Interval of `ours - theirs` over scenes, from the cells that both have; None if they have none in common.

    Scenes differ more than methods do; the difference within a scene leaves that out.
    """
    common = {key: ours[key] - theirs[key] for key in ours if key in theirs}
    return bootstrap(list(by_scene(common).values()), seed) if common else None
