"""One distillation step: special cases, invariances, and the released code's rule re-derived."""

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
    RBFKernel,
    SourceScore,
    Target,
    TextGuidance,
    UniformTimesteps,
    make_edit_distiller,
)
from tests.distill.analytic import Constant, FormulaPrior, random_particles, random_target, seeded


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


@pytest.mark.parametrize("mixing", ["row", "mean"])
def test_without_svgd_every_particle_makes_its_own_full_sds_step(mixing) -> None:
    """Not a share of 1/N of it: who does not talk is a set of one."""
    prior, target, x = FormulaPrior(), random_target(3, image=False), random_particles(3)
    kernel, noise = IndependentKernel(), IndependentNoise()
    distiller = Distiller(prior, TextGuidance(2.0), kernel, InjectedNoise(), noise, mixing=mixing)
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
    distiller = make_edit_distiller(FormulaPrior(), EditSettings(preset, noise="shared"))
    x, target = random_particles(6), random_target(6)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    straight = distiller(x, target, seeded()).gradient
    permuted = distiller(x[order], target[order], seeded()).gradient
    torch.testing.assert_close(permuted, straight[order], rtol=1e-10, atol=1e-12)


def test_five_network_samples_per_particle_in_one_call() -> None:
    prior = FormulaPrior()
    step = make_edit_distiller(prior, EditSettings())(random_particles(6), random_target(6), seeded())
    assert (prior.samples, prior.calls, step.network_samples) == (30, 1, 30)
    prior = FormulaPrior()
    make_edit_distiller(prior, EditSettings(baseline="noise"))(random_particles(6), random_target(6), seeded())
    assert (prior.samples, prior.calls) == (18, 1)


def test_four_samples_where_the_instruction_has_no_guidance_of_its_own() -> None:
    """Steps at noise levels outside of text_t_min to text_t_max; an instruction of scale 0 stays unsaid."""
    always = EditSettings(t_min=0.3, t_max=0.3)
    outside = replace(always, text_t_min=0.4)
    for settings, per_particle in (
        (always, 5),
        (outside, 4),
        (replace(always, text_t_min=0.3), 5),
        (replace(always, text_t_max=0.2), 4),
        (replace(outside, baseline="noise"), 2),
    ):
        prior = FormulaPrior()
        step = make_edit_distiller(prior, settings)(random_particles(6), random_target(6), seeded())
        assert (prior.samples, prior.calls, step.network_samples) == (6 * per_particle, 1, 6 * per_particle)
    silent = make_edit_distiller(FormulaPrior(), replace(outside, guidance_scale=0.0))
    x, target = random_particles(6), random_target(6)
    other = replace(target, texts=random_target(6, seed=2).texts)
    torch.testing.assert_close(silent(x, target, seeded()).gradient, silent(x, other, seeded()).gradient)


def test_row_mixing_keeps_the_step_of_equal_scores() -> None:
    """Particles that all want the same move should make it in full, whatever their number."""

    def mean_step(n: int, mixing) -> float:
        x, target = random_particles(n), random_target(n, image=False)
        target = replace(target, source=x)
        baseline = SourceScore(TextGuidance(0.0))
        distiller = Distiller(Constant(), TextGuidance(1.0), RBFKernel(), baseline, mixing=mixing)
        return float(distiller(x, target, seeded()).gradient.mean(dim=0).mean())

    assert mean_step(24, "row") == pytest.approx(mean_step(4, "row"), rel=0.05)
    shrink = mean_step(24, "mean") / mean_step(4, "mean")
    assert shrink == pytest.approx((2 / 25) / (2 / 5), rel=0.35)


def test_somebody_elses_autocast_leaves_kernel_and_mixing_in_full_precision() -> None:
    """Close particles, as those of an edit are: half of their distances would be rounding, or an error of types."""

    class Halves(FormulaPrior):
        def predict_noise(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
            return x_t / 2

    prior, target = Halves(), random_target(5)
    assert target.source is not None
    target = replace(target, source=target.source.float())
    x = (random_particles(5) * 1e-2 + random_particles(1)).float()
    distiller = make_edit_distiller(prior, EditSettings(noise="shared"))
    expected = distiller(x, target, seeded())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = distiller(x, target, seeded())
    assert found.gradient.dtype == torch.float32
    assert torch.equal(found.gradient, expected.gradient) and torch.equal(found.gram, expected.gram)
