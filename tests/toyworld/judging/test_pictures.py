"""The judge names true pictures that it has never seen, says what wrong ones show, and sees nothing on bare ground."""

from dataclasses import replace

import pytest
import torch

from csd_nerf.toyworld.cameras import random_cameras
from csd_nerf.toyworld.captions import view_word
from csd_nerf.toyworld.judging.pictures import CaptionScene, PictureJudge, PictureVerdict, caption_scenes
from csd_nerf.toyworld.render import Renderer
from csd_nerf.toyworld.scene import HELD_OUT_SEEDS, Scene


def seen_from_the_side(seed: int) -> list[CaptionScene]:
    """Different objects and colours, on one ground and from one side: one bank of true pictures for all."""
    names = (("mushroom", "red"), ("car", "blue"), ("duck", "yellow"), ("tree", "green"))
    asked = []
    for name, colour in names:
        while view_word((cameras := random_cameras(1, seed, 32)).azimuth[0], cameras.elevation[0]) != "side":
            seed += 1
        asked.append(CaptionScene(Scene(seed, name, (0.3, -0.2, 0.5, 0.1), colour, "meadow"), cameras))
        seed += 1
    return asked


@pytest.fixture(scope="module")
def asked() -> list[CaptionScene]:
    return seen_from_the_side(HELD_OUT_SEEDS + 500)


@pytest.fixture(scope="module")
def true(asked: list[CaptionScene]) -> torch.Tensor:
    return torch.cat([Renderer(one.cameras).render(one.scene) for one in asked])


def test_true_wrong_and_empty_pictures(asked: list[CaptionScene], true: torch.Tensor):
    recoloured = torch.cat([Renderer(one.cameras).render(replace(one.scene, colour="purple")) for one in asked])
    bare = true[:, :, :, :1].expand_as(true)  # the leftmost column shows sky and ground alone
    steps = []
    verdicts = PictureJudge(cameras=8)(
        torch.cat([true, true.roll(1, 0), recoloured, bare]), asked * 4, lambda *done: steps.append(done)
    )
    right, swapped, purple, empty = (verdicts[index : index + 4] for index in range(0, 16, 4))
    assert all(verdict.right(one.scene) for verdict, one in zip(right, asked, strict=True))
    assert [verdict.object for verdict in swapped] == [asked[i - 1].scene.object for i in range(4)]
    assert not any(verdict.right(one.scene) for verdict, one in zip(swapped, asked, strict=True))
    assert [(verdict.object, verdict.colour) for verdict in purple] == [(o.scene.object, "purple") for o in asked]
    assert [verdict.object for verdict in empty] == [None] * 4
    assert max(verdict.distance for verdict in right) < min(verdict.distance for verdict in swapped) + 0.1
    assert steps == [(16, 16)]


def test_captions_are_of_held_out_scenes_and_name_a_colour():
    asked = caption_scenes(30, size=32)
    assert len({one.scene.seed for one in asked}) == 30
    for one in asked:
        assert one.scene.held_out and one.scene.colour in one.words and one.scene.object in one.words
        assert one.words.endswith(f"{one.view} view")


def test_nothing_is_no_right_answer(asked: list[CaptionScene]):
    assert not PictureVerdict(None, None, 0.0).right(asked[0].scene)
