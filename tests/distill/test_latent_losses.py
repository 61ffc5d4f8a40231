"""LDP Eq. 2 against a chain rule written by hand and against finite differences; Eq. 3 against its closed form."""

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from csd_nerf.distill import feature_matching, kl_regulariser
from tests.distill.analytic import random_particles

SHAPE = (2, 3, 2)
ALPHA = torch.tensor(0.7, dtype=torch.float64)


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TwoLevels:
    """f_1 = A v + (B v)^2 / 2, f_2 = tanh(C f_1), with Jacobians written out."""

    def __init__(self) -> None:
        self.a, self.b, self.c = draw(7, 12, seed=1), draw(7, 12, seed=2), 0.2 * draw(5, 7, seed=3)
        self.rows: list[int] = []

    def __call__(self, latents: Tensor) -> list[Tensor]:
        self.rows.append(len(latents))
        v = latents.flatten(1)
        first = v @ self.a.T + (v @ self.b.T) ** 2 / 2
        return [first, torch.tanh(first @ self.c.T)]

    def jacobians(self, v: Tensor) -> list[Tensor]:
        """Of one particle, flat."""
        first = self.a + (self.b @ v)[:, None] * self.b
        second = torch.tanh(self.c @ (self.a @ v + (self.b @ v) ** 2 / 2))
        return [first, (1 - second**2)[:, None] * (self.c @ first)]


class Linear:
    def __init__(self) -> None:
        self.a = draw(9, 12, seed=4)

    def __call__(self, latents: Tensor) -> list[Tensor]:
        return [latents.flatten(1) @ self.a.T]


def by_hand(decoder: TwoLevels, v: Tensor, d: Tensor, distance: str) -> tuple[Tensor, Tensor]:
    """dL/dv and dL/dv', each with the other held fixed."""
    sides = torch.zeros(2, len(v), 12, dtype=torch.float64)
    before, after = decoder(v), decoder(v + d)
    for i in range(len(v)):
        jacobians = decoder.jacobians(v[i].flatten()), decoder.jacobians((v + d)[i].flatten())
        for level in (0, 1):
            difference = before[level][i] - after[level][i]
            outer = difference.sign() if distance == "l1" else 2 * difference
            outer = outer / len(difference) / len(v)
            sides[0, i] += jacobians[0][level].T @ outer
            sides[1, i] -= jacobians[1][level].T @ outer
    return sides[0].view_as(v), sides[1].view_as(v)


@pytest.mark.parametrize("distance", ["l1", "l2"])
def test_eq_2_is_the_chain_rule_written_by_hand(distance):
    decoder, v, d = TwoLevels(), random_particles(3, shape=SHAPE), 0.4 * random_particles(3, seed=5, shape=SHAPE)
    before, after = decoder(v), decoder(v + d)
    by_v, by_updated = by_hand(decoder, v, d, distance)
    result = feature_matching(decoder, v, d, ALPHA, distance=distance)
    torch.testing.assert_close(result.gradient, (1 + 0.7) * by_updated + by_v, rtol=1e-12, atol=1e-14)
    power = 1 if distance == "l1" else 2
    expected = sum(((x - y).abs() ** power).mean() for x, y in zip(before, after, strict=True))
    torch.testing.assert_close(result.value, expected)
    assert (result.gradient - by_updated - by_v).norm() > 0.1 * result.gradient.norm(), "alpha must matter"


@pytest.mark.parametrize("distance", ["l1", "l2"])
def test_eq_2_from_finite_differences(distance):
    """At alpha = 0 and 1 the gradient gives both partial derivatives, each of which a difference quotient knows."""
    decoder, v, d = TwoLevels(), random_particles(1, shape=SHAPE), 0.4 * random_particles(1, seed=5, shape=SHAPE)
    nothing, whole = (feature_matching(decoder, v, d, 0 * ALPHA + a, distance=distance).gradient for a in (0.0, 1.0))
    by_updated = whole - nothing
    by_v = nothing - by_updated

    def loss(v: Tensor, updated: Tensor) -> Tensor:
        return feature_matching(decoder, v, updated - v, ALPHA, distance=distance).value

    for place in range(12):
        step = torch.zeros(12, dtype=torch.float64).index_fill(0, torch.tensor([place]), 1e-6).view_as(v)
        numeric = (loss(v + step, v + d) - loss(v - step, v + d)) / 2e-6
        torch.testing.assert_close(by_v.flatten()[place], numeric, rtol=1e-5, atol=1e-8)
        numeric = (loss(v, v + d + step) - loss(v, v + d - step)) / 2e-6
        torch.testing.assert_close(by_updated.flatten()[place], numeric, rtol=1e-5, atol=1e-8)


def test_eq_2_is_what_autograd_gives_with_the_right_detachment():
    decoder, v, d = TwoLevels(), random_particles(3, shape=SHAPE), random_particles(3, seed=5, shape=SHAPE)
    leaf = v.clone().requires_grad_()
    updated = (1 + ALPHA) * leaf + (leaf + d - (1 + ALPHA) * leaf).detach()
    pairs = zip(decoder(leaf), decoder(updated), strict=True)
    torch.stack([(x - y).abs().mean() for x, y in pairs]).sum().backward()
    torch.testing.assert_close(feature_matching(decoder, v, d, ALPHA).gradient, leaf.grad)


@pytest.mark.parametrize("distance", ["l1", "l2"])
def test_a_step_against_the_gradient_goes_against_the_residual_as_sds_does(distance):
    v, d = random_particles(4, shape=SHAPE), 0.05 * random_particles(4, seed=6, shape=SHAPE)

    def cosine(gradient: Tensor) -> float:
        return float(torch.nn.functional.cosine_similarity(gradient.flatten(), d.flatten(), dim=0))

    def mean_distance(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).abs().mean() if distance == "l1" else (a - b).square().mean()

    for decoder in (TwoLevels(), Linear()):
        assert cosine(feature_matching(decoder, v, d, ALPHA, distance=distance).gradient) > 0.3
        leaf = v.clone().requires_grad_()
        pairs = zip(decoder(leaf), decoder(v + d), strict=True)
        torch.stack([mean_distance(x, y) for x, y in pairs]).sum().backward()
        assert leaf.grad is not None and cosine(leaf.grad) < -0.3, "with v' detached it ascends"


def test_with_a_linear_decoder_only_alpha_is_left():
    decoder, v, d = Linear(), random_particles(2, shape=SHAPE), random_particles(2, seed=6, shape=SHAPE)
    difference = d.flatten(1) @ decoder.a.T
    expected = (0.7 * difference.sign() @ decoder.a / difference.numel()).view_as(v)
    torch.testing.assert_close(feature_matching(decoder, v, d, ALPHA).gradient, expected)
    assert feature_matching(decoder, v, d, 0 * ALPHA).gradient.abs().max() < 1e-15


@pytest.mark.parametrize(("rows", "seen"), [(None, [10]), (2, [4, 4, 2]), (1, [2] * 5), (7, [10])])
def test_both_sides_share_a_call_and_groups_change_nothing(rows, seen):
    v, d = random_particles(5, shape=SHAPE), random_particles(5, seed=5, shape=SHAPE)
    decoder = TwoLevels()
    result = feature_matching(decoder, v, d, ALPHA, rows_per_call=rows)
    assert decoder.rows == seen
    whole = feature_matching(TwoLevels(), v, d, ALPHA)
    torch.testing.assert_close(result.value, whole.value)
    torch.testing.assert_close(result.gradient, whole.gradient)


def test_the_mean_over_millions_of_features_does_not_vanish_in_half_precision():
    v, d = draw(2, 4, 8, 8, seed=1).float(), draw(2, 4, 8, 8, seed=2).float()

    def decoder(latents: Tensor) -> list[Tensor]:
        return [(latents.half() * 1.5)[..., None].expand(-1, -1, -1, -1, 10_000).float()]

    result = feature_matching(decoder, v, d, torch.tensor(0.5))
    torch.testing.assert_close(result.gradient, 0.5 * 1.5 * d.sign() / v.numel(), rtol=1e-3, atol=0)


def test_results_are_constants_whatever_the_caller_does_with_autograd():
    v, d = random_particles(2, shape=SHAPE), random_particles(2, seed=5, shape=SHAPE)
    expected = feature_matching(TwoLevels(), v, d, ALPHA)
    with torch.no_grad():
        silent = feature_matching(TwoLevels(), v, d, ALPHA)
    leaf = v.clone().requires_grad_()
    loud = feature_matching(TwoLevels(), leaf * 1, d, ALPHA)
    for result in (silent, loud):
        torch.testing.assert_close(result.gradient, expected.gradient)
        assert not result.gradient.requires_grad and not result.value.requires_grad
    assert leaf.grad is None and not kl_regulariser(leaf).gradient.requires_grad


def test_decoders_that_cannot_teach_are_refused():
    v = random_particles(2, shape=SHAPE)
    for decoder in (lambda latents: [], lambda latents: [latents.detach()]):
        with pytest.raises(ValueError, match="do not depend on its latents through autograd"):
            feature_matching(decoder, v, v, ALPHA)
    with pytest.raises(ValueError, match="rows_per_call=0"):
        feature_matching(TwoLevels(), v, v, ALPHA, rows_per_call=0)
    with pytest.raises((TypeCheckError, ValueError)):
        feature_matching(TwoLevels(), v, v[:1], ALPHA)


def test_kl_is_the_divergence_from_the_unit_normal():
    v = 0.3 + 1.7 * random_particles(1)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(v.mean(), v.std(correction=0)), normal(v.new_zeros(()), 1.0))
    torch.testing.assert_close(kl_regulariser(v).value, expected)


def test_kl_gradient_is_its_difference_quotient():
    v = 0.3 + 1.7 * random_particles(2, shape=(1, 2, 3))
    gradient = kl_regulariser(v).gradient.flatten()
    for place in range(v.numel()):
        step = torch.zeros(v.numel(), dtype=v.dtype).index_fill(0, torch.tensor([place]), 1e-5).view_as(v)
        numeric = (kl_regulariser(v + step).value - kl_regulariser(v - step).value) / 2e-5
        torch.testing.assert_close(gradient[place], numeric, rtol=1e-6, atol=1e-10)


def test_kl_regularises_each_code_by_itself():
    """Of "the latent code v" (LDP 3.3): a pale picture does not make up for a garish one."""
    scale, shift = torch.tensor([0.4, 1.0, 2.5]).view(3, 1, 1, 1), torch.tensor([1.0, 0.0, -1.0]).view(3, 1, 1, 1)
    v = random_particles(3) * scale + shift
    together, alone = kl_regulariser(v), [kl_regulariser(one[None]) for one in v]
    torch.testing.assert_close(together.gradient, torch.cat([one.gradient for one in alone]) / 3)
    torch.testing.assert_close(together.value, torch.stack([one.value for one in alone]).mean())
    pale, _, garish = (together.gradient * (v - v.mean(dim=(1, 2, 3), keepdim=True))).flatten(1).sum(dim=1)
    assert pale < 0 < garish


def test_kl_is_least_at_mean_0_and_variance_1():
    v = random_particles(2)
    standard = (v - v.mean(dim=(1, 2, 3), keepdim=True)) / v.flatten(1).std(dim=1, correction=0).view(2, 1, 1, 1)
    least = kl_regulariser(standard)
    assert abs(float(least.value)) < 1e-12 and least.gradient.abs().max() < 1e-15
    for scale, shift in [(1.0, 0.1), (1.0, -0.1), (1.1, 0.0), (0.9, 0.0)]:
        moved = scale * standard + shift
        result = kl_regulariser(moved)
        assert float(result.value) > 1e-3
        assert kl_regulariser(moved - 10 * result.gradient).value < result.value


@pytest.mark.parametrize("level", [0.0, 0.1, -300.0])
def test_kl_of_constant_latents_is_refused(level: float):
    with pytest.raises(ValueError, match="not all equal"):
        kl_regulariser(torch.full((2, 4, 8, 8), level))
    with pytest.raises(ValueError, match="not all equal"):
        kl_regulariser(torch.cat([random_particles(1), torch.full_like(random_particles(1), level)]))
