"""Against diffusers' own `IFPipeline` and `DDPMScheduler`, on a tiny model with random weights."""

# pyright: reportPrivateImportUsage=false
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, IFPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import T5EncoderModel, T5TokenizerFast  # pyright: ignore[reportAttributeAccessIssue]

from csd_nerf.distill import (
    Condition,
    ImagePrior,
    Target,
    TextGuidance,
    evaluate,
    latent_score_distiller,
)
from csd_nerf.priors import DeepFloydPrior, load_prior
from tests.tiny_deepfloyd import SCHEDULER, make_tiny_deepfloyd

T = torch.tensor(400)
PROMPT = " A Photo of the RED cube "


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only."""
    return make_tiny_deepfloyd(tmp_path_factory.mktemp("deepfloyd") / "tiny")


@pytest.fixture
def copied(tmp_path: Path, folder: Path) -> Path:
    """To be damaged."""
    return Path(shutil.copytree(folder, tmp_path / "copied"))


@pytest.fixture
def prior(folder: Path) -> DeepFloydPrior:
    return load(folder)


def load(folder: Path, **options: Any) -> DeepFloydPrior:
    prior = load_prior(folder, device="cpu", **options)
    assert isinstance(prior, DeepFloydPrior)
    return prior


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pipeline(folder: Path) -> Any:
    """diffusers', without thresholds: they belong to sampling, not to the model."""
    config = {**SCHEDULER, "clip_sample": False, "thresholding": False, "variance_type": "fixed_small"}
    scheduler: Any = DDPMScheduler.from_config(config)
    return IFPipeline(
        tokenizer=T5TokenizerFast.from_pretrained(folder / "tokenizer"),
        text_encoder=T5EncoderModel.from_pretrained(folder / "text_encoder"),
        unet=UNet2DConditionModel.from_pretrained(folder / "unet"),
        scheduler=scheduler,
        safety_checker=None, feature_extractor=None, watermarker=None, requires_safety_checker=False,
    )  # fmt: skip


def target_of(prior: DeepFloydPrior, n: int) -> Target:
    text, null = (row.expand(n, -1, -1) for row in prior.encode_text([PROMPT, ""])[:, None])
    return Target(texts=(text,), null_text=null)


def test_a_folder_gives_a_prior_of_pixels(prior: DeepFloydPrior, folder: Path):
    assert isinstance(prior, ImagePrior) and prior.name == str(folder)
    assert (prior.takes_image, prior.factor, prior.size) == (False, 1, 16)


def test_encodings_are_those_of_the_pipeline(prior: DeepFloydPrior, folder: Path):
    positive, negative = pipeline(folder).encode_prompt(PROMPT, clean_caption=False)
    ours = prior.encode_text([PROMPT, ""])
    assert ours.shape == (2, 77, 12)
    torch.testing.assert_close(ours[:1], positive)
    torch.testing.assert_close(ours[1:], negative)
    assert not torch.allclose(ours[0], ours[1])
    torch.testing.assert_close(prior.encode_text(["a photo of the red cube"])[0], ours[0])


def test_three_ancestral_steps_are_those_of_the_pipeline(prior: DeepFloydPrior, folder: Path):
    timesteps, scheduler = [900, 500, 100], pipeline(folder).scheduler
    theirs = pipeline(folder)(
        PROMPT, timesteps=timesteps, guidance_scale=5.0, num_images_per_prompt=2, clean_caption=False,
        generator=torch.Generator().manual_seed(3), output_type="pt",
    ).images  # fmt: skip

    generator, target = torch.Generator().manual_seed(3), target_of(prior, 2)
    scheduler.set_timesteps(timesteps=timesteps)
    x = torch.randn((2, 3, 16, 16), generator=generator)
    for t in torch.tensor(timesteps):
        (eps,) = evaluate(prior, t, [TextGuidance(5.0).estimate(x, t, target)])
        x = scheduler.step(eps, t, x, generator=generator, return_dict=False)[0]
    torch.testing.assert_close(x, theirs, rtol=1e-4, atol=1e-4)
    assert (prior.calls, prior.samples) == (3, 12)


def test_one_deterministic_step_follows_from_our_schedule(prior: DeepFloydPrior, folder: Path):
    """The mean that diffusers predicts for the noiseless picture, from alpha_t and sigma_t as we have them."""
    theirs: Any = DDPMScheduler.from_config({**SCHEDULER, "clip_sample": False, "thresholding": False})
    x, text = draw(2, 3, 16, 16), prior.encode_text([PROMPT] * 2)
    with torch.no_grad():
        output = UNet2DConditionModel.from_pretrained(folder / "unet")(x, T, encoder_hidden_states=text).sample
    expected = theirs.step(output, T, x, generator=torch.Generator()).pred_original_sample
    eps = prior.predict_noise(x, T, Condition(text))
    ours = (x - prior.schedule.sigma(T).float() * eps) / prior.schedule.alpha(T).float()
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_the_schedule_is_that_of_diffusers(prior: DeepFloydPrior):
    theirs: Any = DDPMScheduler.from_config(SCHEDULER)
    ours = prior.schedule.alphas_cumprod
    torch.testing.assert_close(ours.float(), theirs.alphas_cumprod, rtol=2e-4, atol=1e-6)
    assert ours.dtype == torch.float64 and ours[-1] > 0


def test_the_variance_is_split_off_and_one_may_be_missing(prior: DeepFloydPrior, folder: Path, tmp_path: Path):
    x, text = draw(2, 3, 16, 16), prior.encode_text([PROMPT, ""])
    with torch.no_grad():
        output = prior.unet(x, T, encoder_hidden_states=text).sample
    assert output.shape[1] == 6
    torch.testing.assert_close(prior.predict_noise(x, T, Condition(text)), output[:, :3])
    plain = load(make_tiny_deepfloyd(tmp_path / "plain", out_channels=3))
    assert plain.predict_noise(x, T, Condition(text)).shape == x.shape


def test_batch_size_splits_rows_and_changes_nothing(prior: DeepFloydPrior, folder: Path):
    x, text = draw(5, 3, 16, 16), draw(5, 77, 12, seed=1)
    split = load(folder, batch_size=2)
    torch.testing.assert_close(
        split.predict_noise(x, T, Condition(text)), prior.predict_noise(x, T, Condition(text)), rtol=0, atol=1e-5
    )
    assert (split.calls, split.samples) == (3, 5) and (prior.calls, prior.samples) == (1, 5)


def test_the_codec_only_changes_the_range(prior: DeepFloydPrior):
    pictures = torch.rand((2, 3, 10, 12), generator=torch.Generator().manual_seed(0))
    particles = prior.encode(pictures)
    torch.testing.assert_close(particles, pictures * 2 - 1)
    torch.testing.assert_close(prior.decode(particles), pictures)
    assert prior.encode(pictures.double()).dtype == prior.decode(particles.double()).dtype == torch.float32
    wild = torch.tensor([-3.0, 3.0, float("nan"), float("inf")]).view(4, 1, 1, 1).expand(4, 3, 2, 2)
    decoded = prior.decode(wild)
    assert (decoded[0] == 0).all() and (decoded[1] == 1).all() and decoded[2:].isnan().all()


def test_pictures_and_latents_are_refused_where_they_would_be_misread(prior: DeepFloydPrior):
    text, x = prior.encode_text([PROMPT]), draw(1, 3, 16, 16)
    with pytest.raises(ValueError, match="has no image input: use 'toy'"):
        prior.encode_condition(torch.rand(1, 3, 16, 16))
    with pytest.raises(ValueError, match="text-to-image model and has no image input"):
        prior.predict_noise(x, T, Condition(text, x))
    with pytest.raises(ValueError, match="particles of 4 channels.*pictures of 3 channels"):
        prior.predict_noise(draw(1, 4, 16, 16), T, Condition(text))


def test_score_distillation_runs_on_pixels(prior: DeepFloydPrior):
    step = latent_score_distiller(prior, guidance_scale=20.0)
    result = step(prior.encode(torch.rand(2, 3, 16, 16)), target_of(prior, 2), torch.Generator().manual_seed(0))
    assert result.gradient.shape == (2, 3, 16, 16) and result.network_samples == 4


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_ends_at_the_networks_edge(prior: DeepFloydPrior, folder: Path, dtype: Any):
    half = load(folder, dtype=dtype)
    x, text = draw(2, 3, 16, 16), half.encode_text([PROMPT, ""])
    assert text.dtype == torch.float32
    torch.testing.assert_close(text, prior.encode_text([PROMPT, ""]), rtol=0.1, atol=0.05)
    noise = half.predict_noise(x.double(), T, Condition(text))
    assert noise.dtype == torch.float32
    torch.testing.assert_close(noise, prior.predict_noise(x, T, Condition(text)), rtol=0.1, atol=0.1)


def test_in_float16_the_wide_layers_of_t5_stay_exact(prior: DeepFloydPrior, folder: Path):
    """They overflow: transformers keeps them in float32, too."""
    half, exact = load(folder, dtype="fp16").text_encoder.model, dict(prior.text_encoder.model.named_parameters())
    for name, weight in half.named_parameters():
        if ".wo." in name:
            assert torch.equal(weight, exact[name])
        else:
            assert weight.dtype == torch.float16
    assert sum(".wo." in name for name in exact) == 2


def test_what_is_cut_off_is_said(prior: DeepFloydPrior, caplog: pytest.LogCaptureFixture):
    room = 76
    with caplog.at_level(logging.WARNING, "csd_nerf.priors"):
        whole = prior.encode_text([" ".join(["red"] * room)])
        assert not caplog.records
        torch.testing.assert_close(prior.encode_text([" ".join(["red"] * room + ["Blue", "hat"])]), whole)
    assert [record.getMessage().endswith("cut off: 'blue hat'") for record in caplog.records] == [True]
