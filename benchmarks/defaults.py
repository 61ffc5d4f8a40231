"""What sharing the noise and normalising rows do: an ambiguous edit whose answer is known.

N particles are views of one thing. Each has its own content (64 numbers, which the prior knows from the condition)
and a colour (4 numbers). Views start with different colours, a common one plus `spread` times a unit normal of their
own: light, shadow, exposure. The instruction leaves the new colour open: the prior is an equal mixture of six colours,
so that each view is drawn to another one. Independent edits each pick a colour; a consistent edit picks one for all.
Kernel and noise are switched separately, because both make particles agree.

    python -m benchmarks.defaults            # about two minutes on one core; writes benchmarks/results/defaults.*
"""

import json
import platform
from datetime import date
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from csd_nerf.bench.checkout import commit
from csd_nerf.distill import (
    Condition,
    EditSettings,
    NoiseSchedule,
    OptimizeSettings,
    Target,
    make_edit_distiller,
    optimize_latents,
)
from csd_nerf.priors import MixturePrior

RESULTS = Path(__file__).parent / "results"
SEEDS, PARTICLES, COLOURS, CONTENT = 20, 16, 6, 64
SPREADS = (0.0, 0.25, 0.5, 1.0, 2.0)
"""Colours of the views at the start; the six colours of the edit lie 2 from the common one."""
NUMBERS, STEP_SPREAD = (1, 2, 4, 8, 16, 32), 0.5
KERNELS: tuple[Literal["independent", "rbf"], ...] = ("independent", "rbf")
NOISES: tuple[Literal["independent", "shared"], ...] = ("independent", "shared")
MIXINGS: tuple[Literal["row", "mean"], ...] = ("row", "mean")


class AmbiguousEdit:
    """The exact InstructPix2Pix of this world: content from the picture; colour from the text, or the picture's."""

    schedule = NoiseSchedule.scaled_linear()

    def __init__(self, generator: torch.Generator) -> None:
        directions = torch.randn((COLOURS, 4), generator=generator, dtype=torch.float64)
        self.colours = 2 * torch.nn.functional.normalize(directions, dim=1)
        means = torch.zeros(COLOURS, CONTENT + 4, 1, 1, dtype=torch.float64)
        means[:, CONTENT:, 0, 0] = self.colours
        self.edited = MixturePrior(means, 0.3, torch.ones(COLOURS), self.schedule)
        self.plain = MixturePrior(torch.zeros_like(means[:1]), 0.3, torch.ones(1), self.schedule)

    def predict_noise(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        assert condition.image is not None
        alpha, content = self.schedule.alpha(t), condition.image.clone()
        content[:, CONTENT:] = 0
        nothing = torch.zeros((len(x_t), 1, COLOURS), dtype=x_t.dtype)
        edited = self.edited.predict_noise(x_t - alpha * content, t, Condition(nothing))
        plain = self.plain.predict_noise(x_t - alpha * condition.image, t, Condition(nothing[..., :1]))
        return torch.where((condition.text[:, 0, 0] > 0)[:, None, None, None], edited, plain)


def world(n: int, seed: int, spread: float) -> tuple[AmbiguousEdit, Target, torch.Generator]:
    """The prior, n views of one thing, and the generator that the edit goes on with."""
    generator = torch.Generator().manual_seed(seed)
    prior = AmbiguousEdit(generator)
    views = torch.randn((n, CONTENT + 4, 1, 1), generator=generator, dtype=torch.float64)
    views[:, CONTENT:] *= spread
    text = torch.ones((n, 1, 1), dtype=torch.float64)
    return prior, Target(texts=(text,), null_text=text * 0, image=views, source=views), generator


def edit(settings: EditSettings, spread: float, seed: int, steps: int = 150) -> tuple[float, float]:
    """Share of the views in their most frequent colour, and the views' mean distance to their own nearest colour."""
    prior, target, generator = world(PARTICLES, seed, spread)
    lr = settings.resolved().lr
    assert lr is not None and target.source is not None
    distiller = make_edit_distiller(prior, settings)
    result = optimize_latents(distiller, target.source, target, OptimizeSettings(lr=lr, steps=steps), generator)
    distances = torch.cdist(result.latents[:, CONTENT:, 0, 0], prior.colours)
    return int(distances.argmin(dim=1).bincount().max()) / PARTICLES, float(distances.min(dim=1).values.mean())


def agreement() -> dict[str, dict[float, dict[str, list[float]]]]:
    """Both measurements per seed, for kernel x noise and each spread."""
    found = {}
    for kernel in KERNELS:
        for noise in NOISES:
            settings = EditSettings(guidance_scale=1.5, image_guidance_scale=1.0, t_max=0.8, kernel=kernel, noise=noise)
            rows = {spread: [edit(settings, spread, seed) for seed in range(SEEDS)] for spread in SPREADS}
            found[f"kernel {kernel}, noise {noise}"] = {
                spread: {"share": [a for a, _ in values], "distance": [b for _, b in values]}
                for spread, values in rows.items()
            }
    return found


def step_size() -> dict[str, dict[int, float]]:
    """Length of the first step's gradient on the colours against that of N = 1, for mixing x noise."""
    lengths: dict[str, dict[int, float]] = {}
    for mixing in MIXINGS:
        for noise in NOISES:
            settings = EditSettings(guidance_scale=1.5, image_guidance_scale=1.0, mixing=mixing, noise=noise)
            values = {n: sum(_first_step(settings, n, seed) for seed in range(SEEDS)) / SEEDS for n in NUMBERS}
            lengths[f"mixing {mixing}, noise {noise}"] = {n: value / values[1] for n, value in values.items()}
    return lengths


def _first_step(settings: EditSettings, n: int, seed: int) -> float:
    prior, target, _ = world(n, seed, STEP_SPREAD)
    assert target.source is not None
    # One generator for all n: the first views of a larger set are not those of a smaller one, but t is the same.
    step = make_edit_distiller(prior, settings)(target.source, target, torch.Generator().manual_seed(seed))
    return float(step.gradient[:, CONTENT:].flatten(1).norm(dim=1).mean())


def chance(draws: int = 20000) -> float:
    """Mean share of the most frequent colour when each view takes one at random."""
    colours = torch.randint(COLOURS, (draws, PARTICLES), generator=torch.Generator().manual_seed(0))
    return float(torch.nn.functional.one_hot(colours, COLOURS).sum(dim=1).amax(dim=1).double().mean()) / PARTICLES


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def plot(found: dict, lengths: dict[str, dict[int, float]], path: Path) -> None:
    """Both measurements side by side."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), constrained_layout=True)
    styles = {"independent": "--", "shared": "-"}
    colours = {"kernel independent": "tab:orange", "kernel rbf": "tab:blue"}
    for name, by_spread in found.items():
        kernel, noise = name.split(", noise ")
        shares = torch.tensor([by_spread[spread]["share"] for spread in SPREADS])
        low, high = shares.quantile(0.25, dim=1), shares.quantile(0.75, dim=1)
        left.plot(SPREADS, shares.mean(dim=1), "o" + styles[noise], color=colours[kernel], label=name)
        left.fill_between(SPREADS, low, high, color=colours[kernel], alpha=0.08)
    left.axhline(chance(), color="k", lw=1, ls=":", label="colours at random")
    left.set(xlabel="spread of the views' colours at the start", ylabel="share of views that agree", ylim=(0, 1.05))
    left.set_title(f"{PARTICLES} views, {COLOURS} equally good colours (mean, quartiles)")
    left.legend(fontsize=8)
    colours = {"mixing row": "tab:blue", "mixing mean": "tab:orange"}
    for name, values in lengths.items():
        mixing, noise = name.split(", noise ")
        right.plot(list(values), list(values.values()), "o" + styles[noise], color=colours[mixing], label=name)
    right.plot(NUMBERS, [2 / (n + 1) for n in NUMBERS], "k:", lw=1, label="2 / (N + 1)")
    right.set(xlabel="views N", ylabel="step against N = 1", xscale="log", ylim=(0, 1.1))
    right.set_xticks(NUMBERS, [str(n) for n in NUMBERS])
    right.set_title(f"length of the first step (spread {STEP_SPREAD})")
    right.legend(fontsize=8, loc="center right", bbox_to_anchor=(1, 0.42))
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, plot, and write the numbers."""
    RESULTS.mkdir(exist_ok=True)
    found, lengths = agreement(), step_size()
    plot(found, lengths, RESULTS / "defaults.png")
    record = {
        "date": date.today().isoformat(),
        "commit": commit(),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "share of colours at random": chance(),
        "agreement, per spread and seed": found,
        "step against N = 1": lengths,
    }
    (RESULTS / "defaults.json").write_text(json.dumps(record, indent=1))
    for name, by_spread in found.items():
        print(f"{name:40s} share   ", {s: round(mean(by_spread[s]["share"]), 3) for s in SPREADS})
        print(f"{'':40s} distance", {s: round(mean(by_spread[s]["distance"]), 3) for s in SPREADS})
    for name, values in lengths.items():
        print(f"{name:40s}", {n: round(value, 3) for n, value in values.items()})


if __name__ == "__main__":
    main()
