"""A linear map that is known is found again."""

import pytest
import torch

from csd_nerf.scenes.latent_to_rgb import fit_latent_to_rgb


def test_a_linear_decoder_is_found():
    torch.manual_seed(0)
    latents = torch.randn(3, 4, 8, 6)
    weight, bias = torch.randn(3, 4), torch.randn(3)
    colours = torch.einsum("kc,nchw->nkhw", weight, latents) + bias[:, None, None]
    fitted = fit_latent_to_rgb(latents, colours.repeat_interleave(4, 2).repeat_interleave(4, 3))
    torch.testing.assert_close(fitted.weight, weight, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(fitted.bias, bias, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(fitted(latents), colours, atol=1e-4, rtol=1e-4)
    assert fitted.explained == pytest.approx(1.0, abs=1e-6)


def test_what_is_not_linear_is_not_explained():
    torch.manual_seed(0)
    latents = torch.randn(4, 4, 16, 16)
    fitted = fit_latent_to_rgb(latents, torch.rand(4, 3, 16, 16))
    assert fitted.explained < 0.1
    rest = torch.rand(4, 3, 16, 16)
    fitted = fit_latent_to_rgb(latents, rest)
    residual = (rest - fitted(latents)).flatten()
    moved = (rest - fitted(latents + 0.05)).flatten()
    assert residual.square().sum() < moved.square().sum(), "least squares: every other map is worse"


def test_a_channel_without_variation_does_no_harm():
    torch.manual_seed(0)
    latents = torch.randn(2, 4, 8, 8)
    latents[:, 3] = 0.7
    colours = latents[:, :3] * 0.1 + 0.5
    fitted = fit_latent_to_rgb(latents, colours)
    torch.testing.assert_close(fitted(latents), colours, atol=1e-4, rtol=1e-4)
    assert fitted.weight.isfinite().all() and fitted.weight.abs().max() < 1


def test_sizes_that_cannot_be():
    with pytest.raises(ValueError, match="give a multiple"):
        fit_latent_to_rgb(torch.randn(1, 4, 8, 8), torch.rand(1, 3, 20, 16))
    with pytest.raises(ValueError, match="too few"):
        fit_latent_to_rgb(torch.randn(1, 4, 2, 2), torch.rand(1, 3, 2, 2))
