"""Closed forms against autograd of the log density."""

import math

import pytest
import torch

from csd_nerf.distill import Condition, NoiseSchedule
from csd_nerf.priors import GaussianPrior, MixturePrior

SCHEDULE = NoiseSchedule.scaled_linear()
NO_TEXT = Condition(torch.zeros(5, 1, 3, dtype=torch.float64))


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noise_from_density(x_t, t, weights, means, stds) -> torch.Tensor:
    """-sigma grad log sum_k w_k N(x_t; alpha mu_k, alpha^2 s_k^2 + sigma^2), by torch's own distributions."""
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    x_t = x_t.clone().requires_grad_(True)
    components = torch.distributions.Independent(
        torch.distributions.Normal(alpha * means, (alpha**2 * stds**2 + sigma**2).sqrt().expand_as(means)), 3
    )
    mixture = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(weights), components)
    (score,) = torch.autograd.grad(mixture.log_prob(x_t).sum(), x_t)
    return -sigma * score


@pytest.mark.parametrize("t", [0, 300, 999])
def test_gaussian_noise_is_the_score_of_its_density(t: int):
    mean, std = draw(2, 3, 3), draw(2, 3, 3, seed=1).abs() + 0.1
    step, x_t = torch.tensor(t), 2 * draw(5, 2, 3, 3, seed=2)
    expected = noise_from_density(x_t, step, torch.ones(1, dtype=torch.float64), mean[None], std[None])
    torch.testing.assert_close(GaussianPrior(mean, std, SCHEDULE).predict_noise(x_t, step, NO_TEXT), expected)


def test_gaussian_of_zero_spread_sees_exactly_the_injected_noise():
    mean, eps, t = draw(2, 3, 3), draw(5, 2, 3, 3, seed=1), torch.tensor(400)
    x_t = SCHEDULE.alpha(t) * mean + SCHEDULE.sigma(t) * eps
    torch.testing.assert_close(GaussianPrior(mean, 0.0, SCHEDULE).predict_noise(x_t, t, NO_TEXT), eps)


@pytest.mark.parametrize("t", [0, 300, 999])
@pytest.mark.parametrize("std", [0.3, torch.tensor([0.1, 0.3, 0.9], dtype=torch.float64)])
def test_mixture_noise_is_the_score_of_its_density(t: int, std):
    means, weights = draw(3, 2, 3, 3), torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    step, x_t = torch.tensor(t), draw(5, 2, 3, 3, seed=2)
    prior = MixturePrior(means, std, weights, SCHEDULE)
    stds = torch.as_tensor(std, dtype=torch.float64).expand(3)[:, None, None, None]
    expected = noise_from_density(x_t, step, weights, means, stds)
    condition = Condition(prior.text([], 5))
    torch.testing.assert_close(prior.predict_noise(x_t, step, condition), expected)


def test_text_restricts_the_mixture_to_its_modes():
    means, weights = draw(3, 2, 3, 3), torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    prior, t, x_t = MixturePrior(means, 0.4, weights, SCHEDULE), torch.tensor(500), draw(5, 2, 3, 3, seed=2)
    single = prior.predict_noise(x_t, t, Condition(prior.text([1], 5)))
    torch.testing.assert_close(single, GaussianPrior(means[1], 0.4, SCHEDULE).predict_noise(x_t, t, NO_TEXT))
    pair = MixturePrior(means[[0, 2]], 0.4, weights[[0, 2]], SCHEDULE)
    torch.testing.assert_close(
        prior.predict_noise(x_t, t, Condition(prior.text([0, 2], 5))),
        pair.predict_noise(x_t, t, Condition(pair.text([], 5))),
    )
    rows = Condition(torch.cat([prior.text([1], 2), prior.text([0, 2], 3)]))
    mixed = prior.predict_noise(x_t, t, rows)
    torch.testing.assert_close(mixed[:2], single[:2])


def test_far_away_the_mixture_stays_finite():
    prior = MixturePrior(draw(3, 4, 8, 8), 0.05, torch.ones(3, dtype=torch.float64), SCHEDULE)
    eps = prior.predict_noise(1e3 * draw(5, 4, 8, 8, seed=1), torch.tensor(1), Condition(prior.text([2], 5)))
    assert torch.isfinite(eps).all()


def test_precision_is_that_of_the_particles():
    prior = GaussianPrior(draw(2, 3, 3), 0.5, SCHEDULE)
    assert prior.predict_noise(draw(5, 2, 3, 3), torch.tensor(10), NO_TEXT).dtype == torch.float64
    assert prior.predict_noise(draw(5, 2, 3, 3).float(), torch.tensor(10), NO_TEXT).dtype == torch.float32


@pytest.mark.parametrize("weights", [[1.0, 0.0, 1.0], [1.0, math.nan, 1.0]])
def test_weights_must_be_positive(weights):
    with pytest.raises(ValueError, match="3 modes"):
        MixturePrior(draw(3, 2, 3, 3), 0.4, torch.tensor(weights), SCHEDULE)
