"""The trainers on random pictures and tiny networks: resume, export, the whole run."""

import itertools
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline  # pyright: ignore[reportPrivateImportUsage]
from PIL import Image

from csd_nerf.toyworld.training import train_prior
from csd_nerf.toyworld.training.autoencoder import encode_moments, latent_statistics, to_signed
from csd_nerf.toyworld.training.data import prepare_edits, read_edits, read_photos
from csd_nerf.toyworld.training.denoiser import Denoiser, make_latent_pairs, make_loss
from csd_nerf.toyworld.training.export import export_prior
from csd_nerf.toyworld.training.loop import LoopSettings, TrainingLoop
from csd_nerf.toyworld.training.networks import (
    build_autoencoder,
    build_denoiser,
    build_scheduler,
    build_text_encoder,
    scaling_factor,
)
from csd_nerf.toyworld.training.sampling import relative_errors, sample_edits
from csd_nerf.toyworld.training.settings import SIZES
from csd_nerf.toyworld.training.tokenizer import load_tokenizer, write_tokenizer
from tests.toyworld.conftest import TINY

pytestmark = pytest.mark.usefixtures("one_thread_and_tiny_networks")


def make_networks(settings, data, tmp_path):
    torch.manual_seed(0)
    folder = tmp_path / "tokenizer"
    write_tokenizer(folder, data.texts, TINY.text_length)
    tokenizer = load_tokenizer(folder)
    autoencoder = build_autoencoder(TINY).eval()
    text_encoder = build_text_encoder(TINY, tokenizer)
    denoiser = Denoiser(build_denoiser(TINY), text_encoder)
    moments = encode_moments(autoencoder, data.images)
    autoencoder.register_to_config(scaling_factor=1 / latent_statistics(moments)["std"])
    return autoencoder, denoiser, tokenizer, moments


def test_held_out_pictures_are_of_the_first_shard_and_pairs_point_right(data_folder):
    data = read_edits(data_folder, held_out=0.3)
    assert data.held_out.tolist() == [True] * 5 + [False] * 11
    assert data.pairs[:, 0].tolist() == [0] * 7 + [8] * 7
    # The source of every edit of the first shard is held out.
    assert data.held_out_pairs.tolist() == [True] * 7 + [False] * 7


def test_pictures_of_another_size_are_refused(settings, monkeypatch):
    monkeypatch.setitem(SIZES, "cpu", replace(TINY, image_size=64))
    with pytest.raises(ValueError, match="32 x 32"):
        prepare_edits(settings)


def test_a_missing_data_set_is_made(settings, monkeypatch, tmp_path):
    asked = []

    def write(folder, scenes, recipe, progress):
        asked.append((folder, scenes, recipe.size))
        progress(1, 1)

    monkeypatch.setattr("csd_nerf.toyworld.training.data.write_dataset", write)
    (settings.data / "DONE").unlink()
    prepare_edits(replace(settings, scenes=7))
    assert asked == [(settings.data, 7, 32)]


def test_photos_are_cropped_to_the_side(tmp_path):
    Image.new("RGB", (90, 50), "red").save(tmp_path / "a.jpg")
    Image.new("L", (20, 40)).save(tmp_path / "b.png")
    Image.new("RGB", (60, 60), "blue").save(tmp_path / "0.jpg")  # the first of all is held out
    assert read_photos(tmp_path, 32, crops=2).shape == (4, 32, 32, 3)
    assert read_photos(None, 32).shape == (0, 32, 32, 3)


def test_latent_statistics_of_a_normal_law():
    mean = torch.randn(2, 50, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * 3
    statistics = latent_statistics(torch.cat([mean, torch.full_like(mean, -2 * np.log(2))], dim=2))
    assert statistics["std"] == pytest.approx((9 + 0.25) ** 0.5, rel=0.02)
    assert statistics["kurtosis"] == pytest.approx(3, rel=0.05)
    assert statistics["posterior_std"] == pytest.approx(0.5)


def test_a_resumed_run_is_an_uninterrupted_run(settings, tmp_path):
    data = read_edits(settings.data, settings.held_out)

    def run(folder, stops):
        folder.mkdir()
        for stop in stops:
            autoencoder, denoiser, tokenizer, moments = make_networks(settings, data, tmp_path)
            pairs = make_latent_pairs(data, moments, scaling_factor(autoencoder), tokenizer)
            loop_settings = LoopSettings(
                "denoiser", folder, minutes=1.0, rate=1e-2, log_every=2, checkpoint_minutes=0.03
            )
            # A clock that counts its own readings: one second per step.
            loop = TrainingLoop(denoiser, loop_settings, clock=itertools.count(0.0).__next__)
            loop.run(make_loss(denoiser, pairs, build_scheduler(), settings), dict, lambda step: None, max_steps=stop)
        return torch.load(folder / "denoiser.pt", weights_only=True)

    whole, parts = run(tmp_path / "whole", [6]), run(tmp_path / "parts", [2, 4, 6])
    assert whole["step"] == parts["step"] == 6 and whole["used"] == parts["used"] == 6
    assert torch.equal(whole["generator"], parts["generator"])
    for name, value in whole["networks"].items():
        assert torch.equal(value, parts["networks"][name]), name
    for a, b in zip(whole["average"]["average"], parts["average"]["average"], strict=True):
        assert torch.equal(a, b)
    assert [row["rate"] for row in whole["rows"]] == [row["rate"] for row in parts["rows"]]


def test_a_loss_that_is_not_finite_stops_with_the_step(tmp_path):
    layer = torch.nn.Linear(2, 2)
    loop = TrainingLoop(layer, LoopSettings("broken", tmp_path, minutes=1.0, rate=1e-2))
    with pytest.raises(FloatingPointError, match="step 0"):
        loop.run(lambda generator: layer.weight.sum() * float("nan"), dict, lambda step: None)


def test_the_exported_folder_samples_the_same_picture_in_diffusers(settings, tmp_path):
    data = read_edits(settings.data, settings.held_out)
    autoencoder, denoiser, tokenizer, _ = make_networks(settings, data, tmp_path)
    denoiser.eval()
    folder = tmp_path / "export"
    for _ in range(2):
        # The second export replaces the first.
        export_prior(folder, autoencoder, denoiser, tmp_path / "tokenizer", build_scheduler(), half=False)
    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.vae_scale_factor == 4 and pipeline.scheduler.config.steps_offset == 1
    assert not pipeline.scheduler.config.clip_sample and not pipeline.scheduler.config.set_alpha_to_one

    pictures = data.images[:1]
    tokens = torch.tensor(tokenizer(["make it red", ""], padding="max_length", max_length=12)["input_ids"])
    ours = sample_edits(
        autoencoder, denoiser, build_scheduler(), pictures, tokens[:1], tokens[1], seed=3, steps=3, text_guidance=5.0
    )
    result: Any = pipeline(
        "make it red",
        image=(to_signed(pictures) + 1) / 2,
        latents=torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3)),
        num_inference_steps=3,
        guidance_scale=5.0,
        image_guidance_scale=1.5,
        output_type="pt",
    )
    theirs = result.images
    assert (theirs.permute(0, 2, 3, 1) * 255 - ours.float()).abs().max() <= 1


def test_half_precision_export_leaves_the_trained_weights_alone(settings, tmp_path):
    data = read_edits(settings.data, settings.held_out)
    autoencoder, denoiser, _, _ = make_networks(settings, data, tmp_path)
    before = {name: value.clone() for name, value in denoiser.state_dict().items()}
    export_prior(tmp_path / "export", autoencoder, denoiser, tmp_path / "tokenizer", build_scheduler(), half=True)
    for name, value in denoiser.state_dict().items():
        assert torch.equal(value, before[name]), name
    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(tmp_path / "export", local_files_only=True)
    assert pipeline.unet.dtype == pipeline.vae.dtype == pipeline.text_encoder.dtype == torch.float32


def test_relative_error_is_one_for_copying_and_zero_for_the_truth():
    a, b = torch.zeros(2, 4, 4, 3, dtype=torch.uint8), torch.full((2, 4, 4, 3), 9, dtype=torch.uint8)
    assert relative_errors(a, a, b, ["snow", "hat"]) == {"snow": 1.0, "hat": 1.0}
    assert relative_errors(a, b, b, ["snow", "hat"]) == {"snow": 0.0, "hat": 0.0}
    assert relative_errors(a, b, a, ["identity", "identity"]) == {}


def test_the_whole_training_makes_a_prior_with_a_card(settings):
    folder = train_prior(settings)
    assert folder == settings.output / "export"
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionInstructPix2PixPipeline"
    card = (folder / "CARD.md").read_text()
    assert "16 pictures, 14 edit pairs" in card and "| snow | 6 |" in card
    assert (folder / "samples.png").stat().st_size < 400_000 and (folder / "loss.png").exists()
    header = (settings.output / "denoiser.csv").read_text().splitlines()[0].split(",")
    assert {"step", "minutes", "rate", "train", "held_out", "snow", "recolour"} <= set(header)
    # A finished run resumes as finished: nothing is trained again.
    before = (settings.output / "denoiser.csv").read_text()
    train_prior(settings)
    assert (settings.output / "denoiser.csv").read_text() == before
