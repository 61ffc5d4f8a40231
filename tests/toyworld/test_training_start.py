"""Going on from a trained prior: its autoencoder and words stay, UNet and text encoder begin where it stopped."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from csd_nerf.toyworld.training import train_prior
from csd_nerf.toyworld.training.history import TrainingHistory, read_history
from csd_nerf.toyworld.training.settings import SIZES
from tests.toyworld.conftest import TINY

pytestmark = pytest.mark.usefixtures("one_thread_and_tiny_networks")


def weights(prior, part):
    (file,) = (prior / part).glob("*.safetensors")
    return load_file(file)


@pytest.fixture
def prior(settings):
    return train_prior(settings)


def test_a_training_goes_on_from_a_prior(settings, prior, tmp_path):
    again = replace(settings, output=tmp_path / "again", start_from=prior, denoiser_rate=1e-9, half_weights=False)
    folder = train_prior(again)
    for name, value in weights(prior, "vae").items():
        assert torch.equal(value.float(), weights(folder, "vae")[name]), "the autoencoder is frozen"
    for part in ("unet", "text_encoder"):
        for name, value in weights(prior, part).items():
            # At this rate nothing moves: what is seen is where the training began.
            assert torch.allclose(value.float(), weights(folder, part)[name], atol=1e-6), (part, name)
    assert (folder / "tokenizer/vocab.json").read_bytes() == (prior / "tokenizer/vocab.json").read_bytes()
    assert (folder / "vae/config.json").read_bytes() == (prior / "vae/config.json").read_bytes(), "the scale stays"
    before, after = read_history(prior), read_history(folder)
    assert (before.trainings, after.trainings) == (1, 2)
    assert after.denoiser_samples > before.denoiser_samples > 0 and after.autoencoder == before.autoencoder != ""
    assert f"2; before the last: {before.denoiser_samples} samples" in (folder / "CARD.md").read_text()


def test_a_trained_prior_goes_on_more_gently(settings, tmp_path):
    fresh = replace(settings, denoiser_rate=None)
    assert replace(fresh, start_from=tmp_path).denoiser_peak < fresh.denoiser_peak
    assert replace(fresh, start_from=tmp_path, denoiser_rate=0.5).denoiser_peak == 0.5


def test_a_prior_without_history_counts_from_here(tmp_path):
    assert read_history(tmp_path) == read_history(None) == TrainingHistory()


def test_words_that_the_prior_does_not_know_are_refused(settings, prior, tmp_path, data_folder):
    path = data_folder / "00001.npz"
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays["captions"] = np.array([f"a purple {caption}" for caption in arrays["captions"]])
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match="does not know 1 of the data's words .purple."):
        train_prior(replace(settings, output=tmp_path / "again", start_from=prior))


def test_a_prior_of_another_size_is_refused(settings, prior, tmp_path, monkeypatch):
    monkeypatch.setitem(SIZES, "cpu", replace(TINY, autoencoder_channels=(8, 16, 8)))
    with pytest.raises(ValueError, match="those of another network than --size asks for"):
        train_prior(replace(settings, output=tmp_path / "again", start_from=prior))


def test_a_folder_that_is_no_prior_is_refused_before_anything_is_made(settings, tmp_path):
    with pytest.raises(ValueError, match="--start-from .* has no vae, unet, text_encoder, tokenizer"):
        train_prior(replace(settings, start_from=tmp_path))
    assert not settings.output.exists()
