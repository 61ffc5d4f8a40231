"""Why the corrected preset shares noise and normalises rows: an ambiguous edit whose answer is known.

N particles are views of one thing. Each has its own content (64 numbers, which the prior knows from the condition)
and a colour (4 numbers) that the instruction leaves open: the prior is an equal mixture of six colours. Independent
edits each pick a colour; a consistent edit picks one for all. Kernel and noise are switched separately, because both
make particles agree.

    python -m benchmarks.defaults            # about two minutes on two cores; writes benchmarks/results/defaults.*
"""

import json
import platform
from dataclasses import replace
from datetime import date
from pathlib import Path

import torch
from torch import Tensor

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
SEEDS, PARTICLES, COLOURS = 20, 16, 6
KERNELS, NOISES = ("independent", "rbf"), ("independent", "shared")


class AmbiguousEdit:
    """The exact InstructPix2Pix of this world: content from the picture, colour from the text, or anything without."""

    schedule = NoiseSchedule.scaled_linear()

    def __init__(self, generator: torch.Generator) -> None:
        means = torch.zeros(COLOURS, 68, 1, 1, dtype=torch.float64)
        means[:, 64:, 0, 0] = (
            torch.nn.functional.normalize(torch.randn((COLOURS, 4), generator=generator, dtype=torch.float64), dim=1)
            * 2
        )
        self.colours = means
        self.edited = MixturePrior(means, 0.3, torch.ones(COLOURS), self.schedule)
        self.plain = MixturePrior(torch.zeros(1, 68, 1, 1, dtype=torch.float64), 0.3, torch.ones(1), self.schedule)

    def predict_noise(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        assert condition.image is not None
        centred = x_t - self.schedule.alpha(t) * condition.image
        instructed = condition.text[:, 0, 0] > 0
        nobody = torch.zeros((len(x_t), 1, COLOURS), dtype=x_t.dtype)
        edited = self.edited.predict_noise(centred, t, Condition(nobody))
        plain = self.plain.predict_noise(centred, t, Condition(nobody[..., :1]))
        return torch.where(instructed[:, None, None, None], edited, plain)


def edit(settings: EditSettings, n: int, seed: int, steps: int = 150) -> tuple[Tensor, Tensor]:
    """Each particle's nearest colour, and its distance to it."""
    generator = torch.Generator().manual_seed(seed)
    prior = AmbiguousEdit(generator)
    content = torch.randn((n, 68, 1, 1), generator=generator, dtype=torch.float64)
    content[:, 64:] = 0
    yes, no = torch.ones((n, 1, 1), dtype=torch.float64), torch.zeros((n, 1, 1), dtype=torch.float64)
    target = Target(texts=(yes,), null_text=no, image=content, source=content)
    full = settings.resolved()
    assert full.lr is not None
    result = optimize_latents(
        make_edit_distiller(prior, settings), content, target, OptimizeSettings(steps=steps, lr=full.lr), generator
    )
    distances = torch.cdist(result.latents[:, 64:, 0, 0], prior.colours[:, 64:, 0, 0])
    return distances.argmin(dim=1), distances.min(dim=1).values


def agreement() -> dict[str, list[float]]:
    """Share of the particles in the most frequent colour, per seed, for kernel x noise."""
    shares = {}
    for kernel in KERNELS:
        for noise in NOISES:
            settings = EditSettings(
                "corrected", guidance_scale=1.5, image_guidance_scale=1.0, t_max=0.8, kernel=kernel, noise=noise
            )
            rows = [edit(settings, PARTICLES, seed)[0].bincount().max().item() / PARTICLES for seed in range(SEEDS)]
            shares[f"kernel {kernel}, noise {noise}"] = rows
    return shares


def step_size() -> dict[str, dict[int, float]]:
    """Length of the first step's gradient against that of N = 1, for both mixings."""
    lengths: dict[str, dict[int, float]] = {}
    for mixing in ("row", "mean"):
        settings = EditSettings("corrected", guidance_scale=1.5, image_guidance_scale=1.0, mixing=mixing)
        lengths[mixing] = {}
        for n in (1, 2, 4, 8, 16, 24, 32):
            rows = []
            for seed in range(10):
                generator = torch.Generator().manual_seed(seed)
                prior = AmbiguousEdit(generator)
                content = torch.randn((n, 68, 1, 1), generator=generator, dtype=torch.float64)
                content[:, 64:] = 0
                text = torch.ones((n, 1, 1), dtype=torch.float64)
                target = Target(texts=(text,), null_text=text * 0, image=content, source=content)
                distiller = replace(make_edit_distiller(prior, settings), repulsion="unit")
                gradient = distiller(content, target, torch.Generator().manual_seed(seed)).gradient[:, 64:]
                rows.append(float(gradient.flatten(1).norm(dim=1).mean()))
            lengths[mixing][n] = sum(rows) / len(rows)
        first = lengths[mixing][1]
        lengths[mixing] = {n: value / first for n, value in lengths[mixing].items()}
    return lengths


def plot(shares: dict[str, list[float]], lengths: dict[str, dict[int, float]], path: Path) -> None:
    """Both measurements side by side."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), constrained_layout=True)
    names = [name.replace(", ", "\n") for name in shares]
    left.boxplot(list(shares.values()), tick_labels=names, medianprops={"color": "tab:red"})
    left.axhline(1 / COLOURS, color="0.7", lw=1, ls=":")
    left.set(ylabel="share of views that agree", ylim=(0, 1.05))
    left.set_title(f"{PARTICLES} views, {COLOURS} equally good colours")
    left.tick_params(axis="x", labelsize=8)
    for mixing, values in lengths.items():
        right.plot(list(values), list(values.values()), "o-", label=f"mixing '{mixing}'")
    ns = list(lengths["mean"])
    right.plot(ns, [2 / (n + 1) for n in ns], "k:", lw=1, label="2 / (N + 1)")
    right.set(xlabel="particles N", ylabel="step against N = 1", xscale="log", ylim=(0, 1.1))
    right.set_title("length of the first step")
    right.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, plot, and write the numbers."""
    RESULTS.mkdir(exist_ok=True)
    shares, lengths = agreement(), step_size()
    plot(shares, lengths, RESULTS / "defaults.png")
    record = {
        "date": date.today().isoformat(),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "agreement": {name: {"mean": sum(rows) / len(rows), "per seed": rows} for name, rows in shares.items()},
        "step against N = 1": lengths,
    }
    (RESULTS / "defaults.json").write_text(json.dumps(record, indent=1))
    for name, values in record["agreement"].items():
        print(f"{name:40s} {values['mean']:.3f}")
    for mixing, values in lengths.items():
        print(mixing, {n: round(value, 3) for n, value in values.items()})


if __name__ == "__main__":
    main()
