"""Parameters behind particles: the chain rule, the optimiser's part, stopping, resuming, failing."""

import pytest
import torch
from torch import Tensor, nn

from csd_nerf.distill import (
    LatentLosses,
    LatentStep,
    LossPart,
    LossRecord,
    LossWeights,
    NonFiniteError,
    Rendering,
    latent_score_distiller,
    mean_losses,
    optimize_parameters,
    set_linear_rate,
)
from tests.distill.analytic import FormulaPrior, random_target, seeded

SHAPE = (2, 4, 3, 5)
ONLY_LSD = LossWeights(feature_matching=0.0, kl=0.0)


class Affine:
    """v = scale * base + shift (one shift for each channel), with a loss of its own on the shift."""

    def __init__(self, extra: float = 0.0) -> None:
        self.base = torch.randn(SHAPE, generator=seeded(3), dtype=torch.float64)
        self.scale = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
        self.shift = nn.Parameter(torch.zeros(4, 1, 1, dtype=torch.float64))
        self.extra = extra

    def parameters(self) -> list[nn.Parameter]:
        return [self.scale, self.shift]

    def __call__(self, generator: torch.Generator) -> Rendering:
        loss = self.extra * (self.shift - 1).square().sum() if self.extra else None
        return Rendering(self.scale * self.base + self.shift, loss)


def losses(weights: LossWeights = ONLY_LSD) -> LatentLosses:
    return LatentLosses(latent_score_distiller(FormulaPrior()), weights)


def train(shown: Affine, steps: int, **options):
    optimizer = torch.optim.SGD(shown.parameters(), lr=0.01)
    target = random_target(2, image=False)
    return optimize_parameters(losses(), shown, target, optimizer, steps, seeded(), **options)


def test_the_gradient_is_the_chain_rule_of_both_losses() -> None:
    shown, generator = Affine(extra=0.5), seeded()
    v = (shown.scale * shown.base + shown.shift).detach()
    gradient = losses()(v, random_target(2, image=False), generator).gradient
    train(shown, 1)
    torch.testing.assert_close(shown.scale.item(), 0.7 - 0.01 * float((gradient * shown.base).sum()))
    by_shift = gradient.sum(dim=(0, 2, 3)) + 0.5 * 2 * (0 - 1)
    torch.testing.assert_close(shown.shift.detach().flatten(), -0.01 * by_shift)


def test_it_stops_and_goes_on_to_the_same_end() -> None:
    whole, part, told = Affine(), Affine(), []
    reached = train(whole, 5, on_step=lambda done, step: told.append((done, step.network_samples)))
    assert (reached.steps, reached.network_samples) == (5, 5 * 4) and [done for done, _ in told] == [1, 2, 3, 4, 5]
    optimizer, generator = torch.optim.SGD(part.parameters(), lr=0.01), seeded()
    target, seen = random_target(2, image=False), []

    def stop() -> bool:
        return len(seen) == 2

    first = optimize_parameters(
        losses(), part, target, optimizer, 5, generator, on_step=lambda *_: seen.append(1), should_stop=stop
    )
    assert first.steps == 2 and not torch.equal(part.scale, whole.scale)
    second = optimize_parameters(losses(), part, target, optimizer, 5, generator, first_step=2)
    assert second.steps == 5 and second.network_samples == 3 * 4
    assert torch.equal(part.scale, whole.scale) and torch.equal(part.shift, whole.shift)


def test_a_gradient_that_is_not_finite_is_not_stepped_along() -> None:
    class Breaking(Affine):
        calls = 0

        def __call__(self, generator: torch.Generator) -> Rendering:
            self.calls += 1
            rendering = super().__call__(generator)
            if self.calls < 3:
                return rendering
            # sqrt has an infinite slope at 0: the particles are finite, the parameters' gradient is not.
            return Rendering(rendering.latents, (self.shift * 0).abs().sqrt().sum())

    shown = Breaking()
    with pytest.raises(NonFiniteError, match="gradient of the parameters.*step 2") as caught:
        train(shown, 5)
    assert caught.value.partial.steps == 2 and torch.isfinite(shown.shift).all()


def test_the_rate_falls_linearly_to_its_share() -> None:
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=9.0)
    rates = []
    for done in range(5):
        set_linear_rate(optimizer, 0.2, 0.5, done, 5)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.2, 0.175, 0.15, 0.125, 0.1])


def test_means_of_losses() -> None:
    def record(value: float, norm: float) -> LossRecord:
        return LossRecord(lsd=LossPart(value, norm), kl=LossPart(2 * value, 3.0))

    mean = mean_losses([record(1.0, 4.0), record(3.0, 8.0)])
    assert mean == LossRecord(lsd=LossPart(2.0, 6.0), kl=LossPart(4.0, 3.0))
    with pytest.raises(ValueError, match="no step"):
        mean_losses([])


def test_a_step_is_what_the_losses_gave() -> None:
    steps: list[tuple[int, LatentStep]] = []
    train(Affine(), 1, on_step=lambda done, step: steps.append((done, step)))
    ((done, step),) = steps
    assert done == 1 and isinstance(step.gradient, Tensor) and step.gradient.shape == SHAPE
