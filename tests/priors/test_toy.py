"""The prior that the package carries, as a user gets it."""

import pytest
import torch

from csd_nerf.distill import Condition
from csd_nerf.priors import DiffusionPrior, load_prior


@pytest.fixture(scope="module")
def toy() -> DiffusionPrior:
    return load_prior("toy", device="cpu", offline=True)


def test_it_edits_pictures_of_its_size(toy: DiffusionPrior):
    assert toy.takes_image and toy.name == "toy"
    images = torch.rand(1, 3, toy.size, toy.size, generator=torch.Generator().manual_seed(0))
    latents = toy.encode(images)
    condition = Condition(toy.encode_text(["make it snow"]), toy.encode_condition(images))
    eps = toy.predict_noise(latents, torch.tensor(500), condition)
    assert eps.shape == latents.shape and torch.isfinite(eps).all()
    assert toy.decode(latents).shape == images.shape


@pytest.mark.parametrize("prompt", ["make it red", "give it a hat", "make it snow", "turn it into a pencil sketch"])
def test_it_knows_the_words_of_its_edits_and_no_tigers(toy: DiffusionPrior, prompt: str):
    assert toy.unknown_words(prompt) == ()
    assert toy.unknown_words(f"{prompt}, tiger") == ("tiger",)
