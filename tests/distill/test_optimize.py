"""The optimisation of free latents: repeatable, in batches, and what it does where numbers leave their range."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from csd_nerf.distill import (
    CanvasNoise,
    Condition,
    Distiller,
    EditSettings,
    IndependentKernel,
    InjectedNoise,
    NonFiniteError,
    OptimizeSettings,
    RBFKernel,
    Target,
    TextGuidance,
    make_edit_distiller,
    optimize_latents,
)
from tests.distill.analytic import Constant, FormulaPrior, random_particles, random_target, seeded


def test_same_seed_same_result_other_seed_other_result() -> None:
    def run(seed: int) -> Tensor:
        target = random_target(4)
        assert target.source is not None
        distiller = make_edit_distiller(FormulaPrior(), EditSettings())
        return optimize_latents(
            distiller, target.source, target, OptimizeSettings(lr=0.5, steps=5), seeded(seed)
        ).latents

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


@pytest.mark.parametrize("batch_size", [None, 2])
def test_non_finite_score_names_step_t_and_particle_and_keeps_what_was_reached(batch_size) -> None:
    n, bad = 5, 3
    rows_of_steps, draws = [], seeded()
    for _ in range(9):  # the optimiser draws rows, then the distiller a timestep and noise for each
        rows_of_steps.append(torch.randperm(n, generator=draws)[:2].tolist() if batch_size else list(range(n)))
        torch.randint(200, 501, (), generator=draws)
        torch.randn((batch_size or n, 4, 3, 5), generator=draws, dtype=torch.float64)
    breaks = next(step for step in range(2, 9) if bad in rows_of_steps[step])

    class Breaking(FormulaPrior):
        def predict_noise(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
            eps = super().predict_noise(x_t, t, condition)
            if self.calls == breaks + 1 and condition.image is not None:
                eps[(condition.image[:, 0, 0, 0] == 123).nonzero()[0]] = math.nan
            return eps

    target = random_target(n)
    assert target.image is not None and target.source is not None
    target.image[bad, 0, 0, 0] = 123  # marks the particle, wherever a batch puts it
    distiller = make_edit_distiller(Breaking(), EditSettings())
    settings = OptimizeSettings(lr=0.5, steps=9, batch_size=batch_size)
    with pytest.raises(
        NonFiniteError, match=rf"score is not finite at step {breaks}, t = \d+, particle {bad}"
    ) as caught:
        optimize_latents(distiller, target.source, target, settings, seeded())
    assert batch_size is None or rows_of_steps[breaks].index(bad) != bad
    reached = caught.value.partial
    good = optimize_latents(
        make_edit_distiller(FormulaPrior(), EditSettings()),
        target.source,
        target,
        replace(settings, steps=breaks),
        seeded(),
    )
    assert torch.equal(reached.latents, good.latents)
    assert reached.steps == breaks


def constant_target(n: int, value: float) -> Target:
    """Float32; one value for all rows of the text."""
    text = torch.full((n, 2, 3), value)
    return Target(texts=(text,), null_text=text)


@pytest.mark.parametrize("batch_size", [None, 2])
def test_a_gradient_that_overflows_though_the_scores_do_not_is_named(batch_size) -> None:
    """Equal particles: the mixing adds scores of 3e38, each still finite in float32."""
    particles = torch.zeros(3, 4, 3, 5)
    distiller = Distiller(Constant(), TextGuidance(1.0), RBFKernel(), InjectedNoise(), mixing="mean")
    settings = OptimizeSettings(lr=0.5, steps=2, batch_size=batch_size)
    with pytest.raises(NonFiniteError, match="the gradient is not finite at step 0") as caught:
        optimize_latents(distiller, particles, constant_target(3, 3e38), settings, seeded())
    assert torch.equal(caught.value.partial.latents, particles)


def test_a_step_that_overflows_the_latents_is_not_kept() -> None:
    particles = torch.zeros(1, 4, 3, 5)
    distiller = Distiller(Constant(), TextGuidance(1.0), IndependentKernel(), InjectedNoise())
    settings = OptimizeSettings(lr=100.0, steps=1)
    with pytest.raises(NonFiniteError, match=r"the latent is not finite at step 0, t = \d+, particle 0") as caught:
        optimize_latents(distiller, particles, constant_target(1, 3e38), settings, seeded())
    assert torch.equal(caught.value.partial.latents, particles) and caught.value.partial.steps == 0


@pytest.mark.parametrize("kernel", [RBFKernel(), IndependentKernel()])
def test_half_precision_latents_are_optimised_in_float32(kernel) -> None:
    target, settings = random_target(3, image=False), OptimizeSettings(lr=0.01, steps=4)
    half = random_particles(3).half()
    guidance = TextGuidance(2.0)
    distiller = Distiller(Rounded(), guidance, kernel, InjectedNoise())
    result = optimize_latents(distiller, half, target, settings, seeded())
    expected = optimize_latents(distiller, half.float(), target, settings, seeded())
    assert result.latents.dtype == torch.float32 and torch.equal(result.latents, expected.latents)


class Rounded(FormulaPrior):
    """float32 out, as the protocol asks."""

    def predict_noise(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return super().predict_noise(x_t, t, condition).float()


def test_canvas_noise_follows_the_particles_of_a_batch() -> None:
    """Patches 0 and 3 lie on the same place: whenever a batch holds both, they must see the same noise."""
    corners = torch.tensor([[0, 0], [4, 4], [0, 8], [0, 0], [8, 2]])
    seen: list[tuple[list[int], Tensor]] = []

    class Listening(FormulaPrior):
        def predict_noise(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
            n = len(x_t) // 2
            patches = condition.text[n:, 0, 0].round().int().tolist()
            seen.append((patches, (x_t[:n] / self.schedule.sigma(t)).clone()))
            return torch.zeros_like(x_t)

    names = torch.arange(5.0, dtype=torch.float64)[:, None, None].expand(5, 2, 3)
    target = Target(texts=(names,), null_text=torch.zeros_like(names))
    noise = CanvasNoise(12, 12, corners)
    distiller = Distiller(Listening(), TextGuidance(1.0), IndependentKernel(), InjectedNoise(), noise)
    particles = torch.zeros(5, 4, 3, 5, dtype=torch.float64)
    settings = OptimizeSettings(lr=1e-9, steps=30, batch_size=3)
    optimize_latents(distiller, particles, target, settings, seeded())
    together = [(patches, eps) for patches, eps in seen if {0, 3} <= set(patches)]
    assert together and len(seen) == 30
    for patches, eps in together:
        torch.testing.assert_close(eps[patches.index(0)], eps[patches.index(3)], atol=1e-6, rtol=0)
        other = next(place for place, patch in enumerate(patches) if patch not in (0, 3))
        assert (eps[other] - eps[patches.index(0)]).abs().max() > 0.1


def test_particle_batches_visit_everyone_and_touch_only_the_batch() -> None:
    target = random_target(5)
    assert target.source is not None
    seen: list[Tensor] = []
    previous = target.source
    distiller = make_edit_distiller(FormulaPrior(), EditSettings())
    for steps in range(1, 13):
        result = optimize_latents(
            distiller, target.source, target, OptimizeSettings(lr=0.5, steps=steps, batch_size=2), seeded()
        )
        changed = (result.latents != previous).flatten(1).any(dim=1)
        assert changed.sum() == 2
        seen.append(changed)
        previous = result.latents
    assert torch.stack(seen).any(dim=0).all()
