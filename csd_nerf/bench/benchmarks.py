"""The benchmarks by name: what each compares, on what, and with which budgets."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from csd_nerf.bench.plan import Choice, Plan
from csd_nerf.bench.subject import Subject

Name = Literal["scenes", "panorama", "video"]


@dataclass(frozen=True)
class Defaults:
    """What is taken where the user leaves a flag out."""

    protocol: Any
    """Of the benchmark's own type."""
    scenes: int | None
    """The first so many of `benchmark_scenes`; None is all."""
    instructions: tuple[str, ...]
    methods: tuple[str, ...]


@dataclass(frozen=True)
class Benchmark:
    """One benchmark at one size."""

    subject: Subject
    defaults: Defaults
    make_plan: Callable[[Choice, Any], Plan]
    """From a choice and a protocol."""
    compute: Callable[..., dict[str, bytes]]
    """Computes one of the plan's cells, in any process."""


def benchmark(name: Name, quick: bool) -> Benchmark:
    """A benchmark by name, in full or so small that two cores take a quarter of an hour."""
    return {"scenes": _scenes, "panorama": _panorama, "video": _video}[name](quick)


def _scenes(quick: bool) -> Benchmark:
    from csd_nerf.bench import methods, plan
    from csd_nerf.bench.compute import compute
    from csd_nerf.bench.scenes import INSTRUCTIONS
    from csd_nerf.bench.subject import SCENES

    defaults = Defaults(plan.FULL, None, INSTRUCTIONS, tuple(methods.METHODS))
    if quick:
        defaults = Defaults(plan.QUICK, 2, ("recolour", "hat"), methods.QUICK)
    return Benchmark(SCENES, defaults, plan.make_plan, compute)


def _panorama(quick: bool) -> Benchmark:
    from csd_nerf.bench import picture_methods as own
    from csd_nerf.bench.picture_compute import compute_pictures
    from csd_nerf.bench.picture_plan import make_panorama_plan
    from csd_nerf.bench.picture_subjects import PANORAMA

    defaults = Defaults(own.PANORAMA_FULL, None, _instructions(), tuple(own.PANORAMA))
    if quick:
        defaults = Defaults(own.PANORAMA_QUICK, 3, ("recolour", "night", "hat"), own.PANORAMA_QUICK_METHODS)
    return Benchmark(PANORAMA, defaults, make_panorama_plan, compute_pictures)


def _video(quick: bool) -> Benchmark:
    from csd_nerf.bench import picture_methods as own
    from csd_nerf.bench.picture_compute import compute_pictures
    from csd_nerf.bench.picture_plan import make_video_plan
    from csd_nerf.bench.picture_subjects import VIDEO

    defaults = Defaults(own.VIDEO_FULL, None, _instructions(), tuple(own.VIDEO))
    if quick:
        defaults = Defaults(own.VIDEO_QUICK, 2, ("recolour", "hat"), own.VIDEO_QUICK_METHODS)
    return Benchmark(VIDEO, defaults, make_video_plan, compute_pictures)


def _instructions() -> tuple[str, ...]:
    """Those of scenes, and a style of the picture, which a NeRF cannot show from all sides."""
    from csd_nerf.bench.scenes import AMBIGUOUS, DETERMINISTIC

    return (*DETERMINISTIC, "sketch", *AMBIGUOUS)
