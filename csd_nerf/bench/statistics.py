"""Means over scenes, with bootstrap intervals (Efron 1979).

The scene is what is drawn anew: the cells of one scene share its object, its NeRF and its truth, and are no independent
samples of anything.
"""

from collections.abc import Mapping, Sequence
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
