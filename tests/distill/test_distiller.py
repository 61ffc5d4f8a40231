"""One distillation step: special cases, invariances, and the released code's rule re-derived."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from csd_nerf.distill import (
    Condition,
    Distiller,
    EditSettings,
    ImageGuidance,
    ImageTextGuidance,
    IndependentKernel,
    IndependentNoise,
    InjectedNoise,
    NonFiniteError,
    OptimizeSettings,
    RBFKernel,
    SourceScore,
    Target,
    TextGuidance,
    UniformTimesteps,
    make_edit_distiller,
    optimize_latents,
)
from tests.distill.analytic import FormulaPrior, random_particles, random_target, seeded


def sds(prior: FormulaPrior, x: Tensor, target: Target, scale: float, t: int, eps: Tensor) -> Tensor:
    """w(t) (eps_hat - eps) after DreamFusion, written out."""
    abar = prior.schedule.alphas_cumprod[t]
    x_t = abar.sqrt() * x + (1 - abar).sqrt() * eps
    null = prior.predict_noise(x_t, torch.tensor(t), Condition(target.null_text))
    text = prior.predict_noise(x_t, torch.tensor(t), Condition(target.texts[0]))
    return (1 - abar) * (null + scale * (text - null) - eps)


@pytest.mark.parametrize("kernel", [RBFKernel(), IndependentKernel()])
@pytest.mark.parametrize("mixing", ["row", "mean"])
def test_one_particle_is_sds(kernel, mixing) -> None:
    prior, target, x = FormulaPrior(), random_target(1, image=False), random_particles(1)
    step = Distiller(prior, TextGuidance(9.0), kernel, InjectedNoise(), mixing=mixing)(x, target, seeded())
    generator = seeded()
    t = int(UniformTimesteps()(prior.schedule, generator))
    eps = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    assert step.t == t
    torch.testing.assert_close(step.gradient, sds(prior, x, target, 9.0, t, eps))


def test_independent_kernel_row_mixing_is_sds_of_each_particle() -> None:
    prior, target, x = FormulaPrior(), random_target(3, image=False), random_particles(3)
    distiller = Distiller(prior, TextGuidance(2.0), IndependentKernel(), InjectedNoise(), IndependentNoise())
    step = distiller(x, target, seeded())
    generator = seeded()
    t = int(UniformTimesteps()(prior.schedule, generator))
    eps = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    torch.testing.assert_close(step.gradient, sds(prior, x, target, 2.0, t, eps))


def test_repulsion_pushes_two_particles_apart() -> None:
    """With a zero score only the repulsion is left; a step against the gradient must widen the gap."""

    class Silent(FormulaPrior):
        def predict_noise(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
            return torch.zeros_like(x_t)

    x = random_particles(2)
    target = random_target(2)
    distiller = Distiller(Silent(), ImageTextGuidance(), RBFKernel(), SourceScore(ImageGuidance()))
    moved = x - 0.1 * distiller(x, target, seeded()).gradient
    assert (moved[0] - moved[1]).norm() > (x[0] - x[1]).norm()


def test_equal_prompts_and_particles_give_no_dds_gradient() -> None:
    prior, x = FormulaPrior(), random_particles(4)
    target = random_target(4, image=False)
    target = replace(target, source=x, source_text=target.texts[0])
    guidance = TextGuidance(7.5)
    step = Distiller(prior, guidance, IndependentKernel(), SourceScore(guidance))(x, target, seeded())
    assert step.gradient.abs().max() < 1e-12


def test_instruction_equal_to_the_null_text_edits_nothing() -> None:
    x, target = random_particles(4), random_target(4)
    target = replace(target, source=x, texts=(target.null_text,))
    distiller = Distiller(FormulaPrior(), ImageTextGuidance(), IndependentKernel(), SourceScore(ImageGuidance()))
    assert distiller(x, target, seeded()).gradient.abs().max() < 1e-12


@pytest.mark.parametrize("preset", ["paper", "corrected"])
def test_permutation_equivariance(preset) -> None:
    """Holds for shared noise; independent noise is drawn in particle order."""
    distiller = make_edit_distiller(FormulaPrior(), EditSettings(preset))
    x, target = random_particles(6), random_target(6)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    straight = distiller(x, target, seeded()).gradient
    permuted = distiller(x[order], target[order], seeded()).gradient
    torch.testing.assert_close(permuted, straight[order], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("micro_batch", [1, 4, 7])
def test_micro_batches_do_not_matter(micro_batch: int) -> None:
    x, target = random_particles(5), random_target(5)
    whole = make_edit_distiller(FormulaPrior(), EditSettings())(x, target, seeded())
    split = make_edit_distiller(FormulaPrior(micro_batch), EditSettings())(x, target, seeded())
    torch.testing.assert_close(split.gradient, whole.gradient, rtol=0, atol=0)


def test_five_network_samples_per_particle_in_one_call() -> None:
    prior = FormulaPrior()
    step = make_edit_distiller(prior, EditSettings())(random_particles(6), random_target(6), seeded())
    assert (prior.samples, prior.calls, step.network_samples) == (30, 1, 30)
    prior = FormulaPrior()
    make_edit_distiller(prior, EditSettings(baseline="noise"))(random_particles(6), random_target(6), seeded())
    assert (prior.samples, prior.calls) == (18, 1)


def test_row_mixing_keeps_the_step_of_equal_scores() -> None:
    """Particles that all want the same move should make it in full, whatever their number."""

    class Constant(FormulaPrior):
        def predict_noise(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
            return torch.ones_like(x_t) * condition.text.mean(dim=(1, 2))[:, None, None, None]

    def mean_step(n: int, mixing) -> float:
        x, target = random_particles(n), random_target(n, image=False)
        target = replace(target, source=x)
        baseline = SourceScore(TextGuidance(0.0))
        distiller = Distiller(Constant(), TextGuidance(1.0), RBFKernel(), baseline, mixing=mixing)
        return float(distiller(x, target, seeded()).gradient.mean(dim=0).mean())

    assert mean_step(24, "row") == pytest.approx(mean_step(4, "row"), rel=0.05)
    shrink = mean_step(24, "mean") / mean_step(4, "mean")
    assert shrink == pytest.approx((2 / 25) / (2 / 5), rel=0.35)


def released_step(prior: FormulaPrior, x: Tensor, target: Target, t: int, eps: Tensor) -> Tensor:
    """The authors' code, re-derived with loops: six samples a particle, w_y = 7.5, w_s = 5, autograd repulsion."""
    abar, n = prior.schedule.alphas_cumprod[t].to(x), len(x)
    assert target.source is not None and target.image is not None
    noisy, deltas = [], []
    for i in range(n):
        sides = []
        for particle, text in ((x[i], target.texts[0][i]), (target.source[i], target.null_text[i])):
            x_t = abar.sqrt() * particle + (1 - abar).sqrt() * eps[i]
            answers = [
                prior.predict_noise(x_t[None], torch.tensor(t), Condition(words[None], picture[None]))[0]
                for words, picture in (
                    (text, target.image[i]),
                    (target.null_text[i], target.image[i]),
                    (target.null_text[i], torch.zeros_like(target.image[i])),
                )
            ]
            sides.append(answers[2] + 7.5 * (answers[0] - answers[1]) + 5.0 * (answers[1] - answers[2]))
            if len(sides) == 1:  # the edited side
                noisy.append(x_t)
        deltas.append(sides[0] - sides[1])
    squares = sorted(float((a - b).square().sum()) for a in noisy for b in noisy)
    gamma = math.log(n + 1) / squares[(n * n - 1) // 2]
    gradient = torch.zeros_like(x)
    for i in range(n):
        moving = noisy[i].clone().requires_grad_(True)
        affinity = sum(torch.exp(-gamma * (moving - other).square().sum()) for other in noisy)
        assert isinstance(affinity, Tensor)
        gradient[i] = torch.autograd.grad(affinity, moving)[0]
        for j in range(n):
            gradient[i] += math.exp(-gamma * float((noisy[i] - noisy[j]).square().sum())) * deltas[j]
    return (1 - abar) * gradient / n


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_released_preset_is_the_released_rule(dtype) -> None:
    prior, settings = FormulaPrior(), EditSettings("released", steps=7, lr_decay_every=3)
    target = random_target(4)
    assert target.source is not None
    target = Target(
        texts=(target.texts[0].to(dtype),),
        null_text=target.null_text.to(dtype),
        image=target.source.to(dtype),
        source=target.source.to(dtype),
    )
    assert target.source is not None
    result = optimize_latents(
        make_edit_distiller(prior, settings),
        target.source,
        target,
        OptimizeSettings(steps=7, lr=2.0, lr_decay=0.9, lr_decay_every=3),
        seeded(),
    )
    generator, x = seeded(), target.source.clone()
    for step in range(7):
        t = int(torch.randint(20, 501, (), generator=generator))
        eps = torch.randn(x.shape, generator=generator, dtype=dtype)
        x = x - 2.0 * 0.9 ** (step // 3) * released_step(prior, x, target, t, eps)
    error = (result.latents - x).norm() / (x - target.source).norm()
    assert error < (1e-9 if dtype == torch.float64 else 1e-5)


def test_same_seed_same_result_other_seed_other_result() -> None:
    def run(seed: int) -> Tensor:
        target = random_target(4)
        assert target.source is not None
        distiller = make_edit_distiller(FormulaPrior(), EditSettings())
        return optimize_latents(distiller, target.source, target, OptimizeSettings(steps=5), seeded(seed)).latents

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


@pytest.mark.parametrize("batch_size", [None, 2])
def test_non_finite_score_names_step_t_and_particle_and_keeps_what_was_reached(batch_size) -> None:
    class Breaking(FormulaPrior):
        def predict_noise(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
            eps = super().predict_noise(x_t, t, condition)
            if self.calls == 4 and condition.image is not None:
                eps[(condition.image[:, 0, 0, 0] == 123).nonzero()[0]] = math.nan
            return eps

    target = random_target(2)
    assert target.image is not None and target.source is not None
    target.image[1, 0, 0, 0] = 123  # marks particle 1
    distiller = make_edit_distiller(Breaking(), EditSettings())
    settings = OptimizeSettings(steps=9, batch_size=batch_size)
    with pytest.raises(NonFiniteError, match=r"step 3, t = \d+, particle 1") as caught:
        optimize_latents(distiller, target.source, target, settings, seeded())
    reached = caught.value.partial
    good = optimize_latents(
        make_edit_distiller(FormulaPrior(), EditSettings()),
        target.source,
        target,
        replace(settings, steps=3),
        seeded(),
    )
    assert torch.equal(reached.latents, good.latents)
    assert reached.steps == 3


def test_particle_batches_visit_everyone_and_touch_only_the_batch() -> None:
    target = random_target(5)
    assert target.source is not None
    seen: list[Tensor] = []
    previous = target.source
    distiller = make_edit_distiller(FormulaPrior(), EditSettings())
    for steps in range(1, 13):
        result = optimize_latents(
            distiller, target.source, target, OptimizeSettings(steps=steps, batch_size=2), seeded()
        )
        changed = (result.latents != previous).flatten(1).any(dim=1)
        assert changed.sum() == 2
        seen.append(changed)
        previous = result.latents
    assert torch.stack(seen).any(dim=0).all()
