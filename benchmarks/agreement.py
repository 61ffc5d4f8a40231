"""Do views that are edited together choose the same? The editors alone, without a scene that averages their views.

    python -m benchmarks.agreement FOLDER   # writes benchmarks/results/agreement_*.json

Twelve views of each toy scene, one round from the photos, one instruction that leaves a colour open, 300 UNet samples a
view for every editor. FOLDER keeps what is done; rows that are there already are not computed again.
"""

import json
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.utils import save_image

from csd_nerf.bench.agreement import view_agreement
from csd_nerf.bench.checkout import commit
from csd_nerf.bench.compute import training_cameras
from csd_nerf.bench.plan import weights_hash
from csd_nerf.bench.scenes import benchmark_scenes, instruction
from csd_nerf.bench.statistics import Interval, bootstrap
from csd_nerf.distill.editing import edit_images
from csd_nerf.distill.presets import EditSettings
from csd_nerf.priors import load_prior, solver_of
from csd_nerf.toyworld.render import Renderer
from csd_nerf.toyworld.scene import scene_from_seed

RESULTS = Path(__file__).parent / "results"
VIEWS, SCENES, SAMPLES = 12, 8, 300
BASE = EditSettings(editor="csd-edit", steps=SAMPLES // 5, guidance_scale=2.0, t_max=0.98, lr=1.0, keep_detail=0.0)
COSTS = {"csd-edit": 5, "no-svgd": 5, "random-noise": 3, "sds": 3, "ip2p": 3}
MEASURES = ("agreement", "edited", "strength", "PSNR")


def with_editor(editor: str, noise: str) -> EditSettings:
    """An editor under the common budget."""
    steps = SAMPLES // COSTS[editor]
    # The rate falls by the same factor over all steps.
    changes: dict[str, Any] = {"editor": editor, "noise": noise, "steps": steps, "lr_decay_every": steps // 3}
    if editor == "ip2p":
        changes |= {"lr": None, "t_max": None}
    return replace(BASE, **changes)


METHODS = {
    f"{editor}, {noise} noise": with_editor(editor, noise) for editor in COSTS for noise in ("shared", "independent")
}


@dataclass(frozen=True)
class Case:
    """One instruction for one scene."""

    seed: int
    name: str
    text: str
    source: Tensor
    truths: Tensor
    colours: list[str]


def cases(names: tuple[str, ...], seeds: tuple[int, ...]) -> Iterator[Case]:
    """Scenes, seen from every other training camera."""
    cameras = training_cameras({"views": 2 * VIEWS, "held_out": 8, "size": 64})
    cameras = replace(
        cameras,
        camera_to_world=cameras.camera_to_world[::2],
        azimuth=cameras.azimuth[::2],
        elevation=cameras.elevation[::2],
    )
    for name, seed in product(names, seeds):
        scene, renderer = scene_from_seed(seed), Renderer(cameras)
        asked = instruction(name, scene)
        truths = torch.stack([renderer.edited(scene, edit) for edit in asked.edits])
        colours = [edit.colour or "" for edit in asked.edits]
        yield Case(seed, name, asked.text, renderer.render(scene), truths, colours)


def scores(images: Tensor, case: Case) -> dict[str, Any]:
    """Agreement, and whether there was an edit to agree on."""
    found = view_agreement(images, case.source, case.truths, case.colours)
    errors = (case.truths - images).square().mean(dim=(2, 3, 4))  # k n
    change = (images - case.source).square().mean()
    true_change = (case.truths - case.source).square().mean()
    return {
        "agreement": found.share,
        "edited": found.edited,
        "strength": float((change / true_change).sqrt()),
        "PSNR": float(-10 * errors.amin(dim=0).mean().log10()),
        "choices": found.choices,
    }


def main(folder: Path, variants: dict[str, EditSettings], names: tuple[str, ...], file: str) -> None:
    """Compute what is missing, then write the table and, for the methods, the figure."""
    prior = load_prior("toy", device="cpu")
    weights = weights_hash("toy")
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for case in cases(names, benchmark_scenes()[:SCENES]):
        for label, settings in variants.items():
            key = f"{weights}_{case.seed}_{case.name}_{label.replace(' ', '-').replace(',', '')}"
            place = folder / f"{key}.json"
            if not place.is_file():
                generator = torch.Generator().manual_seed(case.seed)
                solve = solver_of(settings.editor or "csd-edit")
                result = edit_images(
                    prior, list(case.source), case.text, settings=settings, generator=generator, solve=solve
                )
                images = torch.stack(result.images)
                row = {"scene": case.seed, "instruction": case.name, "variant": label, **scores(images, case)}
                row |= {"samples per view": result.network_samples / VIEWS, "seconds": round(result.seconds, 1)}
                save_image(images, folder / f"{key}.png", nrow=VIEWS, padding=1, pad_value=1.0)
                place.write_text(json.dumps(row))
                print(case.seed, case.name, label, {name: round(row[name], 2) for name in MEASURES}, flush=True)
            rows.append(json.loads(place.read_text()))
    about = {"commit": commit(), "date": date.today().isoformat(), "prior": weights, "torch": torch.__version__}
    about |= {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "views": VIEWS}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / file).write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
    for name in names:
        print(f"\n{name}\n\n| variant |", " | ".join(MEASURES), "|\n|---|" + "---|" * len(MEASURES))
        for label in variants:
            own = [row for row in rows if row["variant"] == label and row["instruction"] == name]
            print(f"| {label} |", " | ".join(_said(bootstrap([row[key] for row in own])) for key in MEASURES), "|")


def _said(interval: Interval) -> str:
    if interval.low is None:
        return f"{interval.mean:.2f}"
    return f"{interval.mean:.2f} ({interval.low:.2f} to {interval.high:.2f})"


if __name__ == "__main__":
    for chosen in ("hat", "colour"):
        main(Path(sys.argv[1]), METHODS, (chosen,), f"agreement_{chosen}.json")
