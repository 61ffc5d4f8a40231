"""Adapting the toy generator from red to blue mushrooms: what each loss does, measured where the truth is known.

    python -m benchmarks.stylegan                 # all variants: table and contact sheet in benchmarks/results/stylegan
    python -m benchmarks.stylegan --variants LSD CSD --seeds 0 1

Every variant starts from the same generator, sees the same z, noises and timesteps, and is measured on pictures of the
same 64 latents that no training drew:

- *colours*: the overlap of the pictures' colours with those of true blue mushrooms (the toy world's own, on the same
  backgrounds from the same views): sum_b min(p_b, q_b) over 16 x 16 bins of a and b in Lab, in [0, 1]. Pixels count by
  their chroma, so that grey and sand do not outweigh the mushroom.
- *blue*: share of the cap (what was red) that is blue now.
- *shape*: overlap (intersection over union) of what was red with what is blue now, for the same z.
- *background*: mean colour difference (CIE 1976) outside of both, for the same z.
- *diversity*: perceptual distance of all pairs of the first 32 pictures (LDP Table 3).
- *FID* to the true pictures, with `--inception`.

Intervals are 95 % bootstrap over the latents; of several seeds the mean for each latent is taken.
"""

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path

import torch

from csd_nerf.bench.checkout import commit
from csd_nerf.bench.statistics import bootstrap
from csd_nerf.commands.stylegan.generators import open_generator
from csd_nerf.distill import LossWeights
from csd_nerf.images.stylegan.adaptation import adapt
from csd_nerf.images.stylegan.settings import TOY, TOY_LOSSES, AdaptSettings
from csd_nerf.images.stylegan.showing import sample
from csd_nerf.images.writing import contact_sheet
from csd_nerf.metrics import diversity, fid, load_inception, load_perceptual_distance
from csd_nerf.priors import load_prior
from csd_nerf.toyworld.judging.colour import to_lab
from csd_nerf.toyworld.portraits import Portraits, draw_portraits

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
MEASURES = {"colours": "higher", "blue": "higher", "shape": "higher", "background": "lower", "diversity": "higher"}


def red(lab: torch.Tensor) -> torch.Tensor:
    """Where a picture is as red as the toy world's paint, in the light or in the shade: n h w."""
    return (lab[:, 1] > 0.25) & (lab[:, 2] > 0.05)


def blue(lab: torch.Tensor) -> torch.Tensor:
    """Where it is as blue; its skies and shadows are not."""
    return lab[:, 2] < -0.3


def colours(lab: torch.Tensor) -> torch.Tensor:
    """Histogram of a and b over all pixels, weighed by their chroma; sums to 1."""
    places = ((lab[:, 1:] + 1) / 2 * 16).long().clamp(0, 15)
    chroma = lab[:, 1:].norm(dim=1).flatten()
    counts = torch.bincount((16 * places[:, 0] + places[:, 1]).flatten(), weights=chroma, minlength=256)
    return counts / counts.sum()


def measures(before: torch.Tensor, after: torch.Tensor, truth: torch.Tensor) -> dict[str, list[float]]:
    """Values for each latent; the pictures' colours are those of one picture against all true ones together."""
    old, new = to_lab(before), to_lab(after)
    was, now = red(old), blue(new)
    neither = ~(was | now)
    difference = 100 * (new - old).square().sum(dim=1).sqrt()
    total = lambda mask: mask.flatten(1).sum(dim=1).float()  # noqa: E731
    pooled = float(torch.minimum(colours(new), colours(to_lab(truth))).sum())
    return {
        "colours": [pooled],
        "blue": (total(was & now) / total(was).clamp_min(1)).tolist(),
        "shape": (total(was & now) / total(was | now).clamp_min(1)).tolist(),
        "background": ((difference * neither).flatten(1).sum(dim=1) / total(neither).clamp_min(1)).tolist(),
    }


def run(options: argparse.Namespace) -> None:
    """Compute what is missing, then write table and sheet."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    prior = load_prior("toy", device="cpu", dtype=options.precision)
    source = open_generator(options.generator, prior.device)
    before = sample(source, LATENTS, LATENT_SEED)
    portraits = Portraits(colours=("blue",))
    truth = draw_portraits(portraits, TRUTHS, first_seed=500_000, workers=0).float() / 255
    distance = load_perceptual_distance("st-lpips")
    inception = load_inception(options.inception) if options.inception else None
    found: dict[str, list[dict]] = {}
    rows = [("source", list(before[:SHOWN]))]

    def measured(after: torch.Tensor) -> dict:
        scores: dict = measures(before, after, truth)
        scores["diversity"] = [diversity(distance, after[:PAIRS]).mean]
        if inception is not None:
            scores["FID"] = [fid(after, truth[:LATENTS], inception).mean]
        return scores

    found["source"] = [{"scores": measured(before)}]
    for name in options.variants:
        for seed in options.seeds:
            settings = AdaptSettings(**{**TOY, "steps": options.steps, **VARIANTS[name]})
            started = time.process_time()
            result = adapt(source, prior, PROMPT, settings, seed=seed)  # pyright: ignore[reportArgumentType]
            after = sample(result.generator, LATENTS, LATENT_SEED)
            ratios = [step.losses.ratio for step in result.steps if step.losses.ratio is not None]
            found.setdefault(name, []).append(
                {
                    "scores": measured(after),
                    "seconds": time.process_time() - started,
                    "network samples": result.outcome.checkpoint.network_samples,
                    "|grad FM| / |grad LSD|": sum(ratios) / len(ratios) if ratios else None,
                }
            )
            if seed == options.seeds[0]:
                rows.append((name.replace(" + ", "\n+ ").replace(", ", "\n"), list(after[:SHOWN])))
            print(name, seed, {k: sum(v) / len(v) for k, v in found[name][-1]["scores"].items()}, flush=True)
            write(found, options, settings)
            contact_sheet([*rows, ("true blue\nmushrooms", list(truth[:SHOWN]))], scale=2).save(OUTPUT / "ablation.png")


def write(found: Mapping[str, list[dict]], options: argparse.Namespace, settings: AdaptSettings) -> None:
    """The table, and the numbers behind it."""
    names = [*MEASURES, *(["FID"] if "FID" in found["source"][0]["scores"] else [])]
    lines = [
        "# Red mushrooms to blue ones",
        "",
        f'`python -m benchmarks.stylegan`: the toy generator adapted to "{PROMPT}" with the toy prior, '
        f"{settings.steps} steps of {settings.samples} samples, guidance {settings.guidance_scale:g}, t in "
        f"{settings.t_min:g} to {settings.t_max:g}, learning rate {settings.lr:g} x 4 / 5, seeds "
        f"{' '.join(map(str, options.seeds))}; "
        f"lambda_FM {FM:g}, lambda_KL {KL:g} where they are on. Commit {commit()}, {date.today()}, one thread of a "
        f"CPU, {options.precision}. What the columns mean stands in `benchmarks/stylegan.py`; 95 % bootstrap "
        f"intervals over {LATENTS} latents. [Pictures](ablation.png).",
        "",
        "| variant | " + " | ".join(names) + " | FM / LSD | s |",
        "|---" * (len(names) + 3) + "|",
    ]
    for name, runs in found.items():
        cells = [_cell([one["scores"][measure] for one in runs]) for measure in names]
        ratio, seconds = runs[0].get("|grad FM| / |grad LSD|"), runs[0].get("seconds")
        cells += ["" if ratio is None else f"{ratio:.2g}", "" if seconds is None else f"{seconds:.0f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    (OUTPUT / "ablation.md").write_text("\n".join(lines) + "\n")
    (OUTPUT / "ablation.json").write_text(json.dumps(found, indent=1) + "\n")


def _cell(seeds: list[list[float]]) -> str:
    """Mean over latents and seeds, with the interval over latents, or the range of whole-set scores over seeds."""
    if len(seeds[0]) == 1:
        values = [one[0] for one in seeds]
        spread = f" ({min(values):.3g} to {max(values):.3g})" if len(values) > 1 else ""
        return f"{sum(values) / len(values):.3g}{spread}"
    interval = bootstrap([sum(values) / len(values) for values in zip(*seeds, strict=True)])
    return f"{interval.mean:.3g} ({interval.low:.3g} to {interval.high:.3g})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", default="toy")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=TOY["steps"])
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--inception", type=Path)
    torch.set_num_threads(1)
    run(parser.parse_args())
