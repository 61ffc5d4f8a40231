"""Why are CSD-Edit's pictures softer than those of score distillation? The editors alone, without a scene.

    python -m benchmarks.softness FOLDER [PRIOR]   # a quarter of an hour of one core; writes results/softness.json

Twelve views of four toy scenes that no table of results is made of, one round from the photos, instructions that leave
nothing open. Sharpness is the mean absolute difference of neighbouring pixels, given as a share of the true edit's and
of what the autoencoder gives back of the true edit. FOLDER gets a sheet of each case.
"""

import json
import platform
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.agreement import RESULTS, VIEWS, cases, scores
from benchmarks.kernel import study_scenes
from csd_nerf.bench.checkout import commit
from csd_nerf.bench.measure import perceptual_distance
from csd_nerf.bench.plan import weights_hash
from csd_nerf.bench.statistics import bootstrap
from csd_nerf.distill.editing import edit_images
from csd_nerf.distill.presets import EditSettings
from csd_nerf.images.writing import contact_sheet
from csd_nerf.priors import load_prior, solver_of

STEPS, MORE, SCENES, SHOWN = 48, 80, 4, 6
"""48 steps of csd-edit ask as many samples of the network as 80 of random-noise; the scenes' benchmark has as many."""
BASE = EditSettings(editor="csd-edit", steps=STEPS, guidance_scale=2.0, t_max=0.7, keep_detail=0.0)
VARIANTS = {
    "csd-edit": BASE,
    f"csd-edit, {MORE} steps": replace(BASE, steps=MORE),
    "csd-edit, image guidance 1": replace(BASE, image_guidance_scale=1.0),
    "no-svgd": replace(BASE, editor="no-svgd"),
    "random-noise": replace(BASE, editor="random-noise"),
    f"random-noise, {MORE} steps": replace(BASE, editor="random-noise", steps=MORE),
    "random-noise, image guidance 1": replace(BASE, editor="random-noise", image_guidance_scale=1.0),
    "random-noise, both guidances 1": replace(
        BASE, editor="random-noise", guidance_scale=1.0, image_guidance_scale=1.0
    ),
    "sds": replace(BASE, editor="sds"),
}
MEASURES = ("sharpness / truth", "sharpness / autoencoder", "PSNR", "strength")


def sharpness(images: Tensor) -> float:
    """Mean absolute difference of neighbouring pixels."""
    across, down = images.diff(dim=-1).abs().mean(), images.diff(dim=-2).abs().mean()
    return float(across + down) / 2


def main(folder: Path, name: str = "toy") -> None:
    """Edit, measure, write."""
    folder.mkdir(parents=True, exist_ok=True)
    prior, distance, rows = load_prior(name, device="cpu", dtype="bf16"), perceptual_distance(), []
    for case in cases(("recolour", "material"), study_scenes()[:SCENES]):
        truth = case.truths[0]
        decoded = prior.decode(prior.encode(truth))
        sheet = [("photo", case.source), ("true edit", truth), ("the same through\nthe autoencoder", decoded)]
        found = {"the autoencoder's": (decoded, {})}
        for label, settings in VARIANTS.items():
            result = edit_images(
                prior,
                list(case.source),
                case.text,
                settings=settings,
                generator=torch.Generator().manual_seed(case.seed),
                solve=solver_of(settings.editor or "csd-edit"),
            )
            found[label] = torch.stack(result.images), {"samples per view": result.network_samples / VIEWS}
        for label, (images, spent) in found.items():
            row = {"scene": case.seed, "instruction": case.text, "variant": label, **spent, **scores(images, case)}
            row |= {"sharpness / truth": sharpness(images) / sharpness(truth)}
            row |= {"sharpness / autoencoder": sharpness(images) / sharpness(decoded)}
            row[distance.name] = distance(images, truth).mean
            rows.append(row)
            print(case.seed, case.text, label, {key: round(row[key], 3) for key in MEASURES}, flush=True)
            sheet += [(label.replace(", ", ",\n"), images)] if spent else []
        pictures = [(label, list(images[:SHOWN])) for label, images in sheet]
        contact_sheet(pictures, scale=2).save(folder / f"{case.name}_{case.seed}.png")
    about = {"commit": commit(), "date": date.today().isoformat(), "prior": weights_hash(name), "precision": "bf16"}
    about |= {"machine": platform.machine(), "torch": torch.__version__, "steps": STEPS, "views": VIEWS}
    (RESULTS / "softness.json").write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
    columns = (*MEASURES, distance.name)
    print("\n| pictures |", " | ".join(columns), "|\n|---|" + "---|" * len(columns))
    for label in ("the autoencoder's", *VARIANTS):
        means = [bootstrap([row[key] for row in rows if row["variant"] == label]) for key in columns]
        shown = [f"{one.mean:.3g} ({one.low:.3g} to {one.high:.3g})" for one in means]
        print(f"| {label} |", " | ".join(shown), "|")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:3])
