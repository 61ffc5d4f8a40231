# pyright: reportPrivateImportUsage=false
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny

from csd_nerf.priors import LatentDiffusionPrior, autoencoder, load_prior
from csd_nerf.priors.autoencoder import Autoencoder
from tests.tiny_prior import make_tiny_prior

CPU = torch.device("cpu")
TAESD = Path(__file__).resolve().parents[3] / "shared/data/taesd"


def pictures(n: int = 3, height: int = 24, width: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.rand((n, 3, height, width), generator=torch.Generator().manual_seed(seed))


def test_latents_are_the_scaled_mode_and_conditions_the_unscaled_one(
    edit_prior: LatentDiffusionPrior, edit_folder: Path
):
    vae: Any = AutoencoderKL.from_pretrained(edit_folder / "vae")
    with torch.no_grad():
        mode = vae.encode(pictures() * 2 - 1).latent_dist.mode()
    torch.testing.assert_close(edit_prior.encode_condition(pictures()), mode, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(edit_prior.encode(pictures()), mode * 0.6, rtol=1e-5, atol=1e-5)
    assert mode.shape == (3, 4, 6, 8)


def test_scale_and_shift_are_read_from_the_configuration(tmp_path: Path, edit_prior: LatentDiffusionPrior):
    folder = make_tiny_prior(tmp_path / "p", scaling_factor=0.25)
    changed = load_prior(folder, device="cpu")
    mode = edit_prior.encode_condition(pictures())
    torch.testing.assert_close(changed.encode_condition(pictures()), mode)
    torch.testing.assert_close(changed.encode(pictures()), mode * 0.25)
    torch.testing.assert_close(changed.decode(mode * 0.25), edit_prior.decode(mode * 0.6))

    config = json.loads((folder / "vae/config.json").read_text())
    (folder / "vae/config.json").write_text(json.dumps({**config, "shift_factor": 0.5}))
    shifted = load_prior(folder, device="cpu")
    torch.testing.assert_close(shifted.encode(pictures()), (mode - 0.5) * 0.25)
    torch.testing.assert_close(shifted.encode_condition(pictures()), mode)
    torch.testing.assert_close(shifted.decode(shifted.encode(pictures())), changed.decode(changed.encode(pictures())))


def test_scaled_sample_follows_its_generator(edit_prior: LatentDiffusionPrior, edit_folder: Path):
    def draw(seed: int) -> torch.Tensor:
        return edit_prior.encode_condition(pictures(), scaled_sample=torch.Generator().manual_seed(seed))

    vae: Any = AutoencoderKL.from_pretrained(edit_folder / "vae")
    with torch.no_grad():
        posterior = vae.encode(pictures() * 2 - 1).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(draw(7), (posterior.mean + posterior.std * noise) * 0.6, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(draw(7), draw(7))
    assert not torch.allclose(draw(7), draw(8))


def test_groups_bound_memory_and_change_nothing(edit_prior: LatentDiffusionPrior, monkeypatch: pytest.MonkeyPatch):
    images = pictures(5)
    latents, condition = edit_prior.encode(images), edit_prior.encode_condition(images)
    sample = edit_prior.encode_condition(images, scaled_sample=torch.Generator().manual_seed(0))
    decoded = edit_prior.decode(latents)
    monkeypatch.setattr(autoencoder, "PIXELS_PER_CALL", 2 * 24 * 32)
    sizes: list[int] = []
    edit_prior.autoencoder.vae.encoder.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    edit_prior.autoencoder.vae.decoder.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    torch.testing.assert_close(edit_prior.encode(images), latents, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(edit_prior.decode(latents), decoded, rtol=1e-5, atol=1e-5)
    assert sizes == [2, 2, 1, 2, 2, 1]
    torch.testing.assert_close(edit_prior.encode_condition(images), condition, rtol=1e-5, atol=1e-5)
    again = edit_prior.encode_condition(images, scaled_sample=torch.Generator().manual_seed(0))
    torch.testing.assert_close(again, sample, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(autoencoder, "PIXELS_PER_CALL", 1)
    assert len(edit_prior.encode(images)) == 5


def test_pictures_come_back_in_range_and_float32(edit_prior: LatentDiffusionPrior):
    decoded = edit_prior.decode(50 * torch.randn(2, 4, 6, 8, dtype=torch.float64))
    assert decoded.shape == (2, 3, 24, 32) and decoded.dtype == torch.float32
    assert decoded.min() >= 0 and decoded.max() <= 1


def test_sizes_that_do_not_fit_are_refused(edit_prior: LatentDiffusionPrior):
    with pytest.raises(ValueError, match="30 x 24 pixels.*multiples of 4"):
        edit_prior.encode(pictures(1, 24, 30))


@pytest.mark.parametrize(
    ("force", "asked", "used"),
    [
        (True, torch.float16, torch.float32),
        (False, torch.float16, torch.float16),
        (True, torch.bfloat16, torch.bfloat16),
    ],
)
def test_force_upcast_protects_half_precision(force: bool, asked: torch.dtype, used: torch.dtype):
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, force_upcast=force)
    codec = Autoencoder(vae, device=CPU, dtype=asked)
    assert codec.dtype == used and next(codec.vae.parameters()).dtype == used


def test_half_precision_ends_at_the_networks_edge(edit_folder: Path, edit_prior: LatentDiffusionPrior):
    half = load_prior(edit_folder, device="cpu", dtype="bf16")
    latents = half.encode(pictures())
    assert latents.dtype == half.decode(latents).dtype == half.encode_condition(pictures()).dtype == torch.float32
    torch.testing.assert_close(latents, edit_prior.encode(pictures()), rtol=0.1, atol=0.05)


def test_results_are_constants_for_autograd(edit_prior: LatentDiffusionPrior):
    scale = torch.ones((), requires_grad=True)
    latents = edit_prior.encode(pictures() * scale)
    assert not latents.requires_grad and not latents.is_inference()
    (latents * scale).sum().backward()
    torch.testing.assert_close(scale.grad, latents.sum())


@pytest.mark.skipif(not TAESD.is_dir(), reason="no TAESD weights here")
def test_a_tiny_autoencoder_has_no_posterior():
    codec = Autoencoder(AutoencoderTiny.from_pretrained(TAESD), device=CPU, dtype=torch.float32)
    smooth = torch.nn.functional.interpolate(pictures(2, 4, 4), size=(64, 64), mode="bicubic").clamp(0, 1)
    latents = codec.encode(smooth)
    assert codec.factor == 8 and latents.shape == (2, 4, 8, 8)
    torch.testing.assert_close(codec.encode_condition(smooth), latents)
    sample = codec.encode_condition(smooth, scaled_sample=torch.Generator().manual_seed(0))
    torch.testing.assert_close(sample, latents)
    assert (codec.decode(latents) - smooth).abs().mean() < 0.05
