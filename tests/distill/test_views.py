"""Distillation into views: chain rule through the encoder, and the kernel between pictures."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from csd_nerf.distill import (
    Distiller,
    FeatureKernel,
    IndependentKernel,
    InjectedNoise,
    RBFKernel,
    SharedNoise,
    TextGuidance,
    UniformTimesteps,
    ViewDistiller,
    surrogate,
)
from tests.distill.analytic import Constant, FormulaPrior, random_target, seeded

N, SIDE = 3, 64


def encode(pictures: Tensor) -> Tensor:
    """A nonlinear encoder, 16 x 16 latents of 3 channels."""
    return torch.tanh(avg_pool2d(pictures, 4) * 2 - 1)


def distance(one: Tensor, other: Tensor) -> Tensor:
    """No function of the difference alone, and so unlike an RBF kernel's."""
    return (one.square() - other.square()).flatten(1).norm(dim=1)


def pictures() -> Tensor:
    return torch.rand((N, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def distiller(prior: FormulaPrior, kernel: object = None) -> Distiller:
    noise, levels = SharedNoise(), UniformTimesteps(0.4, 0.4)
    return Distiller(prior, TextGuidance(3.0), kernel or IndependentKernel(), InjectedNoise(), noise, levels)  # type: ignore[arg-type]


def test_without_a_kernel_between_pictures_it_is_the_distiller():
    target = random_target(N, shape=(3, 16, 16), image=False)
    particles = encode(pictures())
    ours = ViewDistiller(distiller(FormulaPrior(), RBFKernel()))(pictures(), particles, target, seeded())
    theirs = distiller(FormulaPrior(), RBFKernel())(particles, target, seeded())
    assert torch.equal(ours.on_particles, theirs.gradient) and ours.on_pictures is None


def test_the_surrogates_derivative_is_csd_through_encoder_and_pictures():
    """Against sums over j by hand, each kernel differentiated by its own first argument."""
    prior, x = FormulaPrior(), pictures()
    target = random_target(N, shape=(3, 16, 16), image=False)
    leaf = x.clone().requires_grad_(True)
    kernel = FeatureKernel(distance)
    gradient = ViewDistiller(distiller(prior), kernel)(leaf, encode(leaf), target, seeded())
    surrogate(gradient, leaf, encode(leaf)).backward()

    single = distiller(prior)(encode(x), target, seeded()).gradient  # w(t) times each view's own score
    t = torch.tensor(gradient.distillation.t)
    weight, sigma = float(prior.schedule.weight(t)), float(prior.schedule.sigma(t))
    squared = torch.stack([distance(x, x[i : i + 1].expand_as(x)).square() for i in range(N)], dim=1)
    h = kernel.bandwidth(squared)
    expected = torch.zeros_like(x)
    for i in range(N):
        k = torch.exp(-squared[:, i] / h)
        mixed = sum(k[j] * single[j] for j in range(N)) / k.sum()
        part = x[i].clone().requires_grad_(True)
        (through,) = torch.autograd.grad(encode(part[None])[0], part, mixed)
        push = torch.zeros_like(x[i])
        for j in range(N):
            if j != i:
                moved = x[j : j + 1].clone().requires_grad_(True)
                similar = torch.exp(-distance(moved, x[i : i + 1]).square() / h).sum()
                push += torch.autograd.grad(similar, moved)[0][0]
        expected[i] = (through - weight * sigma * push / k.sum()) / N
    assert leaf.grad is not None and torch.allclose(leaf.grad, expected, atol=1e-12)


def test_pictures_of_other_sizes_are_compared_at_64_pixels():
    """The gradient comes back through the change of size: against finite differences of the kernel's row."""
    big = torch.rand((2, 3, 80, 80), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    target = random_target(2, shape=(3, 20, 20), image=False)
    kernel = FeatureKernel(distance, bandwidth=lambda squared: squared.new_tensor(400.0))
    found = ViewDistiller(distiller(Constant()), kernel)(big, encode(big), target, seeded())
    assert found.on_pictures is not None and found.on_pictures.shape == big.shape

    def similar(first: Tensor) -> float:
        gram = ViewDistiller(distiller(Constant()), kernel)(
            torch.stack([first, big[1]]), encode(big), target, seeded()
        ).distillation.gram
        return float(gram[0, 1])

    step = torch.randn(big[0].shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    slope = (similar(big[0] + 1e-5 * step) - similar(big[0] - 1e-5 * step)) / 2e-5
    schedule, t = Constant().schedule, torch.tensor(found.distillation.t)
    share = found.distillation.gram.sum(dim=0)[1]
    scale = float(schedule.weight(t) * schedule.sigma(t)) / float(share)
    # Repulsion of the second view is the slope of k by the first.
    assert float((found.on_pictures[1] * step).sum()) == pytest.approx(-scale * slope, rel=1e-4)


def test_views_are_pushed_apart_where_nothing_else_pulls():
    """With a score of zero a step against the gradient makes the kernel smaller."""
    x = pictures()
    target = random_target(N, shape=(3, 16, 16), image=False)

    class Answer(FormulaPrior):
        def predict_noise(self, x_t, t, condition):  # noqa: ANN001, ANN201
            return noise[: len(x_t) // 2].repeat(2, 1, 1, 1)

    schedule = FormulaPrior().schedule
    generator = seeded()
    UniformTimesteps(0.4, 0.4)(schedule, generator)
    noise = SharedNoise()(encode(x), generator)
    view = ViewDistiller(distiller(Answer()), FeatureKernel(distance, bandwidth=lambda s: s.new_tensor(400.0)))
    first = view(x, encode(x), target, seeded())
    assert first.on_pictures is not None and not first.on_particles.abs().gt(1e-12).any()
    moved = view(x - 1e-2 * first.on_pictures / first.on_pictures.abs().max(), encode(x), target, seeded())
    off = ~torch.eye(N, dtype=torch.bool)
    assert float(moved.distillation.gram[off].sum()) < float(first.distillation.gram[off].sum())
