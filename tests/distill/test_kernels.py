"""Kernels against autograd on their definition."""

import math

import pytest
import torch
from torch import Tensor

from csd_nerf.bench.allocations import TensorMemory
from csd_nerf.distill import (
    EmbeddingKernel,
    FeatureKernel,
    IndependentKernel,
    RBFKernel,
    TemporalKernel,
    median_bandwidth,
    released_bandwidth,
)
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


@pytest.mark.parametrize("n", [2, 3, 4, 7])
def test_rbf_closed_form_is_the_definition(n: int) -> None:
    particles = random_particles(n)
    gram, repulsion = RBFKernel()(particles)
    flat = particles.flatten(1)
    distances = torch.stack([(flat[i] - flat[j]).norm() for i in range(n) for j in range(i)])
    ordered = distances.sort().values
    h = ((ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2) ** 2 / math.log(n)

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


def rooted_distance(x: Tensor, y: Tensor) -> Tensor:
    """Its derivative between equal particles is 0/0, if it is asked for."""
    return (x - y).flatten(1).square().sum(dim=1).sqrt()


def flattened(x: Tensor) -> Tensor:
    return x.flatten(1)


@pytest.mark.parametrize(
    "kernel", [RBFKernel(), FeatureKernel(rooted_distance), EmbeddingKernel(flattened), IndependentKernel()]
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_particles_give_float32_kernels(kernel, dtype) -> None:
    half = (random_particles(4, shape=(4, 64, 64)) * 100).to(dtype)
    for ours, exact in zip(kernel(half), kernel(half.double()), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), exact, rtol=1e-3, atol=1e-5)


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
    h = pairs.quantile(0.5) ** 2 / math.log(4)

    def k(x: Tensor, y: Tensor) -> Tensor:
        return torch.exp(-distance(x, y).square() / h)

    torch.testing.assert_close(repulsion, slow_repulsion(k, particles), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(gram[0, 1], k(particles[0], particles[1]))
    x = particles.clone().requires_grad_(True)
    affinities = [torch.stack([k(particles[j], x[i]) for j in range(4) if j != i]).sum() for i in range(4)]
    shortcut = -torch.stack([torch.autograd.grad(affinity, x)[0][i] for i, affinity in enumerate(affinities)])
    assert (shortcut - repulsion).norm() > 0.05 * repulsion.norm()


@pytest.mark.parametrize("copies", [False, True])
def test_embedding_kernel_is_the_feature_kernel_of_its_distance(copies: bool) -> None:
    weight = torch.randn((6, 60), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    seen = []

    def embed(x: Tensor) -> Tensor:
        seen.append(len(x))
        return torch.tanh(x.flatten(1) @ weight.T)

    particles = random_particles(5) * 0.2
    if copies:
        particles[3] = particles[1]
    ours = EmbeddingKernel(embed)(particles)
    assert seen == [5], "each particle is embedded once"
    pairwise = FeatureKernel(lambda x, y: (embed(x) - embed(y)).square().sum(dim=1))(particles)
    for got, expected in zip(ours, pairwise, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)
    assert ours[1].norm() > 0


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


@pytest.mark.parametrize("kernel", [RBFKernel(), FeatureKernel(rooted_distance), EmbeddingKernel(flattened)])
def test_coinciding_particles_are_equal_not_nan(kernel) -> None:
    particles = random_particles(1).expand(4, -1, -1, -1).clone()
    gram, repulsion = kernel(particles)
    assert (gram == 1).all() and not repulsion.any()


def with_copies(places: list[int], dtype: torch.dtype, rounding: float = 0.0) -> Tensor:
    """Distinct particles far from the origin, some of them repeated, each copy with a rounding error of its own."""
    distinct = random_particles(max(places) + 1, shape=(4, 16, 16)) + 3
    copies = distinct[places] * (1 + rounding * random_particles(len(places), seed=9, shape=(4, 16, 16)))
    return copies.to(dtype)


@pytest.mark.parametrize("kernel", [RBFKernel(), FeatureKernel(rooted_distance)])
@pytest.mark.parametrize("places", [[0, 1, 0, 2, 1, 3], [0, 0, 0, 0, 1], [0, 0, 0, 1, 1]])
def test_copies_among_distinct_particles(kernel, places: list[int]) -> None:
    """Copies are equal and do not push each other; everyone else is heard, also where most particles are copies."""
    particles = with_copies(places, torch.float64)
    gram, repulsion = kernel(particles)
    distances = [float((particles[i] - particles[j]).norm()) for i in range(len(places)) for j in range(i) if i != j]
    different = sorted(d for d in distances if d > 0)
    ordered = sorted(distances)
    median = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    if median == 0:
        median = (different[(len(different) - 1) // 2] + different[len(different) // 2]) / 2
    h = median**2 / math.log(len(places))
    for i, a in enumerate(places):
        push = torch.zeros_like(particles[0])
        for j, b in enumerate(places):
            k = math.exp(-float((particles[i] - particles[j]).square().sum()) / h)
            assert float(gram[j, i]) == pytest.approx(k, rel=1e-9)
            assert (a == b) == (float(gram[j, i]) == 1)
            push += 2 / h * k * (particles[i] - particles[j])
        torch.testing.assert_close(repulsion[i], push, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("places", [[0, 1, 0, 2, 1, 3], [0, 0, 0, 0, 1], [0, 0, 0, 0]])
def test_a_networks_rounding_makes_no_difference_between_copies(places: list[int]) -> None:
    """One picture encoded twice gives latents that differ in their last digits, in either sign."""
    exact = RBFKernel()(with_copies(places, torch.float64))
    rounded = RBFKernel()(with_copies(places, torch.float32, rounding=5e-7))
    for ours, expected in zip(rounded, exact, strict=True):
        torch.testing.assert_close(ours.double(), expected, rtol=1e-3, atol=1e-5)


def test_distances_of_close_particles_keep_their_digits() -> None:
    """Two of them a thousandth apart, the third far away: the Gram product alone leaves two digits or none."""
    particles = torch.stack([torch.zeros(3000), torch.full((3000,), 1e-3), torch.full((3000,), 30.0)])
    squared = pairwise_squared_distances(particles)
    torch.testing.assert_close(squared[0, 1], torch.tensor(3e-3), rtol=1e-5, atol=0)


@pytest.mark.parametrize("kernel", [RBFKernel(), FeatureKernel(rooted_distance), EmbeddingKernel(flattened)])
def test_distances_that_are_not_finite_are_not_hidden(kernel) -> None:
    particles = random_particles(3).float()
    particles[1] = 1e30
    assert not torch.isfinite(kernel(particles)[0]).all()


def test_bandwidths_by_hand() -> None:
    squared = pairwise_squared_distances(torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64))
    torch.testing.assert_close(squared, torch.tensor([[0.0, 1, 9], [1, 0, 4], [9, 4, 0]], dtype=torch.float64))
    assert float(median_bandwidth(squared)) == pytest.approx(4 / math.log(3))
    # lower median of 0 0 0 1 1 4 4 9 9
    assert float(released_bandwidth(squared)) == pytest.approx(1 / math.log(4))
    # distances 1 2 3 4 6 7: their median is 3.5; that of their squares, 12.5, would be another bandwidth
    squared = pairwise_squared_distances(torch.tensor([[0.0], [1.0], [3.0], [7.0]], dtype=torch.float64))
    assert float(median_bandwidth(squared)) == pytest.approx(3.5**2 / math.log(4))


def test_released_bandwidth_refuses_two_particles() -> None:
    with pytest.raises(ValueError, match="2 particles"):
        RBFKernel(released_bandwidth)(random_particles(2))


def test_temporal_kernel_is_its_definition() -> None:
    particles, times, scale = random_particles(5), torch.tensor([0.0, 1.0, 2.5, 7.0, 7.0]), 2.0
    gram, repulsion = TemporalKernel(times, scale)(particles)
    plain, _ = RBFKernel()(particles)
    flat = particles.flatten(1)
    h = -(flat[0] - flat[1]).square().sum() / plain[0, 1].log()
    expected = torch.zeros_like(repulsion)
    for i in range(5):
        for j in range(5):
            share = math.exp(-((float(times[i]) - float(times[j])) ** 2) / (2 * scale**2))
            torch.testing.assert_close(gram[j, i], plain[j, i] * share, rtol=1e-6, atol=1e-9)
            if i != j:
                x_j = particles[j].clone().requires_grad_(True)
                k = torch.exp(-(x_j - particles[i]).square().sum() / h) * share
                expected[i] += torch.autograd.grad(k, x_j)[0]
    torch.testing.assert_close(repulsion, expected, rtol=1e-6, atol=1e-9)


def test_temporal_kernel_without_a_limit_is_the_papers() -> None:
    particles = random_particles(4)
    for ours, theirs in zip(
        TemporalKernel(torch.arange(4.0), math.inf)(particles), RBFKernel()(particles), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_temporal_kernel_follows_the_frames_of_a_batch() -> None:
    rows = torch.tensor([3, 0])
    kernel = TemporalKernel(torch.tensor([0.0, 1.0, 2.0, 9.0]), 3.0)[rows]
    gram, _ = kernel(random_particles(2))
    plain, _ = RBFKernel()(random_particles(2))
    assert float(gram[0, 1] / plain[0, 1]) == pytest.approx(math.exp(-81 / 18), rel=1e-6)
    with pytest.raises(ValueError, match="3 particles, but times of 2"):
        kernel(random_particles(3))
    with pytest.raises(ValueError, match="above 0"):
        TemporalKernel(torch.arange(2.0), 0.0)


@pytest.mark.parametrize("spread", [1.0, 1e-4])
@pytest.mark.parametrize("bandwidth", [median_bandwidth, released_bandwidth])
def test_memory_stays_within_four_numbers_for_each_of_the_particles(spread: float, bandwidth):
    """And no difference of all pairs is ever formed, even where every pair is so close that it is computed exactly."""
    n, d = 24, 4096
    generator = torch.Generator().manual_seed(0)
    x = 3 + spread * torch.randn(n, 4, 32, 32, generator=generator)
    with TensorMemory() as memory:
        RBFKernel(bandwidth)(x)
    assert 2 * n * d * 4 <= memory.peak <= 4 * n * d * 4
    assert memory.largest <= n * d * 4
