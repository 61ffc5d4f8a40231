"""Known hats are named, in every colour and kind; no hat is none; what is between two colours is not clear."""

from dataclasses import replace

import pytest
import torch

from csd_nerf.toyworld.cameras import orbit_cameras
from csd_nerf.toyworld.judging.hats import HatVerdict, clear_colours, hat_judge
from csd_nerf.toyworld.render import Renderer
from csd_nerf.toyworld.scene import COLOURS, HAT_KINDS, Hat, demo_scene

SCENE = demo_scene()


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(orbit_cameras([20.0], [20.0], size=48))


def hatted(renderer: Renderer, kind: str, colour: str) -> torch.Tensor:
    return renderer.render(replace(SCENE, hat=Hat(kind, colour)))


def test_every_hat_is_known_though_it_is_moved_darkened_and_noisy(renderer: Renderer):
    judge, noise = hat_judge(SCENE, renderer), torch.Generator().manual_seed(0)
    for kind in HAT_KINDS:
        true = torch.cat([hatted(renderer, kind, colour) for colour in COLOURS])
        worse = 0.9 * true.roll(1, 3) + 0.03 * torch.randn(true.shape, generator=noise)
        for pictures in (true, worse):
            verdicts = judge(pictures)
            assert [verdict.colour for verdict in verdicts] == list(COLOURS)
            assert [verdict.kind for verdict in verdicts] == [kind] * len(COLOURS)
            assert all(verdict.clear for verdict in verdicts)
    assert clear_colours(judge(true)) == sorted(COLOURS)


def test_no_hat(renderer: Renderer):
    judge, bare = hat_judge(SCENE, renderer), renderer.render(SCENE)
    for picture in (bare, 0.9 * bare, bare.roll(1, 3)):
        (verdict,) = judge(picture)
        assert verdict == HatVerdict(None, None, 1.0) and verdict.words == "no hat"
    assert clear_colours(judge(bare)) == []


def test_a_colour_between_two_is_not_clear(renderer: Renderer):
    one, other = hatted(renderer, "cap", "orange"), hatted(renderer, "cap", "yellow")
    (verdict,) = hat_judge(SCENE, renderer)((one + other) / 2)
    assert verdict.colour is not None and not verdict.clear and verdict.words.endswith("?")
    assert clear_colours([verdict]) == []


def test_a_hidden_hat_cannot_be_judged():
    away = Renderer(orbit_cameras([0.0], [20.0], size=32, distance=0.05))  # inside the object
    with pytest.raises(ValueError, match="hidden"):
        hat_judge(SCENE, away)
