"""Layers of StyleGAN2 against loops over samples, channels and taps."""

import pytest
import torch
import torch.nn.functional as F

from csd_nerf.images.stylegan.discriminator import Discriminator, with_batch_spread
from csd_nerf.images.stylegan.layers import (
    EqualLinear,
    ModulatedConv,
    doubled,
    doubled_convolution,
    halved_convolution,
    normalise,
)
from tests.images.stylegan import formats


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    "kernel,demodulate,up", [(3, True, False), (3, True, True), (1, False, False), (3, False, True)]
)
def test_a_modulated_convolution_is_that_of_each_samples_own_weights(kernel: int, demodulate: bool, up: bool) -> None:
    conv = ModulatedConv(4, 5, kernel, 6, demodulate=demodulate, up=up).double()
    x, w = normal(3, 4, 5, 7), 3 * normal(3, 6, seed=1)
    scales = w @ conv.affine.weight.detach().T / 6**0.5 + 1
    expected = [
        formats.modulated(one, conv.weight.detach(), own, demodulate=demodulate, up=up)
        for one, own in zip(x, scales, strict=True)
    ]
    torch.testing.assert_close(conv(x, w), torch.stack(expected), rtol=1e-9, atol=1e-9)


def test_demodulated_features_keep_their_variance_whatever_the_style() -> None:
    conv = ModulatedConv(64, 64, 3, 8).double()
    x = normal(2, 64, 32, 32)
    for w in (torch.zeros(2, 8, dtype=torch.float64), 50 * normal(2, 8, seed=2)):
        assert float(conv(x, w).var().detach()) == pytest.approx(1.0, rel=0.15)


def test_gradients_of_a_modulated_convolution_are_those_of_its_formula() -> None:
    conv = ModulatedConv(2, 3, 3, 4, up=True).double()
    x, w = normal(2, 2, 3, 3).requires_grad_(), normal(2, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(conv, (x, w))
    assert torch.autograd.gradgradcheck(conv, (x, w))  # path lengths and R1 differentiate twice


def test_pictures_double_as_zeros_between_pixels_and_a_filter() -> None:
    image = normal(3, 4, 5)
    torch.testing.assert_close(doubled(image[None])[0], formats.doubled(image), rtol=1e-12, atol=1e-12)
    flat = doubled(torch.ones(1, 3, 8, 8))
    torch.testing.assert_close(flat[..., 2:-2, 2:-2], torch.ones(1, 3, 12, 12))


def test_halving_filters_first_and_convolves_in_steps_of_two() -> None:
    x, weight = normal(2, 3, 8, 6), normal(4, 3, 3, 3, seed=1)
    smooth = torch.stack([torch.stack([formats.filtered(plane, 1.0, (2, 2)) for plane in one]) for one in x])
    torch.testing.assert_close(halved_convolution(x, weight), F.conv2d(smooth, weight, stride=2), rtol=1e-9, atol=1e-9)


def test_doubling_and_halving_are_adjoint() -> None:
    x, y, weight = normal(1, 2, 5, 5), normal(1, 3, 10, 10, seed=1), normal(3, 2, 3, 3, seed=2)
    up, down = doubled_convolution(x, weight), halved_convolution(y, weight.transpose(0, 1))
    torch.testing.assert_close((up * y).sum(), 4 * (x * down).sum())


def test_learning_rate_multipliers_cancel_at_the_start() -> None:
    x = normal(5, 16)
    for multiplier in (1.0, 0.01):
        torch.manual_seed(3)
        layer = EqualLinear(16, 8, multiplier=multiplier).double()
        torch.manual_seed(3)
        torch.testing.assert_close(layer(x), x @ torch.randn(8, 16).double().T / 4, rtol=1e-5, atol=1e-5)
        layer(x).sum().backward()
        expected = multiplier / 4 * x.sum(dim=0).expand(8, 16)
        torch.testing.assert_close(layer.weight.grad, expected, rtol=1e-9, atol=1e-12)


def test_latents_are_normalised_to_unit_second_moment() -> None:
    torch.testing.assert_close(normalise(7 * normal(4, 9)).square().mean(dim=1), torch.ones(4, dtype=torch.float64))


def test_the_batchs_spread_is_that_of_its_groups() -> None:
    x = normal(8, 3, 2, 2)
    found = with_batch_spread(x, group=4)
    assert torch.equal(found[:, :3], x) and found.shape == (8, 4, 2, 2)
    for member in range(8):
        group = x[member % 2 :: 2]  # as StyleGAN2 forms them: every second sample
        spread = ((group - group.mean(0)).square().mean(0) + 1e-8).sqrt().mean()
        torch.testing.assert_close(found[member, 3].double(), spread.expand(2, 2), rtol=1e-5, atol=1e-6)
    assert float(with_batch_spread(x[:1].expand(4, -1, -1, -1))[:, 3].max()) < 1e-3


def test_the_discriminator_sees_the_whole_picture_and_gives_one_logit() -> None:
    torch.manual_seed(0)
    critic = Discriminator((6, 5, 4))
    images = normal(4, 3, 16, 16).float().requires_grad_()
    logits = critic(images)
    assert logits.shape == (4,)
    logits.sum().backward()
    assert (images.grad.abs().amax(dim=1) > 0).all()
