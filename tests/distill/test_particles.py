"""Sets of particles, and the optimisation of them: in batches, resumed, and where theta lies elsewhere."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from csd_nerf.distill import (
    Distiller,
    EditSettings,
    FreeLatents,
    ImageTextGuidance,
    InjectedNoise,
    NonFiniteError,
    OptimizeSettings,
    SharedNoise,
    TemporalKernel,
    make_edit_distiller,
    optimize,
    optimize_latents,
)
from tests.distill.analytic import FormulaPrior, random_particles, random_target, seeded

SETTINGS = OptimizeSettings(lr=0.5, steps=9, lr_decay=0.8, lr_decay_every=2, batch_size=2)


@pytest.mark.parametrize("batch_size", [None, 2])
def test_an_optimisation_goes_on_exactly_where_it_was_left(batch_size: int | None) -> None:
    settings, target = replace(SETTINGS, batch_size=batch_size), random_target(5)
    distiller = make_edit_distiller(FormulaPrior(), EditSettings())
    assert target.source is not None
    whole = optimize_latents(distiller, target.source, target, settings, seeded()).latents
    free, generator, done = FreeLatents(target.source.clone()), seeded(), []
    reached = optimize(
        distiller,
        free,
        target,
        settings,
        generator,
        on_step=lambda step, _: done.append(step),
        should_stop=lambda: len(done) == 4,
    )
    assert reached.steps == 4 and not torch.equal(free.latents, whole)
    state, kept = generator.get_state(), free.latents.clone()
    generator.manual_seed(99)
    again = torch.Generator()
    again.set_state(state)
    resumed = FreeLatents(kept)
    end = optimize(distiller, resumed, target, settings, again, first_step=4, on_step=lambda step, _: done.append(step))
    assert torch.equal(resumed.latents, whole)
    assert (end.steps, done) == (9, [1, 2, 3, 4, 5, 6, 7, 8, 9])
    per_step = 5 * (5 if batch_size is None else 2)
    assert (reached.network_samples, end.network_samples) == (4 * per_step, 5 * per_step)


def test_steps_shrink_as_the_step_decay_says() -> None:
    class Still(FormulaPrior):
        def predict_noise(self, x_t: Tensor, t: Tensor, condition: object) -> Tensor:
            return torch.ones_like(x_t)

    start, target = random_particles(3), random_target(3)
    distiller = Distiller(
        Still(), ImageTextGuidance(), TemporalKernel(torch.arange(3.0), 1e-3), InjectedNoise(), SharedNoise()
    )
    moves: list[Tensor] = []
    free = FreeLatents(start.clone())
    distillations = []
    before = [start.clone()]

    def note(step: int, distillation: object) -> None:
        moves.append(before[0] - free.latents)
        before[0] = free.latents.clone()
        distillations.append(distillation)

    settings = OptimizeSettings(lr=0.3, steps=6, lr_decay=0.5, lr_decay_every=2)
    optimize(distiller, free, target, settings, seeded(), on_step=note)
    for step, (move, distillation) in enumerate(zip(moves, distillations, strict=True)):
        torch.testing.assert_close(move, 0.3 * 0.5 ** (step // 2) * distillation.gradient)


def test_a_batch_tells_the_temporal_kernel_which_frames_it_has() -> None:
    target, seen = random_target(6), []
    times = torch.tensor([0.0, 10.0, 20.0, 30.0, 40.0, 50.0])
    distiller = replace(make_edit_distiller(FormulaPrior(), EditSettings()), kernel=TemporalKernel(times, 10.0))
    assert target.source is not None
    settings = OptimizeSettings(lr=1e-6, steps=12, batch_size=2)
    free, draws = FreeLatents(target.source.clone()), seeded()
    optimize(distiller, free, target, settings, draws, on_step=lambda _, found: seen.append(found.gram[0, 1].item()))
    # Two particles have k = exp(-log 2) = 1/2 under the median heuristic; what is left is the share of their times.
    shares = {round(value / 0.5, 5) for value in seen}
    possible = {round(float(torch.exp(torch.tensor(-((10.0 * k) ** 2) / 200))), 5) for k in range(1, 6)}
    assert shares <= possible and len(shares) > 1


def test_latents_may_lie_in_half_precision_elsewhere_and_a_step_out_of_range_is_not_made() -> None:
    latents = torch.tensor([1.0, 2.0, 6.0e4], dtype=torch.float16)[:, None, None, None].clone()
    free, kept = FreeLatents(latents), latents.clone()
    assert free[torch.tensor([1])].dtype == torch.float32 and len(free) == 3
    with pytest.raises(NonFiniteError) as caught:
        free.descend(torch.tensor([0, 2]), torch.tensor([0.5, -6.0e4])[:, None, None, None])
    assert caught.value.particle == 1
    assert torch.equal(free.latents, kept)
    free.descend(torch.tensor([0]), torch.tensor([[[[0.5]]]]))
    assert free.latents.flatten().tolist() == [0.5, 2.0, 6.0e4]
