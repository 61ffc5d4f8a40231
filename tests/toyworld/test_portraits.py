"""Pictures of one kind of thing: of their seed, of what was asked."""

import pytest
import torch

from csd_nerf.toyworld.portraits import Portraits, draw_portraits


def test_a_picture_is_that_of_its_seed_and_shows_the_colour() -> None:
    red, blue = (Portraits(colours=(colour,), backgrounds=("studio",), size=16) for colour in ("red", "blue"))
    pictures = draw_portraits(red, 3, first_seed=5, workers=0)
    assert pictures.shape == (3, 3, 16, 16) and pictures.dtype == torch.uint8
    assert torch.equal(pictures[1], red.picture(6)) and not torch.equal(pictures[0], pictures[1])
    warm = (pictures[:, 0].float() - pictures[:, 2].float()).mean()
    cold = draw_portraits(blue, 3, first_seed=5, workers=0).float()
    assert float(warm) > 5 and float((cold[:, 0] - cold[:, 2]).mean()) < -5


def test_words_that_are_not_known_are_named() -> None:
    with pytest.raises(ValueError, match="objects=dragon: choose from mushroom"):
        Portraits(objects=("dragon", "cat"))
    with pytest.raises(ValueError, match="colours=: choose from red"):
        Portraits(colours=())
