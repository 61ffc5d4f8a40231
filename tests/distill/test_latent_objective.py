"""LDP Eq. 4: which losses run, on what residual, and how their gradients add up."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from csd_nerf.distill import (
    LDP_WEIGHTS,
    Condition,
    Distiller,
    InjectedNoise,
    LatentLosses,
    LossRecord,
    LossWeights,
    NonFiniteError,
    RBFKernel,
    SharedNoise,
    TextGuidance,
    UniformTimesteps,
    feature_matching,
    kl_regulariser,
    latent_score_distiller,
)
from tests.distill.analytic import FormulaPrior, random_particles, random_target, seeded

ALL = LossWeights(feature_matching=0.3, kl=0.7, lsd=1.5)


class Decoder:
    """Two nonlinear levels; counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, latents: Tensor) -> list[Tensor]:
        self.calls += 1
        first = torch.tanh(latents.repeat_interleave(2, dim=-1) + 0.3 * latents.roll(1, -1).repeat_interleave(2, -1))
        return [first, torch.sin(2 * first[:, :2])]


def step(weights: LossWeights, n: int = 3, distiller: Distiller | None = None, decoder=None):
    prior = FormulaPrior()
    losses = LatentLosses(distiller or latent_score_distiller(prior), weights, decoder or Decoder())
    return losses(random_particles(n), random_target(n, image=False), seeded())


def residual_by_hand(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """eps_hat - eps, alpha_t and w(t) for the draws of `seeded()`, from the formulas."""
    prior, generator, target, v = FormulaPrior(), seeded(), random_target(n, image=False), random_particles(n)
    t = torch.randint(200, 981, (), generator=generator)
    eps = torch.randn(v.shape, generator=generator, dtype=v.dtype)
    abar = prior.schedule.alphas_cumprod[t]
    x_t = abar.sqrt() * v + (1 - abar).sqrt() * eps
    null, text = (prior.predict_noise(x_t, t, Condition(x)) for x in (target.null_text, target.texts[0]))
    return null + 7.5 * (text - null) - eps, abar.sqrt(), 1 - abar


def test_each_loss_gets_the_residual_and_the_level_that_were_drawn():
    d, alpha, weight = residual_by_hand(3)
    v = random_particles(3)
    lsd = weight * d
    matching = feature_matching(Decoder(), v, d, alpha)
    kl = kl_regulariser(v)
    result = step(ALL)
    elements = v.numel()
    expected = 1.5 * lsd + elements * (0.3 * matching.gradient + 0.7 * kl.gradient)
    torch.testing.assert_close(result.gradient, expected, rtol=1e-9, atol=1e-9)
    record = result.losses
    assert record.lsd.value == pytest.approx(float(weight * d.square().mean()))
    assert record.feature_matching.value == pytest.approx(float(matching.value))
    assert record.kl.value == pytest.approx(float(kl.value))
    norms = [float((1.5 * lsd).norm()), float(0.3 * elements * matching.gradient.norm())]
    assert record.lsd.gradient_norm == pytest.approx(norms[0])
    assert record.feature_matching.gradient_norm == pytest.approx(norms[1])
    assert record.kl.gradient_norm == pytest.approx(float(0.7 * elements * kl.gradient.norm()))
    assert record.ratio == pytest.approx(norms[1] / norms[0])
    assert result.network_samples == 6


def test_lsd_alone_is_sds_and_never_decodes():
    decoder = Decoder()
    result = step(LossWeights(feature_matching=0.0, kl=0.0), decoder=decoder)
    plain = latent_score_distiller(FormulaPrior())(random_particles(3), random_target(3, image=False), seeded())
    assert torch.equal(result.gradient, plain.gradient) and result.t == plain.t and decoder.calls == 0
    assert result.losses.feature_matching is None and result.losses.kl is None and result.losses.ratio is None
    without = LatentLosses(latent_score_distiller(FormulaPrior()), LossWeights(feature_matching=0.0, kl=0.0))
    assert torch.equal(without(random_particles(3), random_target(3, image=False), seeded()).gradient, plain.gradient)


def test_the_regulariser_alone_asks_neither_network():
    prior, decoder, v = FormulaPrior(), Decoder(), 2 + random_particles(3)
    losses = LatentLosses(latent_score_distiller(prior), LossWeights(feature_matching=0.0, kl=2.0, lsd=0.0), decoder)
    result = losses(v, random_target(3), seeded())
    assert (prior.calls, decoder.calls, result.t, result.network_samples) == (0, 0, None, 0)
    mean, variance = (one[..., None, None, None] for one in (v.mean(dim=(1, 2, 3)), v.var(dim=(1, 2, 3), correction=0)))
    torch.testing.assert_close(result.gradient, 2 * (mean + (v - mean) * (1 - 1 / variance)))


def test_feature_matching_alone_needs_the_residual_but_adds_no_lsd():
    d, alpha, _ = residual_by_hand(3)
    v = random_particles(3)
    result = step(LossWeights(feature_matching=1.0, kl=0.0, lsd=0.0))
    torch.testing.assert_close(result.gradient, v.numel() * feature_matching(Decoder(), v, d, alpha).gradient)
    assert result.losses.lsd is None and result.losses.ratio is None and result.network_samples == 6


def test_no_loss_depends_on_how_many_particles_there_are():
    """Copies of one particle under the same noise get its gradient."""
    distiller = replace(latent_score_distiller(FormulaPrior()), noise=SharedNoise())
    losses = LatentLosses(distiller, ALL, Decoder())
    one = losses(random_particles(1), random_target(1, image=False), seeded())
    four = losses(random_particles(1).repeat(4, 1, 1, 1), random_target(4, image=False), seeded())
    assert torch.equal(random_target(4).null_text[0], random_target(1).null_text[0])
    torch.testing.assert_close(four.gradient, one.gradient.expand(4, -1, -1, -1))
    assert four.losses.ratio == pytest.approx(one.losses.ratio)


class Point(FormulaPrior):
    """The exact score of a single picture."""

    def predict_noise(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        mode = random_particles(1, seed=3).expand_as(x_t)
        return (x_t - self.schedule.alpha(t) * mode) / self.schedule.sigma(t)


@pytest.mark.parametrize(
    "weights", [LossWeights(feature_matching=1.0, kl=0.0, lsd=0.0), LossWeights(feature_matching=1.0, kl=0.0)]
)
def test_descent_reaches_what_the_prior_knows(weights: LossWeights):
    v, mode, generator = random_particles(2), random_particles(1, seed=3), seeded()
    losses = LatentLosses(latent_score_distiller(Point()), weights, lambda latents: [latents * 1.5], distance="l2")
    for _ in range(100):
        v = v - 0.1 * losses(v, random_target(2, image=False), generator).gradient
    assert (v - mode).abs().max() < 0.05


def test_another_kernel_mixes_the_residual_of_feature_matching_too():
    distiller = Distiller(
        FormulaPrior(), TextGuidance(), RBFKernel(), InjectedNoise(), timesteps=UniformTimesteps(0.5, 0.5)
    )
    mixed = distiller(random_particles(3), random_target(3, image=False), seeded()).gradient
    schedule, t = FormulaPrior().schedule, torch.tensor(500)
    result = step(LossWeights(feature_matching=1.0, kl=0.0, lsd=0.0), distiller=distiller)
    v = random_particles(3)
    expected = feature_matching(Decoder(), v, mixed / schedule.weight(t), schedule.alpha(t)).gradient
    torch.testing.assert_close(result.gradient, v.numel() * expected)


def test_rows_pick_the_distiller_of_those_particles():
    losses = LatentLosses(latent_score_distiller(FormulaPrior()), ALL, Decoder())
    rows = torch.tensor([2, 0])
    v, target = random_particles(3), random_target(3, image=False)
    part = losses.for_rows(rows)(v[rows], target[rows], seeded())
    torch.testing.assert_close(part.gradient, losses(v[rows], target[rows], seeded()).gradient)


def test_groups_reach_the_decoder():
    decoder = Decoder()
    losses = LatentLosses(latent_score_distiller(FormulaPrior()), ALL, decoder, rows_per_call=1)
    losses(random_particles(3), random_target(3, image=False), seeded())
    assert decoder.calls == 3


@pytest.mark.parametrize(
    ("name", "matching", "kl", "lsd"),
    [
        ("jacobian-nerf", 0.1, 0.1, 1.0),
        ("latent-nerf", 0.01, 0.1, 1.0),
        ("stylegan", 3.0, 0.05, 1.0),
        ("layers", 1e-5, 1e-7, 1e-6),
        ("synthesis", 3.0, 0.1, 1.0),
    ],
)
def test_presets_are_those_of_the_paper(name: str, matching: float, kl: float, lsd: float):
    assert LDP_WEIGHTS[name] == LossWeights(feature_matching=matching, kl=kl, lsd=lsd)


def test_the_loss_at_fault_is_named():
    with pytest.raises(NonFiniteError, match="the feature-matching gradient is not finite, t = .*particle 0"):
        step(ALL, decoder=lambda latents: [latents * float("inf")])
    with pytest.raises(NonFiniteError, match="the KL gradient is not finite, particle 0"):
        losses = LatentLosses(
            latent_score_distiller(FormulaPrior()), LossWeights(feature_matching=0.0, kl=1.0, lsd=0.0)
        )
        losses(torch.full((2, 4, 3, 5), torch.nan), random_target(2), seeded())


def test_weights_and_decoders_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="kl=-1"):
        LossWeights(feature_matching=1.0, kl=-1.0)
    with pytest.raises(ValueError, match="feature_matching=nan"):
        LossWeights(feature_matching=float("nan"), kl=1.0)
    with pytest.raises(ValueError, match="feature matching needs a decoder"):
        LatentLosses(latent_score_distiller(FormulaPrior()), ALL)
    assert LossRecord().ratio is None
