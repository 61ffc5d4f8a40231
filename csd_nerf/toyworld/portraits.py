"""Pictures of one kind of thing from all sides: what a generator of pictures is trained on.

A scene's shape, sun, background and view are drawn from its seed. Nothing is held out: a generator is not tested on
scenes, and what a diffusion prior has not seen is its own matter.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from csd_nerf.toyworld.cameras import orbit_cameras
from csd_nerf.toyworld.render import Renderer, to_bytes
from csd_nerf.toyworld.scene import BACKGROUNDS, COLOURS, OBJECT_NAMES, Scene

_CHUNK = 64


@dataclass(frozen=True)
class Portraits:
    """Which pictures."""

    objects: tuple[str, ...] = ("mushroom",)
    colours: tuple[str, ...] = ("red",)
    backgrounds: tuple[str, ...] = ("studio", "meadow", "sand")
    size: int = 64
    """Pixels along a side."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for words that the toy world does not know."""
        known = {"objects": OBJECT_NAMES, "colours": tuple(COLOURS), "backgrounds": BACKGROUNDS}
        for name, words in known.items():
            given = getattr(self, name)
            unknown = [word for word in given if word not in words]
            if unknown or not given:
                raise ValueError(f"{name}={' '.join(unknown)}: choose from {', '.join(words)}")

    def picture(self, seed: int) -> UInt8[Tensor, "3 s s"]:
        """The picture of a seed."""
        rng = np.random.default_rng([seed, 53])
        scene = Scene(
            seed=seed,
            object=str(rng.choice(self.objects)),
            proportions=tuple(rng.uniform(-1, 1, 4).round(4).tolist()),
            colour=str(rng.choice(self.colours)),
            background=str(rng.choice(self.backgrounds)),
            sun_azimuth=float(round(-35 + rng.uniform(-25, 25), 2)),
        )
        elevation = 8 + 32 * rng.beta(1.2, 1.8)
        cameras = orbit_cameras([float(rng.uniform(0, 360))], [float(elevation)], self.size)
        return to_bytes(Renderer(cameras).render(scene))[0].permute(2, 0, 1)


def draw_portraits(
    portraits: Portraits,
    count: int,
    first_seed: int = 0,
    workers: int = 2,
    on_step: Callable[[int, int], None] | None = None,
) -> UInt8[Tensor, "n 3 s s"]:
    """`count` pictures of consecutive seeds; `workers` processes of one thread each, 0 works in this one."""
    jobs = [(portraits, range(first_seed + i, first_seed + min(i + _CHUNK, count))) for i in range(0, count, _CHUNK)]
    drawn: list[Tensor] = []
    for part in _run(jobs, workers):
        drawn.append(part)
        if on_step is not None:
            on_step(sum(map(len, drawn)), count)
    return torch.cat(drawn)


def _draw(job: tuple[Portraits, range]) -> Tensor:
    portraits, seeds = job
    return torch.stack([portraits.picture(seed) for seed in seeds])


def _run(jobs: list[tuple[Portraits, range]], workers: int) -> Iterator[Tensor]:
    if workers == 0:
        yield from map(_draw, jobs)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        yield from pool.map(_draw, jobs)


def _one_thread() -> None:
    torch.set_num_threads(1)
