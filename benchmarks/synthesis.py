"""What feature matching and the KL regulariser do to pictures made from words: LDP Figure 7 with numbers.

    python -m benchmarks.synthesis WORK [TAESD PHOTOS]   # about ten minutes of one core; benchmarks/results/synthesis

WORK keeps what was computed; it is not computed again. TAESD is a folder of the tiny autoencoder of Stable Diffusion's
latent space, PHOTOS a folder of photos: with them, the two losses in that space, under a prior known in closed form.
"""

import json
import platform
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.keeping import commits, kept
from benchmarks.synthesis_real import measure_real
from csd_nerf.bench.statistics import Interval, bootstrap
from csd_nerf.distill import LossWeights, Target, TextGuidance
from csd_nerf.images.synthesis import TOY, SynthesisSettings, ablation_of
from csd_nerf.images.synthesis_run import Synthesis
from csd_nerf.images.writing import contact_sheet
from csd_nerf.priors import load_prior, sample
from csd_nerf.toyworld.judging.colour import to_lab
from csd_nerf.toyworld.judging.pictures import CaptionScene, PictureJudge, caption_scenes
from csd_nerf.toyworld.render import Renderer
from csd_nerf.whole_files import write_atomically

RESULTS = Path(__file__).parent / "results" / "synthesis"
CAPTIONS, GROUPS, SAMPLES = 8, 5, 4
WEIGHTS = LossWeights(feature_matching=0.02, kl=1.0)
SETTINGS = SynthesisSettings(**{**TOY, "losses": WEIGHTS, "steps": 150}, kernel="independent")
SHIPPED: LossWeights = TOY["losses"]
VARIANTS: dict[str, LossWeights] = {
    **ablation_of(SETTINGS.losses),
    f"LSD + FM, lambda {SHIPPED.feature_matching:g}": replace(SHIPPED, kl=0.0),
    f"LSD + FM + KL, lambda {SHIPPED.feature_matching:g}": SHIPPED,
    "LSD + FM, lambda 0.1": LossWeights(feature_matching=0.1, kl=0.0),
}
MEASURES = ("right", "saturation", "sharpness", "latent std")


def saturation(images: Tensor) -> Tensor:
    """Mean chroma, the distance to grey in Lab / 100."""
    return to_lab(images)[:, 1:].square().sum(dim=1).sqrt().mean(dim=(1, 2))


def sharpness(images: Tensor) -> Tensor:
    """Mean length of the gradient of lightness (Lab / 100), per pixel."""
    light = to_lab(images)[:, :1]
    down, right = light.diff(dim=2)[..., :-1], light.diff(dim=3)[..., :-1, :]
    return (down.square() + right.square()).sqrt().mean(dim=(1, 2, 3))


def target(prior, words: list[str]) -> Target:
    text = prior.encode_text(words)
    null = prior.encode_text([""]).expand_as(text)
    return Target((text,), null, torch.zeros(len(words), 4, prior.size // prior.factor, prior.size // prior.factor))


def run(prior, words: list[str], settings: SynthesisSettings, losses: LossWeights, seed: int = 0) -> dict:
    generator = torch.Generator().manual_seed(seed)
    side = prior.size // prior.factor
    start = torch.randn(len(words), 4, side, side, generator=generator)
    work = Synthesis(prior, settings, {"": losses}, target(prior, words), start, generator)
    result = work.run()
    losses_made = result.losses[0]
    assert losses_made is not None
    state = result.checkpoint
    return {
        "images": result.images[0],
        "latents": state.latents[0],
        "ratio": losses_made.ratio,
        "seconds": state.seconds,
    }


def drawn(prior, words: list[str]) -> dict:
    """Plain sampling of the same captions."""
    generator, side = torch.Generator().manual_seed(0), prior.size // prior.factor
    latents = sample(prior, TextGuidance(5.0), target(prior, words), 20, generator, shape=(4, side, side))
    return {"images": prior.decode(latents), "latents": latents, "ratio": None, "seconds": 0.0}


def measured(found: dict) -> dict[str, list[float]]:
    """All but what needs the judge."""
    values = {
        "saturation": saturation(found["images"]).tolist(),
        "sharpness": sharpness(found["images"]).tolist(),
    }
    if "latents" in found:
        values["latent std"] = found["latents"].flatten(1).std(dim=1).tolist()
    return values


def judge_all(sets: list[tuple[dict, list[CaptionScene]]]) -> list[list[float]]:
    """Whether each picture of each set shows its caption's object in its colour; one call, which knows all views."""
    pictures = torch.cat([found["images"] for found, _ in sets])
    asked = [one for _, group in sets for one in group]
    verdicts = PictureJudge(cameras=12)(pictures, asked)
    right = [float(verdict.right(one.scene)) for verdict, one in zip(verdicts, asked, strict=True)]
    return [[right.pop(0) for _ in group] for _, group in sets]


def shown(interval: Interval, signed: bool = False) -> str:
    form = "+.3f" if signed else ".3f"
    return f"{interval.mean:{form}} ({interval.low:{form}} to {interval.high:{form}})"


def table(rows: dict[str, dict[str, list[float]]], ratios: dict[str, float | None]) -> list[str]:
    lines = ["| pictures | " + " | ".join(MEASURES) + " | FM / LSD |", "|---|" + "---|" * (len(MEASURES) + 1)]
    for name, values in rows.items():
        cells = [shown(bootstrap(values[measure])) if measure in values else "" for measure in MEASURES]
        ratio = ratios.get(name)
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {'' if ratio is None else f'{ratio:.1f}'} |")
    lines += ["", "Difference to LSD, paired within captions:", "", "| pictures | " + " | ".join(MEASURES) + " |"]
    lines.append("|---|" + "---|" * len(MEASURES))
    for name, values in rows.items():
        if name == "LSD":
            continue
        cells = []
        for measure in MEASURES:
            pairs = zip(values.get(measure, []), rows["LSD"][measure], strict=False)
            differences = [a - b for a, b in pairs]
            cells.append(shown(bootstrap(differences), signed=True) if differences else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def spread(images: Tensor) -> float:
    """Mean Lab distance (/ 100, root mean square over pixels) between all pairs of pictures."""
    lab = to_lab(images).flatten(1)
    return float(torch.pdist(lab).mean() / lab.shape[1] ** 0.5)


GROUPS_OF: dict[str, tuple[str, str]] = {
    "alone (LSD + KL)": ("independent", "independent"),
    "CSD, RBF kernel": ("rbf", "independent"),
    "alone, one noise": ("independent", "shared"),
    "CSD, one noise": ("rbf", "shared"),
}
"""Kernel and noise of several samples of one caption."""


def group(prior, work: Path, number: int, words: str, kernel: str, noise: str) -> dict:
    """Samples of one caption."""
    settings = replace(SETTINGS, kernel=kernel, noise=noise, samples=SAMPLES)
    losses = replace(SETTINGS.losses, feature_matching=0.0)
    path = work / f"group_{kernel}_{noise}_{number}.pt"
    return kept(path, lambda: run(prior, [words] * SAMPLES, settings, losses, seed=1))


def group_lines(name: str, found: list[dict], right: list[list[float]]) -> str:
    columns = [
        [float(np.mean(one)) for one in right],
        [spread(one["images"]) for one in found],
        [float(saturation(one["images"]).mean()) for one in found],
        [float(sharpness(one["images"]).mean()) for one in found],
    ]
    return f"| {name} | " + " | ".join(shown(bootstrap(values)) for values in columns) + " |"


def paired(spreads: dict[str, list[float]]) -> list[str]:
    """What the kernel does to the spread, for both kinds of noise."""
    said = []
    for noise in ("independent", "shared"):
        alone, mixed = (next(n for n, how in GROUPS_OF.items() if how == (k, noise)) for k in ("independent", "rbf"))
        differences = [b - a for a, b in zip(spreads[alone], spreads[mixed], strict=True)]
        said.append(f"{noise} noise {shown(bootstrap(differences), signed=True)}")
    return said


def main(work: Path, real: tuple[Path, Path] | None) -> None:
    """Compute what is missing, then write tables and sheets."""
    prior = load_prior("toy", dtype="bf16")
    asked = caption_scenes(CAPTIONS, first_seed=1_000_100)
    words = [one.words for one in asked]
    truths = torch.cat([Renderer(one.cameras).render(one.scene) for one in asked])
    sets = {"true pictures": {"images": truths, "ratio": None}}
    sets["DDIM, guidance 5"] = kept(work / "ddim.pt", lambda: drawn(prior, words))
    for name, losses in VARIANTS.items():
        path = work / f"{name.lower().replace(' + ', '_').replace(', ', '_').replace(' ', '_')}.pt"
        sets[name] = kept(path, lambda losses=losses: run(prior, words, SETTINGS, losses))
        print(name, sets[name]["ratio"], round(sets[name]["seconds"]), flush=True)
    groups = {
        name: [group(prior, work, number, one, *how) for number, one in enumerate(words[:GROUPS])]
        for name, how in GROUPS_OF.items()
    }
    made = [found for name, found in sets.items() if name != "true pictures"]
    listed = [(found, asked) for found in sets.values()]
    listed += [(one, [asked[n]] * SAMPLES) for found in groups.values() for n, one in enumerate(found)]
    right = judge_all(listed)
    rows = {name: {"right": right.pop(0), **measured(found)} for name, found in sets.items()}
    ratios = {name: found["ratio"] for name, found in sets.items()}
    lines = ["| samples | right | spread of the samples | saturation | sharpness |", "|---|---|---|---|---|"]
    lines += [group_lines(name, found, [right.pop(0) for _ in found]) for name, found in groups.items()]
    spreads = {name: [spread(one["images"]) for one in found] for name, found in groups.items()}
    lines += ["", "Spread with the kernel less that without, paired within captions: " + "; ".join(paired(spreads))]
    RESULTS.mkdir(parents=True, exist_ok=True)
    sheet = [(name.replace(", ", ",\n"), list(found["images"])) for name, found in sets.items()]
    write_sheet(RESULTS / "ablation.jpg", contact_sheet(sheet, scale=2))
    pairs = [(name, [image for one in found for image in one["images"][:2]]) for name, found in groups.items()]
    write_sheet(RESULTS / "samples.jpg", contact_sheet(pairs, scale=2))
    head = _head(commits([*made, *(one for found in groups.values() for one in found)]))
    text = "\n".join([*head, *table(rows, ratios), "", _GROUP_WORDS, "", *lines, ""])
    if real is not None:
        text += "\n" + "\n".join(measure_real(*real, work)) + "\n"
    (RESULTS / "tables.md").write_text(text)
    numbers = {"rows": rows, "ratios": ratios, "captions": words, "spread of the samples": spreads}
    (RESULTS / "synthesis.json").write_text(json.dumps(numbers, indent=1) + "\n")
    print(text)


_GROUP_WORDS = f"{GROUPS} of these captions, {SAMPLES} samples each, without feature matching:"


def _head(come_from: str) -> list[str]:
    return [
        "# Feature matching and the KL regulariser in pictures made of words",
        "",
        f"`python -m benchmarks.synthesis`, {come_from}, {date.today().isoformat()}, {platform.machine()}, one "
        f"thread, torch {torch.__version__}, bf16. {CAPTIONS} captions of held-out scenes, one picture each, "
        f"{SETTINGS.steps} steps; mean with the 95 % bootstrap interval over captions; of so few it is too narrow.",
        "",
        f"Lambdas, where a loss is on: LSD {WEIGHTS.lsd:g}, FM {WEIGHTS.feature_matching:g} or what the row says "
        f"({SHIPPED.feature_matching:g} is the toy prior's default), KL {WEIGHTS.kl:g}.",
        "",
    ]


def write_sheet(path: Path, sheet: Image.Image) -> None:
    write_atomically(path, lambda temporary: sheet.save(temporary, quality=90))


if __name__ == "__main__":
    main(Path(sys.argv[1]), (Path(sys.argv[2]), Path(sys.argv[3])) if len(sys.argv) > 3 else None)
