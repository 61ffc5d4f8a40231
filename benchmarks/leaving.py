"""Which settings let an object leave its colour? The editor alone, one round from the photos, "change its colour".

    python -m benchmarks.leaving FOLDER [PRECISION]   # writes benchmarks/results/leaving.json, prints the table

Twelve views of each of eight toy scenes that no table of results is made of. The budget is that of a round of
`csd-edit-lite` in the full benchmark. An object that the photos show in a colour lies in a mode of its own; a view that
is nearer to its photo than to any edit has not left it. FOLDER keeps what is done.
"""

import json
import platform
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torchvision.utils import save_image

from benchmarks.agreement import MEASURES, RESULTS, VIEWS, cases, scores
from benchmarks.kernel import study_scenes
from csd_nerf.bench.checkout import commit
from csd_nerf.bench.plan import weights_hash
from csd_nerf.bench.statistics import bootstrap
from csd_nerf.distill.editing import edit_images
from csd_nerf.distill.presets import EditSettings
from csd_nerf.priors import load_prior

BASE = EditSettings(steps=24, guidance_scale=4.0, t_max=0.7, keep_detail=0.0)
"""As the first round of csd-edit-lite when this was asked: noise levels from 0.2, noise of its own for each view."""
VARIANTS = {
    "csd-edit": BASE,
    "no-svgd": replace(BASE, editor="no-svgd"),
    "one noise for all views": replace(BASE, noise="shared"),
    "learning rate 1": replace(BASE, lr=1.0),
    "guidance 6": replace(BASE, guidance_scale=6.0),
    "twice the steps": replace(BASE, steps=48),
    "noise levels up to 0.98": replace(BASE, t_max=0.98),
    "noise levels up to 0.98, guidance 6": replace(BASE, t_max=0.98, guidance_scale=6.0),
    "noise levels from 0.35": replace(BASE, t_min=0.35),
    "noise levels from 0.5": replace(BASE, t_min=0.5),
    "noise levels from 0.5, no-svgd": replace(BASE, t_min=0.5, editor="no-svgd"),
    "noise levels 0.5 to 0.98": replace(BASE, t_min=0.5, t_max=0.98),
}


def main(folder: Path, precision: Any) -> None:
    """Compute what is missing, then write and print the table."""
    folder.mkdir(parents=True, exist_ok=True)
    prior, rows = load_prior("toy", device="cpu", dtype=precision), []
    for case in cases(("colour",), study_scenes()):
        for label, settings in VARIANTS.items():
            name = f"{weights_hash('toy')}_{precision}_{case.seed}_{label.replace(' ', '-').replace(',', '')}"
            place = folder / f"{name}.json"
            if not place.is_file():
                generator = torch.Generator().manual_seed(case.seed)
                made = edit_images(prior, list(case.source), case.text, settings=settings, generator=generator)
                images = torch.stack(made.images)
                save_image(images, place.with_suffix(".png"), nrow=VIEWS, padding=1, pad_value=1.0)
                place.write_text(json.dumps({"scene": case.seed, "variant": label, **scores(images, case)}))
            rows.append(json.loads(place.read_text()))
            print(case.seed, label, {key: round(rows[-1][key], 2) for key in MEASURES}, flush=True)
    about = {"commit": commit(), "date": date.today().isoformat(), "machine": platform.machine()}
    about |= {"torch": torch.__version__, "prior": weights_hash("toy"), "precision": precision, "views": VIEWS}
    (RESULTS / "leaving.json").write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
    print(f"| setting | scenes with less than half of the views edited | {' | '.join(MEASURES)} |")
    print("|---|---|" + "---|" * len(MEASURES))
    for label in VARIANTS:
        own = [row for row in rows if row["variant"] == label]
        stuck = sum(row["edited"] < 0.5 for row in own)
        means = [bootstrap([row[measure] for row in own]) for measure in MEASURES]
        print(
            f"| {label} | {stuck} | " + " | ".join(f"{m.mean:.2f} ({m.low:.2f} to {m.high:.2f})" for m in means) + " |"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "auto")
