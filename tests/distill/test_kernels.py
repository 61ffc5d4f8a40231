"""Kernels against autograd on their definition."""

import math

import pytest
import torch
from torch import Tensor

from csd_nerf.distill import FeatureKernel, IndependentKernel, RBFKernel, median_bandwidth, released_bandwidth
from csd_nerf.distill.kernels import pairwise_squared_distances
from tests.distill.analytic import random_particles


def slow_repulsion(k, particles: Tensor) -> Tensor:
    """sum_j grad_{x_j} k(x_j, x_i), one pair at a time, by autograd on a kernel of two particles."""
    total = torch.zeros_like(particles)
    for i in range(len(particles)):
        for j in range(len(particles)):
            if i == j:  # k(x, x) is at its maximum; for LPIPS-like distances its derivative there is 0/0
                continue
            x_j = particles[j].clone().requires_grad_(True)
            total[i] += torch.autograd.grad(k(x_j, particles[i]), x_j)[0]
    return total


@pytest.mark.parametrize("n", [2, 3, 7])
def test_rbf_closed_form_is_the_definition(n: int) -> None:
    particles = random_particles(n)
    gram, repulsion = RBFKernel()(particles)
    flat = particles.flatten(1)
    distances = torch.stack([(flat[i] - flat[j]).norm() for i in range(n) for j in range(i)])
    h = distances.square().median() if len(distances) % 2 else distances.square().quantile(0.5)
    h = h / math.log(n)

    def k(x: Tensor, y: Tensor) -> Tensor:
        return torch.exp(-(x - y).square().sum() / h)

    expected = torch.stack([torch.stack([k(x, y) for y in particles]) for x in particles])
    torch.testing.assert_close(gram, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(repulsion, slow_repulsion(k, particles), rtol=1e-9, atol=1e-12)


def test_rbf_survives_a_large_common_offset_in_float32() -> None:
    particles = random_particles(5).float() * 0.1 + 40
    gram, _ = RBFKernel()(particles)
    exact, _ = RBFKernel()(particles.double())
    torch.testing.assert_close(gram.double(), exact, rtol=1e-4, atol=1e-5)


def test_half_precision_particles_do_not_overflow() -> None:
    gram, repulsion = RBFKernel()((random_particles(4, shape=(4, 64, 64)) * 100).half())
    assert torch.isfinite(gram).all() and torch.isfinite(repulsion).all()
    assert 0 < gram[0, 1] < 1


def test_feature_kernel_owns_its_repulsion() -> None:
    """A distance of features: differentiating with respect to the other argument gives another answer."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn((6, 60), generator=generator, dtype=torch.float64)

    def feature(x: Tensor) -> Tensor:
        return torch.tanh(x.flatten(-3) @ weight.T)

    def distance(x: Tensor, y: Tensor) -> Tensor:
        return (feature(x) - feature(y)).square().sum(-1)

    particles = random_particles(4) * 0.2
    gram, repulsion = FeatureKernel(distance)(particles)
    pairs = torch.stack([distance(particles[i], particles[j]) for i in range(4) for j in range(i)])
    h = pairs.square().quantile(0.5) / math.log(4)

    def k(x: Tensor, y: Tensor) -> Tensor:
        return torch.exp(-distance(x, y).square() / h)

    torch.testing.assert_close(repulsion, slow_repulsion(k, particles), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(gram[0, 1], k(particles[0], particles[1]))
    x = particles.clone().requires_grad_(True)
    affinities = [torch.stack([k(particles[j], x[i]) for j in range(4) if j != i]).sum() for i in range(4)]
    shortcut = -torch.stack([torch.autograd.grad(affinity, x)[0][i] for i, affinity in enumerate(affinities)])
    assert (shortcut - repulsion).norm() > 0.05 * repulsion.norm()


def test_feature_kernel_with_squared_distance_equals_rbf() -> None:
    particles = random_particles(5)
    for ours, expected in zip(
        FeatureKernel(lambda x, y: (x - y).flatten(1).norm(dim=1))(particles), RBFKernel()(particles), strict=True
    ):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "kernel",
    [
        RBFKernel(),
        RBFKernel(released_bandwidth),
        IndependentKernel(),
        FeatureKernel(lambda x, y: (x - y).flatten(1).norm(dim=1)),
    ],
)
def test_one_particle_is_alone(kernel) -> None:
    gram, repulsion = kernel(random_particles(1))
    assert gram.tolist() == [[1.0]]
    assert not repulsion.any()


def test_coinciding_particles_are_equal_not_nan() -> None:
    particles = random_particles(1).expand(4, -1, -1, -1).clone()
    gram, repulsion = RBFKernel()(particles)
    assert (gram == 1).all() and not repulsion.any()


def test_bandwidths_by_hand() -> None:
    squared = pairwise_squared_distances(torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64))
    torch.testing.assert_close(squared, torch.tensor([[0.0, 1, 9], [1, 0, 4], [9, 4, 0]], dtype=torch.float64))
    assert float(median_bandwidth(squared)) == pytest.approx(4 / math.log(3))
    # lower median of 0 0 0 1 1 4 4 9 9
    assert float(released_bandwidth(squared)) == pytest.approx(1 / math.log(4))


def test_released_bandwidth_refuses_two_particles() -> None:
    with pytest.raises(ValueError, match="2 particles"):
        RBFKernel(released_bandwidth)(random_particles(2))
