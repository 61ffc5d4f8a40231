"""Measures of panoramas and videos on pictures whose scores are known."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from csd_nerf.bench.picture_measure import measure_panorama, measure_video, object_agreement, seam_visibility
from csd_nerf.bench.scenes import instruction
from csd_nerf.toyworld.cameras import arc_cameras
from csd_nerf.toyworld.panorama import PanoramaRenderer, panorama_from_seed
from csd_nerf.toyworld.render import Renderer
from csd_nerf.toyworld.scene import Scene, scene_from_seed
from csd_nerf.toyworld.trace import trace

LEVEL = 1 / 255
FLAT = torch.zeros(3, 16, 64)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """LPIPS is measured elsewhere."""
    monkeypatch.setattr("csd_nerf.bench.measure.SMALLEST_FOR_LPIPS", 1000)


def slope(per_pixel: float) -> Tensor:
    """A change that grows evenly to the right."""
    return (per_pixel * torch.arange(64.0)).expand(3, 16, 64)


def step(height: float, at: int = 32) -> Tensor:
    """A change that jumps."""
    return (height * (torch.arange(64) >= at)).float().expand(3, 16, 64)


def seam(change: Tensor, true: Tensor = FLAT, patch: int = 32, gap: int = 2) -> float:
    found = seam_visibility(change, true, patch, gap)
    assert found is not None
    return found


@pytest.mark.parametrize("change", [FLAT, FLAT + 0.7, slope(0.01), -slope(0.003)])
def test_no_seam_in_a_smooth_change(change: Tensor):
    assert seam(change) == pytest.approx(1, abs=1e-4)


def test_a_step_at_a_border_in_closed_form():
    """The jump of a slope is gap * slope everywhere, and the step comes on top of it at the border alone."""
    for height, per_pixel, gap in ((0.2, 0.01, 2), (0.05, 0.002, 3), (0.4, 0.0, 2)):
        expected = (height + gap * per_pixel + LEVEL) / (gap * per_pixel + LEVEL)
        assert seam(slope(per_pixel) + step(height), gap=gap) == pytest.approx(expected, rel=1e-4)
    assert seam(slope(0.01) + step(0.2), patch=20) < 1.1, "no border of such patches is there"


def test_borders_one_above_the_other_count_too():
    tall = step(0.2).transpose(1, 2)
    assert seam(tall, torch.zeros(3, 64, 16)) == pytest.approx(seam(step(0.2)))
    both = torch.zeros(3, 64, 64)
    both[:, 32:] += 0.2
    expected = (0.1 + LEVEL) / LEVEL  # one of two borders has a seam of 0.2
    assert seam(both, torch.zeros(3, 64, 64)) == pytest.approx(expected, rel=1e-4)


def test_against_loops():
    generator = torch.Generator().manual_seed(0)
    change, true = torch.randn(3, 16, 64, generator=generator), torch.zeros(3, 16, 64)
    true[:, 4] += torch.randn(64, generator=generator)
    gap, rows = 3, [y for y in range(16) if y != 4]

    def jump(y: int, b: int) -> float:
        right, left = change[:, y, b : b + gap].mean(1), change[:, y, b - gap : b].mean(1)
        return float((right - left).abs().mean())

    near = [b for b in range(gap, 64 - gap + 1) if 2 * gap <= abs(b - 32) <= 4 * gap]
    at = sum(jump(y, 32) for y in rows) / 15
    around = sum(jump(y, b) for y in rows for b in near) / (15 * len(near))
    assert seam(change, true, gap=gap) == pytest.approx((at + LEVEL) / (around + LEVEL), rel=1e-4)


def test_edges_that_the_true_edit_has_hide_no_seam():
    edges = 0.5 * step(1.0, at=27)
    edges[:, 8:] = 0
    assert seam(step(0.2) + edges, edges) == pytest.approx(seam(step(0.2)[:, 8:], FLAT[:, 8:]))
    assert seam(step(0.2) + edges) < 0.5 * seam(step(0.2) + edges, edges)
    assert seam_visibility(step(0.2), step(0.5, at=30), 32, 2) is None, "an edge at the only border, in every row"
    with pytest.raises(ValueError, match="no border"):
        seam_visibility(FLAT, FLAT, 64, 2)


PANORAMA = panorama_from_seed(1_000_001, 3)
HATS = instruction("give it a cap", PANORAMA.scenes[0], PANORAMA.scenes[1:])


@pytest.fixture(scope="module")
def panorama() -> tuple[Tensor, Tensor]:
    """The source, and every cap on all objects."""
    renderer = PanoramaRenderer(samples=1)
    truths = torch.stack([renderer.edited(PANORAMA, edit) for edit in HATS.edits])
    return renderer.render(PANORAMA)[None], truths[:, None]


def test_a_true_panorama_is_perfect(panorama: tuple[Tensor, Tensor]):
    source, truths = panorama
    found = measure_panorama(truths[2], source, source, truths)
    assert found.nearest == 2 and found.measures["PSNR"] == 100
    assert found.measures["edit strength"] == pytest.approx(1)
    assert found.measures["seam visibility"] == found.measures["true seam visibility"] == pytest.approx(1, abs=0.15)
    patchy = truths[2] + 0.05 * (torch.arange(192) // 64 % 2)
    assert measure_panorama(patchy, source, source, truths).measures["seam visibility"] > 5


def test_objects_agree_if_they_show_one_colour(panorama: tuple[Tensor, Tensor]):
    source, truths = panorama
    colours = [edit.colour or "" for edit in HATS.edits]
    assert object_agreement(truths[1], source, truths, colours).choices == (colours[1],) * 3
    mixed = torch.cat([truths[1][..., :64], truths[4][..., 64:128], source[..., 128:]], dim=-1)
    found = object_agreement(mixed, source, truths, colours)
    assert found.choices == (colours[1], colours[4], None)
    assert found.share == pytest.approx(1 / 3) and found.edited == pytest.approx(2 / 3)


def test_a_choice_is_one_that_changes_every_object():
    first, *others = PANORAMA.scenes
    asked = instruction("change its colour", first, others)
    assert {edit.colour for edit in asked.edits}.isdisjoint(scene.colour for scene in PANORAMA.scenes)
    assert len(asked.edits) == 6
    for name in ("recolour", "material", "snow", "night", "hat", "sketch"):
        for edit in instruction(name, first, others).edits:
            after = PANORAMA.edited(edit).scenes
            assert edit.style or all(a != b for a, b in zip(after, PANORAMA.scenes, strict=True))
    with pytest.raises(ValueError, match="some object shows already"):
        instruction(f"make it {others[0].colour}", first, others)


SCENE = replace(scene_from_seed(1_000_001), material="matte")
CAMERAS = arc_cameras(4, 3, 40, sweep=20.0)
RED = instruction("make it purple", SCENE)


def unlit(scene: Scene) -> Tensor:
    """Frames in which every point of the world has one colour, a smooth pattern of its position."""
    buffer = trace(scene.table, CAMERAS, scene.sun_azimuth, samples=1)
    fade = torch.exp(-buffer.position.square().sum(dim=0) / 4)  # far away a pixel sees too much of any pattern
    pattern = 0.5 + 0.4 * fade * torch.sin(2 * buffer.position)
    return pattern.reshape(3, 4, 40, 40).transpose(0, 1)


def test_what_is_painted_on_the_world_has_no_warp_error():
    source, truth = unlit(SCENE) * 0.5, unlit(RED.edits[0].scene(SCENE))
    good = measure_video(truth, source, source, truth[None], SCENE, RED, CAMERAS).measures
    assert good["warp error"] == good["true warp error"] < 0.003
    flicker = truth + 0.1 * (torch.arange(4) % 2)[:, None, None, None]
    assert measure_video(flicker, source, source, truth[None], SCENE, RED, CAMERAS).measures["warp error"] == (
        pytest.approx(0.1, abs=0.005)
    ), "every pair of consecutive frames differs by 0.1, and both ways are compared"
    still = truth[:1].expand_as(truth)
    moved = measure_video(still, source, source, truth[None], SCENE, RED, CAMERAS).measures["warp error"]
    assert moved is not None and good["warp error"] is not None
    assert moved > 4 * good["warp error"], "what stands still while the camera moves is not on the world"


def test_the_true_edit_is_as_steady_as_light_allows():
    renderer = Renderer(CAMERAS, samples=1)
    source, truth = renderer.render(SCENE), renderer.edited(SCENE, RED.edits[0])
    found = measure_video(truth, source, source, truth[None], SCENE, RED, CAMERAS).measures
    assert found["PSNR"] == 100 and found["warp error"] == found["true warp error"] < 0.03
    assert found["colour spread"] < 0.01
    late = truth.clone()
    late[2:] = source[2:]
    assert measure_video(late, source, source, truth[None], SCENE, RED, CAMERAS).measures["warp error"] > 0.04
