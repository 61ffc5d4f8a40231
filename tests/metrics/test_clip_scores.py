import math

import pytest
import torch

from csd_nerf.metrics import (
    ImageTextEncoder,
    depth_pictures,
    directional_similarity,
    image_consistency,
    image_similarity,
    r_precision,
    text_similarity,
)
from tests.metrics.fake_encoder import ColourEncoder, plain

RED, GREEN, BLUE, YELLOW = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0, 0.0)
encoder = ColourEncoder()


def test_the_fake_is_an_encoder():
    assert isinstance(encoder, ImageTextEncoder)


def test_direction_of_the_words():
    """With, against, across and without the words' direction, red to green."""
    sources, edited = plain(RED, GREEN, RED, RED), plain(GREEN, RED, BLUE, RED)
    score = directional_similarity(encoder, sources, edited, "a red ball", "a ball in green")
    assert score.values == pytest.approx([1, -1, 0.5, 0], abs=1e-6)
    assert score.better == "higher" and score.note == "colours"


def test_direction_does_not_depend_on_the_size_of_the_change():
    sources, edited = plain(RED), plain((1.0, 1e-3, 0.0))
    tangent = directional_similarity(encoder, sources, edited, "red", "green").values[0]
    assert tangent == pytest.approx(math.sqrt(0.5), abs=1e-3)


def test_texts_of_one_meaning_have_no_direction():
    with pytest.raises(ValueError, match="mean the same to colours"):
        directional_similarity(encoder, plain(RED), plain(GREEN), "red", "a red")


def test_image_similarity_is_the_cosine():
    score = image_similarity(encoder, plain(RED, RED, RED), plain(RED, GREEN, YELLOW))
    assert score.values == pytest.approx([1, 0, math.sqrt(0.5)])


def test_pairs_must_be_pairs():
    with pytest.raises(ValueError, match="2 pictures before the edit, but 1 after"):
        image_similarity(encoder, plain(RED, RED), plain(RED))


def test_consistency_of_consecutive_and_of_chosen_pictures():
    images = plain(RED, GREEN, YELLOW, YELLOW)
    assert image_consistency(encoder, images).values == pytest.approx([0, math.sqrt(0.5), 1])
    assert image_consistency(encoder, images, [(0, 2), (0, 1)]).values == pytest.approx([math.sqrt(0.5), 0])
    assert image_consistency(encoder, plain(RED, RED)).mean == pytest.approx(1)
    with pytest.raises(ValueError, match="at least two"):
        image_consistency(encoder, plain(RED))


def test_text_similarity():
    score = text_similarity(encoder, plain(RED, GREEN), "yellow", of="depth")
    assert score.values == pytest.approx([math.sqrt(0.5)] * 2) and score.name == "CLIP text similarity (depth)"


def test_r_precision_counts_hits():
    texts = ["red", "green", "blue"]
    images = plain(RED, (0.2, 0.9, 0.1), (0.9, 0.0, 0.8), BLUE)
    score = r_precision(encoder, images, [0, 1, 2, 0], texts)
    assert score.values == [1, 1, 0, 0] and score.mean == 0.5 and "3 texts" in score.note


def test_r_precision_of_a_tie_is_a_miss():
    assert r_precision(encoder, plain(YELLOW), [0], ["red", "green"]).values == [0]


@pytest.mark.parametrize(
    ("truths", "texts"), [([0], ["red", "red"]), ([0, 1], ["red", "green"]), ([2], ["red", "green"]), ([0], ["red"])]
)
def test_r_precision_refuses_what_is_no_retrieval_set(truths: list[int], texts: list[str]):
    with pytest.raises(ValueError):
        r_precision(encoder, plain(RED), truths, texts)


def test_depth_is_drawn_near_light_and_each_picture_by_itself():
    ramp = torch.linspace(2, 3, 100).reshape(1, 10, 10)
    drawn = depth_pictures(torch.cat([ramp, 10 * ramp, torch.full_like(ramp, 7)]))
    assert drawn.shape == (3, 3, 10, 10)
    assert torch.allclose(drawn[0], drawn[1], atol=1e-5)
    assert drawn[0, 0, 0, 0] == 1 and drawn[0, 0, -1, -1] == 0
    assert float(drawn[0, 0].flatten()[50]) == pytest.approx(1 - 48 / 95, abs=1e-3), "stretched from 2 to 97 of 99"
    assert (drawn[2] == 1).all()


def test_one_far_point_does_not_flatten_the_depth():
    depth = torch.linspace(2, 3, 400).reshape(1, 20, 20).clone()
    depth[0, 0, 0] = 1000.0
    assert depth_pictures(depth)[0, 0].std() > 0.25
