"""Adapting the toy generator from red to blue mushrooms: what each loss does, measured where the truth is known.

    python -m benchmarks.stylegan WORK                 # all variants: table and contact sheet in results/stylegan
    python -m benchmarks.stylegan WORK --variants LSD CSD --seeds 0 1 2

WORK keeps the pictures of each adaptation; it is not made again under the same settings. Every variant starts from the
same generator, sees the same z, noises and timesteps, and is measured on pictures of the same 64 latents that no
training drew:

- *colours*: the overlap of the pictures' colours with those of true blue mushrooms (the toy world's own, on the same
  backgrounds from the same views): sum_b min(p_b, q_b) over 16 x 16 bins of a and b in Lab, in [0, 1]. Pixels count by
  their chroma, so that grey and sand do not outweigh the mushroom.
- *blue*: share of the cap (what was red) that is blue now.
- *shape*: overlap (intersection over union) of what was red with what is blue now, for the same z.
- *background*: mean colour difference (CIE 1976) outside of both, for the same z.
- *diversity*: perceptual distance of all pairs of the first 32 pictures (LDP Table 3).
- *FID* to the true pictures, with `--inception`.

Intervals are 95 % bootstrap: latents are drawn anew, and with several `--seeds` the adaptations, too, each of which is
measured on all latents. The true pictures stay. FID has none, since pictures drawn twice make it another quantity; of
several seeds its range is shown.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.keeping import commits, kept
from csd_nerf.bench.statistics import Interval, Weighed, bootstrap_sets, mean_of, mean_of_pairs
from csd_nerf.commands.stylegan.generators import open_generator
from csd_nerf.distill import LossWeights
from csd_nerf.images.stylegan.adaptation import adapt
from csd_nerf.images.stylegan.settings import TOY, TOY_LOSSES, AdaptSettings
from csd_nerf.images.stylegan.showing import sample
from csd_nerf.images.writing import contact_sheet
from csd_nerf.metrics import diversity, fid, load_inception, load_perceptual_distance
from csd_nerf.metrics.frechet import Features
from csd_nerf.priors import load_prior
from csd_nerf.toyworld.judging.colour import to_lab
from csd_nerf.toyworld.portraits import Portraits, draw_portraits
from csd_nerf.whole_files import write_atomically

OUTPUT = Path(__file__).parent / "results/stylegan"
PROMPT = "a blue mushroom"
LATENTS, LATENT_SEED, TRUTHS, PAIRS, SHOWN = 64, 77, 128, 32, 10
FM, KL = TOY_LOSSES.feature_matching, TOY_LOSSES.kl
ALONE = LossWeights(feature_matching=0.0, kl=0.0)
VARIANTS: dict[str, dict] = {
    "LSD": {"losses": ALONE},
    "LSD + FM": {"losses": replace(ALONE, feature_matching=FM)},
    "LSD + KL": {"losses": replace(ALONE, kl=KL)},
    "LSD + FM + KL": {"losses": TOY_LOSSES},
    "LSD, directional": {"losses": ALONE, "directional": 0.5},
    "LSD + FM + KL, directional": {"losses": TOY_LOSSES, "directional": 0.5},
    "CSD": {"losses": ALONE, "kernel": "rbf"},
    "paper's lambdas": {"losses": LossWeights(feature_matching=3.0, kl=0.05)},
}
MEASURES = ("colours", "blue", "shape", "background", "diversity")


def red(lab: torch.Tensor) -> torch.Tensor:
    """Where a picture is as red as the toy world's paint, in the light or in the shade: n h w."""
    return (lab[:, 1] > 0.25) & (lab[:, 2] > 0.05)


def blue(lab: torch.Tensor) -> torch.Tensor:
    """Where it is as blue; its skies and shadows are not."""
    return lab[:, 2] < -0.3


def colour_counts(lab: torch.Tensor) -> torch.Tensor:
    """Histogram of a and b of each picture, weighed by their chroma: n 256. Those of several pictures add up."""
    places = ((lab[:, 1:] + 1) / 2 * 16).long().clamp(0, 15)
    bins = (16 * places[:, 0] + places[:, 1]).flatten(1)
    return torch.zeros(len(lab), 256).scatter_add(1, bins, lab[:, 1:].norm(dim=1).flatten(1))


def overlap(pictures: torch.Tensor, truth: torch.Tensor) -> Weighed:
    """Overlap of the histogram of all pictures with that of all true ones."""
    own, other = (colour_counts(to_lab(images)).double().numpy() for images in (pictures, truth))
    wanted = other.sum(axis=0) / other.sum()

    def weighed(weights: np.ndarray) -> np.ndarray:
        pooled = weights @ own
        return np.minimum(pooled / pooled.sum(axis=1, keepdims=True), wanted).sum(axis=1)

    return weighed


@dataclass(frozen=True)
class Measured:
    """What is known of the pictures of one adaptation."""

    statistics: dict[str, tuple[Weighed, int]]
    """By name, with the number of latents that each is of."""
    fid: float | None


@dataclass(frozen=True)
class Judge:
    """What adaptations are measured with."""

    before: torch.Tensor
    """The source generator's pictures of the latents."""
    truth: torch.Tensor
    distance: Any
    inception: Features | None

    def __call__(self, after: torch.Tensor) -> Measured:
        """Measure pictures of the same latents."""
        old, new = to_lab(self.before), to_lab(after)
        was, now = red(old), blue(new)
        neither = ~(was | now)
        difference = 100 * (new - old).square().sum(dim=1).sqrt()
        total = lambda mask: mask.flatten(1).sum(dim=1).float()  # noqa: E731
        values = {
            "blue": total(was & now) / total(was).clamp_min(1),
            "shape": total(was & now) / total(was | now).clamp_min(1),
            "background": (difference * neither).flatten(1).sum(dim=1) / total(neither).clamp_min(1),
        }
        statistics = {name: (mean_of(value.tolist()), len(after)) for name, value in values.items()}
        statistics["colours"] = overlap(after, self.truth), len(after)
        few = after[:PAIRS]
        pairs = np.zeros((len(few), len(few)))
        for (i, j), value in zip(combinations(range(len(few)), 2), diversity(self.distance, few).values, strict=True):
            pairs[i, j] = pairs[j, i] = value
        statistics["diversity"] = mean_of_pairs(pairs), len(few)
        score = None if self.inception is None else fid(after, self.truth[: len(after)], self.inception).mean
        return Measured(statistics, score)


def run(options: argparse.Namespace) -> None:
    """Compute what is missing, then write table and sheet."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    prior = load_prior("toy", device="cpu", dtype=options.precision)
    source = open_generator(options.generator, prior.device)
    before = sample(source, LATENTS, LATENT_SEED)
    portraits = Portraits(colours=("blue",))
    truth = draw_portraits(portraits, TRUTHS, first_seed=500_000, workers=0).float() / 255
    inception = load_inception(options.inception) if options.inception else None
    judge = Judge(before, truth, load_perceptual_distance("st-lpips"), inception)
    measured: dict[str, list[Measured]] = {"source": [judge(before)]}
    found: dict[str, list[dict[str, Any]]] = {"source": []}
    rows = [("source", list(before[:SHOWN]))]

    def adapted(settings: AdaptSettings, seed: int) -> dict[str, Any]:
        started = time.process_time()
        result = adapt(source, prior, PROMPT, settings, seed=seed)  # pyright: ignore[reportArgumentType]
        seconds = time.process_time() - started
        ratios = [step.losses.ratio for step in result.steps if step.losses.ratio is not None]
        return {
            "pictures": sample(result.generator, LATENTS, LATENT_SEED),
            "seconds": seconds,
            "network samples": result.outcome.checkpoint.network_samples,
            "|grad FM| / |grad LSD|": sum(ratios) / len(ratios) if ratios else None,
        }

    for name in options.variants:
        settings = AdaptSettings(**{**TOY, "steps": options.steps, **VARIANTS[name]})
        decided = f"{settings} {options.generator} {options.precision} {LATENTS} {LATENT_SEED}"
        digest = hashlib.sha256(decided.encode()).hexdigest()[:8]
        for seed in options.seeds:
            path = options.work / f"{name.replace(' ', '_').replace(',', '')}_{seed}_{digest}.pt"
            one = kept(path, lambda settings=settings, seed=seed: adapted(settings, seed))
            after = one.pop("pictures")
            found.setdefault(name, []).append(one)
            measured.setdefault(name, []).append(judge(after))
            if seed == options.seeds[0]:
                rows.append((name.replace(" + ", "\n+ ").replace(", ", "\n"), list(after[:SHOWN])))
        write(found, measured, options, settings)
        sheet = contact_sheet([*rows, ("true blue\nmushrooms", list(truth[:SHOWN]))], scale=2)
        write_atomically(OUTPUT / "ablation.png", lambda path, sheet=sheet: sheet.save(path))
        print(name, {key: interval.mean for key, interval in intervals(measured[name]).items()}, flush=True)


def intervals(seeds: list[Measured]) -> dict[str, Interval]:
    """Of each measure, over latents and seeds."""
    found = {}
    for name in MEASURES:
        pairs = [one.statistics[name] for one in seeds]
        found[name] = bootstrap_sets([statistic for statistic, _ in pairs], pairs[0][1])
    return found


def write(
    found: Mapping[str, list[dict]],
    measured: Mapping[str, list[Measured]],
    options: argparse.Namespace,
    settings: AdaptSettings,
) -> None:
    """The table, and the numbers behind it."""
    names = [*MEASURES, *(["FID"] if measured["source"][0].fid is not None else [])]
    seeds = ", ".join(map(str, options.seeds))
    over = f"{LATENTS} latents ({PAIRS} for the diversity)"
    if len(options.seeds) > 1:
        over += f" and {len(options.seeds)} adaptations, drawn anew together; of so few they are too narrow"
    lines = [
        "# Red mushrooms to blue ones",
        "",
        f'`python -m benchmarks.stylegan`: the toy generator adapted to "{PROMPT}" with the toy prior, '
        f"{settings.steps} steps of {settings.samples} samples, guidance {settings.guidance_scale:g}, t in "
        f"{settings.t_min:g} to {settings.t_max:g}, learning rate {settings.lr:g} x 4 / 5; "
        f"lambda_FM {FM:g}, lambda_KL {KL:g} where they are on. Seed{'s' * (len(options.seeds) > 1)} {seeds}, "
        f"{commits(one for runs in found.values() for one in runs)}, {date.today()}, one thread of a CPU, "
        f"{options.precision}. What the columns mean stands in `benchmarks/stylegan.py`; 95 % bootstrap intervals over "
        f"{over}. [Pictures](ablation.png).",
        "",
        "| variant | " + " | ".join(names) + " | FM / LSD | s |",
        "|---" * (len(names) + 3) + "|",
    ]
    numbers = {}
    for name, seeds_of in measured.items():
        columns = intervals(seeds_of)
        numbers[name] = {"scores": {key: vars(interval) for key, interval in columns.items()}, "runs": found[name]}
        cells = [_cell(columns[key]) for key in MEASURES]
        if "FID" in names:
            values = numbers[name]["FID"] = [one.fid for one in seeds_of if one.fid is not None]
            spread = f" ({min(values):.3g} to {max(values):.3g})" if len(values) > 1 else ""
            cells.append(f"{sum(values) / len(values):.3g}{spread}")
        cells += [_mean(found[name], "|grad FM| / |grad LSD|", ".2g"), _mean(found[name], "seconds", ".0f")]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    (OUTPUT / "ablation.md").write_text("\n".join(lines) + "\n")
    (OUTPUT / "ablation.json").write_text(json.dumps(numbers, indent=1) + "\n")


def _cell(interval: Interval) -> str:
    return f"{interval.mean:.3g} ({interval.low:.3g} to {interval.high:.3g})"


def _mean(runs: list[dict], key: str, form: str) -> str:
    values = [one[key] for one in runs if one[key] is not None]
    return f"{sum(values) / len(values):{form}}" if values else ""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--generator", default="toy")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=TOY["steps"])
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--inception", type=Path)
    torch.set_num_threads(1)
    run(parser.parse_args())
