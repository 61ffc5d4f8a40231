"""Layers against true edits of the toy world: is the opacity the object's mask, is the composite the true edit?

    python -m benchmarks.layers WORK [RIVER]    # about fifteen minutes of one core; benchmarks/results/layers

WORK keeps what was computed; it is not computed again. RIVER is a photo that is edited, too; its sheet stays
in WORK.
"""

import json
import platform
import sys
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.keeping import commits, kept
from csd_nerf.bench.scenes import instruction, source_caption, target_caption
from csd_nerf.bench.statistics import Interval, bootstrap
from csd_nerf.distill import LossWeights, resize
from csd_nerf.images.layers import LayerEditor, LayerSettings, edit_layers, toy_settings
from csd_nerf.images.picture_files import read_picture
from csd_nerf.images.writing import contact_sheet
from csd_nerf.priors import load_prior
from csd_nerf.toyworld.cameras import orbit_cameras
from csd_nerf.toyworld.render import Renderer
from csd_nerf.toyworld.scene import scene_from_seed
from csd_nerf.toyworld.trace import trace
from csd_nerf.whole_files import write_atomically

RESULTS = Path(__file__).parent / "results" / "layers"
SEEDS = (1_000_000, 1_000_002, 1_000_003, 1_000_005)
STEPS = 120
NOTHING = LossWeights(feature_matching=0.0, kl=0.0)
CAPTION, TOLD = LossWeights(feature_matching=0.02, kl=0.1), LossWeights(feature_matching=0.002, kl=0.02)
"""Lambdas of the ablation, by caption and by instruction."""
SHIPPED = toy_settings("lsd")["losses"]
MEASURES = ("PSNR", "IoU of alpha", "change outside", "alpha error")


@dataclass(frozen=True)
class Case:
    """One edit with its truth."""

    instruction: str
    before: str
    """Caption of the source."""
    after: str
    source: Tensor
    truth: Tensor
    mask: Tensor
    """Of the object, from the renderer: the share of each pixel's rays that hit it."""


def case(seed: int) -> Case:
    """ "Make it ..." of a held-out scene, from the front."""
    scene, cameras = scene_from_seed(seed), orbit_cameras([20.0], [20.0])
    asked, renderer = instruction("recolour", scene), Renderer(cameras)
    after = target_caption(scene, asked)
    assert after is not None
    buffer = trace(scene.table, cameras, scene.sun_azimuth, 1)
    mask = (buffer.part >= 0).float().reshape(cameras.height, cameras.width)
    source, truth = renderer.render(scene)[0], renderer.edited(scene, asked.edits[0])[0]
    view = ", front view"
    return Case(asked.text, source_caption(scene) + view, after + view, source, truth, mask)


def variants() -> dict[str, tuple[LayerSettings, bool]]:
    """Settings, and whether the true mask is given."""
    caption = LayerSettings(**{**toy_settings("lsd"), "losses": CAPTION, "steps": STEPS})
    shipped = replace(caption, losses=SHIPPED)
    told = LayerSettings(**{**toy_settings("csd-edit"), "losses": TOLD, "steps": STEPS}, editor="csd-edit")
    default = f"lambda {SHIPPED.feature_matching:g}"

    def only(settings: LayerSettings, *names: str) -> LayerSettings:
        kept_ones = {name: getattr(settings.losses, name) for name in names}
        return replace(settings, losses=replace(NOTHING, **kept_ones))

    return {
        "LSD": (only(caption), False),
        "LSD + FM": (only(caption, "feature_matching"), False),
        "LSD + KL": (only(caption, "kl"), False),
        "LSD, true mask": (only(caption), True),
        "csd-edit": (only(told), False),
        "csd-edit, true mask": (only(told), True),
        "LSD + FM + KL": (caption, False),
        f"LSD + FM, {default}": (only(shipped, "feature_matching"), False),
        f"LSD + FM + KL, {default}": (shipped, False),
        "csd-edit + FM + KL": (told, False),
    }


def edit(prior: Any, one: Case, settings: LayerSettings, masked: bool) -> dict:
    prompt = one.instruction if settings.editor == "csd-edit" else one.after
    result = edit_layers(prior, one.source, prompt, settings, mask=one.mask if masked else None)
    ratio = None if result.losses is None else result.losses.ratio
    return {"composite": result.composite, "layer": result.layer, "alpha": result.alpha, "ratio": ratio}


def measured(found: dict, one: Case) -> dict[str, float]:
    inside, drawn = one.mask > 0.5, found["alpha"] > 0.5
    union = (inside | drawn).sum().clamp_min(1)
    unchanged = (one.truth - one.source).abs().amax(dim=0) < 0.02
    return {
        "PSNR": float(-10 * (found["composite"] - one.truth).square().mean().log10()),
        "IoU of alpha": float((inside & drawn).sum() / union),
        "change outside": float((found["composite"] - one.source).abs().mean(dim=0)[unchanged].mean()),
        "alpha error": float((found["alpha"] - one.mask).abs().mean()),
    }


def shown(interval: Interval) -> str:
    digits = 2 if interval.mean > 5 else 3
    return f"{interval.mean:.{digits}f} ({interval.low:.{digits}f} to {interval.high:.{digits}f})"


def main(work: Path, river: Path | None) -> None:
    """Compute what is missing, then write the table and the sheets."""
    prior, cases = load_prior("toy", dtype="bf16"), [case(seed) for seed in SEEDS]
    nothing = [measured({"composite": one.source, "alpha": torch.zeros_like(one.mask)}, one) for one in cases]
    rows = {"the source, unedited": nothing}
    if river is not None:
        edit_river(prior, river, work)
    ratios, made, sheet = {}, [], [("source", [one.source for one in cases for _ in range(3)])]
    sheet.append(("true edit, mask", [x for c in cases for x in (c.truth, c.truth, c.mask.expand(3, -1, -1))]))
    for name, (settings, masked) in variants().items():
        rows[name], pictures, ratios[name] = [], [], []
        for seed, one in zip(SEEDS, cases, strict=True):
            path = work / f"{name.replace(' ', '_').replace(',', '')}_{seed}.pt"
            found = kept(path, lambda one=one, s=settings, m=masked: edit(prior, one, s, m))
            made.append(found)
            rows[name].append(measured(found, one))
            ratios[name].append(found["ratio"])
            pictures += [found["composite"], found["layer"], found["alpha"].expand(3, -1, -1)]
        sheet.append((name.replace(", ", ",\n").replace(" + FM", "\n+ FM"), pictures))
        print(name, {m: sum(r[m] for r in rows[name]) / len(cases) for m in MEASURES}, ratios[name], flush=True)
        RESULTS.mkdir(parents=True, exist_ok=True)
        drawn = contact_sheet(sheet, scale=2)
        write_atomically(RESULTS / "layers.jpg", lambda path, drawn=drawn: drawn.save(path, quality=90))
        write(rows, ratios, commits(made))


def write(rows: dict[str, list[dict[str, float]]], ratios: dict[str, list[float | None]], come_from: str) -> None:
    """The table of what there is."""
    own = {"lsd": toy_settings("lsd"), "csd-edit": toy_settings("csd-edit")}
    lines = [
        "# Layers against true edits",
        "",
        f"`python -m benchmarks.layers`, {come_from}, {date.today().isoformat()}, {platform.machine()}, one "
        f"thread, torch {torch.__version__}, bf16. Recolouring of {len(SEEDS)} held-out scenes (seeds "
        f"{', '.join(map(str, SEEDS))}), {STEPS} steps; mean with the 95 % bootstrap interval over scenes; of so few "
        "it is too narrow.",
        "",
        f"Lambdas, where a loss is on: LSD {CAPTION.lsd:g}; by caption FM {CAPTION.feature_matching:g} (or what the "
        f"row says: {SHIPPED.feature_matching:g} is the toy prior's default), KL {CAPTION.kl:g}; of csd-edit FM "
        f"{TOLD.feature_matching:g}, KL {TOLD.kl:g}, its defaults. Mask {own['lsd']['lambda_mask']:g} and "
        f"{own['csd-edit']['lambda_mask']:g}, opacity {own['lsd']['lambda_sparsity']:g} and "
        f"{own['csd-edit']['lambda_sparsity']:g}.",
        "",
        "| layer | " + " | ".join(MEASURES) + " | FM / LSD |",
        "|---|" + "---|" * (len(MEASURES) + 1),
    ]
    for name, found in rows.items():
        cells = [shown(bootstrap([one[measure] for one in found])) for measure in MEASURES]
        known = [ratio for ratio in ratios.get(name, []) if ratio is not None]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {f'{sum(known) / len(known):.1f}' if known else ''} |")
    lines += [
        "",
        "- **PSNR**: of the composite to the true edit, dB. **IoU of alpha**: of alpha above 0.5 and the object, as "
        "the renderer sees it (an edit need not cover all of the object: eyes and doors keep their colours).",
        "- **change outside**: mean absolute change where the true edit changes nothing. **alpha error**: mean "
        "|alpha - object|.",
        "- **FM / LSD**: length of feature matching's gradient over that of LSD's, in the last tenth of the steps.",
    ]
    (RESULTS / "tables.md").write_text("\n".join(lines) + "\n")
    (RESULTS / "layers.json").write_text(json.dumps({"rows": rows, "ratios": ratios}, indent=1) + "\n")


def edit_river(prior: Any, river: Path, work: Path) -> None:
    """A photo, by instruction and by caption; only styles and night mean something on photos to the toy prior."""
    picture = read_picture(river).image
    height, width = picture.shape[-2:]
    small = resize(picture[None], (round(640 * height / width), 640))[0]
    rows = []
    cases: tuple[tuple[LayerEditor, str], ...] = (("csd-edit", "make it night"), ("lsd", "a photo, at night"))
    for editor, prompt in cases:
        own = {**toy_settings(editor), "steps": STEPS, "lambda_sparsity": 3.0}
        settings = LayerSettings(**own, editor=editor)

        def make(prompt: str = prompt, settings: LayerSettings = settings) -> dict:
            result = edit_layers(prior, small, prompt, settings)
            return {"composite": result.composite, "layer": result.layer, "alpha": result.alpha}

        found = kept(work / f"river_{editor}.pt", make)
        rows.append((prompt, [found["composite"], found["layer"], found["alpha"].expand(3, -1, -1)]))
    drawn = contact_sheet([("river", [small]), *rows])
    write_atomically(work / "river.jpg", lambda path: drawn.save(path, quality=90))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
