# pyright: reportPrivateImportUsage=false
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny

from csd_nerf.priors import LatentDiffusionPrior, PriorLayoutError, autoencoder, load_prior
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
    edit_prior.autoencoder.vae.decoder.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    torch.testing.assert_close(edit_prior.encode(images), latents, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(edit_prior.decode(latents), decoded, rtol=1e-5, atol=1e-5)
    assert sizes == [2, 2, 1]
    torch.testing.assert_close(edit_prior.encode_condition(images), condition, rtol=1e-5, atol=1e-5)
    again = edit_prior.encode_condition(images, scaled_sample=torch.Generator().manual_seed(0))
    torch.testing.assert_close(again, sample, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(autoencoder, "PIXELS_PER_CALL", 1)
    assert len(edit_prior.decode(latents)) == 5


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


def test_pictures_that_are_optimised_get_a_gradient_through_the_frozen_encoder(edit_prior: LatentDiffusionPrior):
    codec = edit_prior.autoencoder
    shown = pictures(2, 16, 16).requires_grad_()
    latents = codec.encode_attached(shown)
    torch.testing.assert_close(latents, codec.encode(shown), rtol=1e-5, atol=1e-5)
    direction, weights = torch.randn(shown.shape), torch.randn(latents.shape)
    (gradient,) = torch.autograd.grad((weights * latents).sum(), shown)
    step = 1e-3 * direction
    with torch.no_grad():
        change = (weights * (codec.encode(shown + step) - codec.encode(shown - step))).sum() / 2e-3
    torch.testing.assert_close((gradient * direction).sum(), change, rtol=2e-2, atol=1e-2)
    assert all(weight.grad is None for weight in codec.vae.parameters())
    with pytest.raises(ValueError, match="multiples of 4"):
        codec.encode_attached(pictures(1, 18, 16))


def tiny_codec() -> AutoencoderTiny:
    """A TAESD in miniature, with random weights."""
    options: dict[str, Any] = {"encoder_block_out_channels": (4, 4, 4), "decoder_block_out_channels": (4, 4, 4),
               "num_encoder_blocks": (1, 1, 1), "num_decoder_blocks": (1, 1, 1)}  # fmt: skip
    return AutoencoderTiny(**options)


@pytest.mark.parametrize("scaled_sample", [None, torch.Generator()])
def test_a_tiny_autoencoder_gives_no_image_condition(scaled_sample: torch.Generator | None):
    """Its latents are scaled by a factor that it does not tell: the unscaled mode cannot be had from them."""
    codec = Autoencoder(tiny_codec(), device=CPU, dtype=torch.float32)
    assert codec.encode(pictures()).shape == (3, 4, 6, 8)
    with pytest.raises(ValueError, match="tiny autoencoder.*use the AutoencoderKL"):
        codec.encode_condition(pictures(), scaled_sample=scaled_sample)


def test_an_instruct_pix2pix_with_a_tiny_autoencoder_is_refused_and_a_text_to_image_model_is_not(tmp_path: Path):
    for channels in (8, 4):
        folder = make_tiny_prior(tmp_path / str(channels), channels)
        shutil.rmtree(folder / "vae")
        tiny_codec().save_pretrained(folder / "vae")
    with pytest.raises(PriorLayoutError, match="InstructPix2Pix with a tiny autoencoder.*AutoencoderKL"):
        load_prior(tmp_path / "8", device="cpu")
    assert load_prior(tmp_path / "4", device="cpu").encode(pictures()).shape == (3, 4, 6, 8)


def test_an_overflowing_decoder_is_not_taken_for_white(edit_prior: LatentDiffusionPrior):
    """Clamping to [0, 1] would turn infinities into black and white; the picture at fault must stay visible."""
    latents = edit_prior.encode(pictures())
    sound = edit_prior.decode(latents)
    last = edit_prior.autoencoder.vae.decoder.conv_out
    last.register_forward_hook(lambda _, __, output: output.index_fill(0, torch.tensor([1]), float("inf")))
    decoded = edit_prior.decode(latents)
    assert decoded[1].isnan().all()
    torch.testing.assert_close(decoded[[0, 2]], sound[[0, 2]])


@pytest.mark.skipif(not TAESD.is_dir(), reason="no TAESD weights here")
def test_a_tiny_autoencoder_has_no_posterior():
    codec = Autoencoder(AutoencoderTiny.from_pretrained(TAESD), device=CPU, dtype=torch.float32)
    smooth = torch.nn.functional.interpolate(pictures(2, 4, 4), size=(64, 64), mode="bicubic").clamp(0, 1)
    latents = codec.encode(smooth)
    assert codec.factor == 8 and latents.shape == (2, 4, 8, 8)
    assert (codec.decode(latents) - smooth).abs().mean() < 0.05
