"""Which of CSD-Edit's settings make something of the kernel? Each is tried with it and without it.

    python -m benchmarks.kernel FOLDER     # writes benchmarks/results/kernel.json and prints the table

Twelve views of eight toy scenes, "give it a hat", one round from the photos, as `benchmarks.agreement`, but on scenes
that no table of results is made of: what is chosen here is judged there. FOLDER keeps what is done.
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.utils import save_image

from benchmarks.agreement import MEASURES, RESULTS, VIEWS, cases, scores
from csd_nerf.bench.plan import weights_hash
from csd_nerf.bench.scenes import benchmark_scenes
from csd_nerf.bench.statistics import bootstrap
from csd_nerf.distill.editing import edit_images
from csd_nerf.distill.kernels import RBFKernel, median_bandwidth
from csd_nerf.distill.presets import EditSettings
from csd_nerf.distill.solving import Solution, distil, distil_with, make_edit_distiller
from csd_nerf.priors import load_prior
from csd_nerf.toyworld.scene import scene_from_seed

BASE = EditSettings(editor="csd-edit", steps=60, guidance_scale=2.0, t_max=0.98)
"""As `csd-edit-lite`, whose first round this is."""
SCENES = 8


@dataclass(frozen=True)
class Variant:
    """One choice that differs from csd-edit-lite's."""

    settings: EditSettings = BASE
    bandwidth: float = 1.0
    """Times the median heuristic's."""
    kernel_only: bool = False
    """Without the kernel it is csd-edit-lite, which need not be computed twice."""


VARIANTS = {
    "csd-edit-lite": Variant(),
    "learning rate 0.25": Variant(replace(BASE, lr=0.25)),
    "learning rate 1": Variant(replace(BASE, lr=1.0)),
    "learning rate 2": Variant(replace(BASE, lr=2.0)),
    "twice the steps": Variant(replace(BASE, steps=120, lr_decay_every=40)),
    "noise levels up to 0.8": Variant(replace(BASE, t_max=0.8)),
    "noise levels up to 0.7": Variant(replace(BASE, t_max=0.7)),
    "noise levels up to 0.8, own noise": Variant(replace(BASE, t_max=0.8, noise="independent")),
    "noise levels up to 0.8, text guidance 3": Variant(replace(BASE, t_max=0.8, guidance_scale=3.0)),
    "noise levels from 0.5": Variant(replace(BASE, t_min=0.5)),
    "text guidance 4": Variant(replace(BASE, guidance_scale=4.0)),
    "own noise": Variant(replace(BASE, noise="independent")),
    "mixing by the mean, learning rate 2": Variant(replace(BASE, mixing="mean", lr=2.0), kernel_only=True),
    "repulsion of unit scale": Variant(replace(BASE, repulsion="unit"), kernel_only=True),
    "half the bandwidth": Variant(bandwidth=0.5, kernel_only=True),
    "twice the bandwidth": Variant(bandwidth=2.0, kernel_only=True),
    "four times the bandwidth": Variant(bandwidth=4.0, kernel_only=True),
}


def study_scenes() -> tuple[int, ...]:
    """The second held-out scene of each object: the benchmark has the first."""
    taken, found = set(benchmark_scenes()), dict[str, int]()
    for seed in count(min(taken)):
        if seed not in taken:
            found.setdefault(scene_from_seed(seed).object, seed)
        if len(found) == len(taken):
            return tuple(found.values())[:SCENES]
    raise AssertionError("unreachable: the count has no end")


def solver(variant: Variant) -> Callable[..., Solution]:
    """How the variant finds its latents."""
    if variant.bandwidth == 1.0:
        return distil

    def bandwidth(squared: Tensor) -> Tensor:
        return variant.bandwidth * median_bandwidth(squared)

    def solve(prior: Any, start: Any, target: Any, settings: Any, *rest: Any) -> Solution:
        distiller = replace(make_edit_distiller(prior, settings), kernel=RBFKernel(bandwidth))
        return distil_with(distiller, start, target, settings, *rest)

    return solve


@cache
def _case(seed: int) -> Any:
    return next(cases(("hat",), (seed,)))


@cache
def _prior(dtype: Any) -> Any:
    torch.set_num_threads(1)
    return load_prior("toy", device="cpu", dtype=dtype)


def compute(folder: Path, dtype: str, seed: int, label: str, with_kernel: bool) -> dict[str, Any]:
    """One edit, measured; from `folder` if it is there."""
    variant = VARIANTS[label]
    settings = variant.settings if with_kernel else replace(variant.settings, editor="no-svgd")
    name = f"{weights_hash('toy')}_{dtype}_{seed}_{label.replace(' ', '-').replace(',', '')}_{with_kernel}"
    place = folder / f"{name}.json"
    if not place.is_file():
        case, generator = _case(seed), torch.Generator().manual_seed(seed)
        solve = solver(variant) if with_kernel else distil
        result = edit_images(
            _prior(dtype), list(case.source), case.text, settings=settings, generator=generator, solve=solve
        )
        images = torch.stack(result.images)
        row = {"scene": seed, "variant": label, "kernel": with_kernel, **scores(images, case)}
        row |= {"samples per view": result.network_samples / VIEWS, "seconds": round(result.seconds, 1)}
        save_image(images, folder / f"{name}.png", nrow=VIEWS, padding=1, pad_value=1.0)
        place.write_text(json.dumps(row))
        print(seed, label, with_kernel, {key: round(row[key], 2) for key in MEASURES}, flush=True)
    return json.loads(place.read_text())


def main(folder: Path, dtype: str = "fp32") -> None:
    """Compute what is missing with one process per core, then write and print the table."""
    folder.mkdir(parents=True, exist_ok=True)
    asked = [
        (folder, dtype, seed, label, with_kernel)
        for seed in study_scenes()
        for label, variant in VARIANTS.items()
        for with_kernel in ((True,) if variant.kernel_only else (True, False))
    ]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        rows = list(pool.map(compute, *zip(*asked, strict=True)))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    about = {"commit": commit, "date": date.today().isoformat(), "prior": weights_hash("toy"), "precision": dtype}
    about |= {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "torch": torch.__version__}
    (RESULTS / "kernel.json").write_text(json.dumps({**about, "views": VIEWS, "rows": rows}, indent=1) + "\n")
    print(f"\n| setting | {' | '.join(MEASURES)} | without the kernel: {' | '.join(MEASURES)} | paired gain |")
    for label, variant in VARIANTS.items():
        bare = "csd-edit-lite" if variant.kernel_only else label
        with_it = [row for row in rows if row["variant"] == label and row["kernel"]]
        without = [row for row in rows if row["variant"] == bare and not row["kernel"]]
        gain = [a["agreement"] - b["agreement"] for a, b in zip(with_it, without, strict=True)]
        means = [
            f"{bootstrap([row[key] for row in group]).mean:.2f}" for group in (with_it, without) for key in MEASURES
        ]
        found = bootstrap(gain)
        print(f"| {label} | {' | '.join(means)} | {found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f}) |")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:3])
