"""Particles on a Gaussian prior, whose exact score and whose stationary particles are known.

With shared noise the noisy particles differ by alpha times what the particles differ by, and averaged over the noise
the score of particle x is -alpha (x - mu) / V with V = alpha^2 s^2 + sigma^2. SVGD with r(t) = sigma_t therefore has
the particles' density N(mu, V / alpha^2) as its stationary point; SDS (no repulsion) collapses on mu.
"""

import math

import pytest
import torch
from torch import Tensor

from csd_nerf.distill import (
    Condition,
    Distiller,
    IndependentKernel,
    InjectedNoise,
    NoiseSchedule,
    OptimizeSettings,
    RBFKernel,
    SharedNoise,
    Target,
    TextGuidance,
    UniformTimesteps,
    optimize_latents,
)
from tests.distill.analytic import seeded

MEAN, STD, T = 1.5, 0.7, 400


class Gaussian:
    """eps_hat = sigma (x_t - alpha mu) / (alpha^2 s^2 + sigma^2)."""

    schedule = NoiseSchedule.scaled_linear()

    def predict_noise(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        return sigma * (x_t - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2)


def run(kernel, repulsion) -> Tensor:
    n = 60
    blank = torch.zeros((n, 1, 1), dtype=torch.float64)
    start = torch.randn((n, 1, 1, 1), generator=seeded(3), dtype=torch.float64) * 0.2 - 1.0
    timesteps = UniformTimesteps(T / 1000, T / 1000)
    distiller = Distiller(
        Gaussian(), TextGuidance(1.0), kernel, InjectedNoise(), SharedNoise(), timesteps, "mean", repulsion
    )
    settings = OptimizeSettings(steps=1600, lr=2.0, lr_decay=0.9, lr_decay_every=40)
    target = Target(texts=(blank,), null_text=blank)
    return optimize_latents(distiller, start, target, settings, seeded()).latents.flatten()


def stationary(repulsion_scale: float) -> float:
    """Spread of the particles' stationary density; a factor r on the repulsion tempers the score by sigma / r."""
    schedule, t = Gaussian.schedule, torch.tensor(T)
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    variance = alpha**2 * STD**2 + sigma**2
    return math.sqrt(variance * repulsion_scale / sigma) / alpha


def test_collaborating_particles_reach_the_known_mean_and_spread() -> None:
    x = run(RBFKernel(), "sigma")
    sigma = float(Gaussian.schedule.sigma(torch.tensor(T)))
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.1)
    assert float(x.std()) == pytest.approx(stationary(sigma), rel=0.08)


def test_the_papers_unit_repulsion_reaches_the_tempered_spread() -> None:
    x = run(RBFKernel(), "unit")
    assert float(x.std()) == pytest.approx(stationary(1.0), rel=0.08)
    assert stationary(1.0) > 1.1 * stationary(float(Gaussian.schedule.sigma(torch.tensor(T))))


def test_sds_collapses_on_the_mean() -> None:
    x = run(IndependentKernel(), "sigma")
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.15)
    assert float(x.std()) < 0.02
