"""Measures on pictures whose scores are known: the truth itself, the source itself, and what lies between."""

import pytest
import torch
from torch import Tensor

from csd_nerf.bench.compute import held_out_cameras
from csd_nerf.bench.measure import measure, nearest_truth, true_geometry
from csd_nerf.bench.scenes import instruction
from csd_nerf.metrics import PinholeViews
from csd_nerf.toyworld.cameras import orbit_cameras
from csd_nerf.toyworld.render import Renderer
from csd_nerf.toyworld.scene import scene_from_seed
from csd_nerf.toyworld.trace import GROUND, trace

SCENE = scene_from_seed(1_000_001)
CAMERAS = held_out_cameras({"views": 4, "held_out": 4, "size": 40})
ASKED = instruction("give it a top hat", SCENE)


@pytest.fixture(scope="module")
def pictures() -> tuple[Tensor, Tensor]:
    """The source, and every hat on it."""
    renderer = Renderer(CAMERAS)
    return renderer.render(SCENE), torch.stack([renderer.edited(SCENE, edit) for edit in ASKED.edits])


def geometry(index: int) -> PinholeViews:
    return true_geometry(ASKED.edits[index].scene(SCENE), CAMERAS)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """LPIPS is measured elsewhere."""
    monkeypatch.setattr("csd_nerf.bench.measure.SMALLEST_FOR_LPIPS", 1000)


def score(renders: Tensor, pictures: tuple[Tensor, Tensor]) -> dict[str, float]:
    """All measures of an ambiguous edit, none of which is undefined here."""
    source, truths = pictures
    found = measure(renders, source, source, truths, geometry).measures
    assert None not in found.values()
    return {name: value for name, value in found.items() if value is not None}


def test_a_true_edit_is_perfect(pictures: tuple[Tensor, Tensor]):
    found = score(pictures[1][3], pictures)
    assert [nearest_truth(pictures[1][i], pictures[1]) for i in range(8)] == list(range(8))
    assert found["PSNR"] == 100 and found["SSIM"] == pytest.approx(1)
    assert found["edit strength"] == pytest.approx(1)
    assert 0 < found["change outside"] < 0.02, "shadows too faint to count as edited"
    for name in ("colour spread", "warp error"):
        assert found[name] == found[f"true {name}"]


def test_doing_nothing_is_consistent_and_no_edit(pictures: tuple[Tensor, Tensor]):
    found = score(pictures[0], pictures)
    assert found["edit strength"] == 0 and found["change outside"] == 0
    assert found["PSNR"] < 30


def test_views_that_disagree(pictures: tuple[Tensor, Tensor]):
    """A hat of another colour in every other view: worse than a true edit by both measures of consistency."""
    truths = pictures[1]
    mixed = truths[0].clone()
    mixed[::2] = truths[4][::2]
    found, true = score(mixed, pictures), score(truths[0], pictures)
    for name in ("colour spread", "warp error"):
        assert found[name] > 1.5 * true[name], name


def test_a_change_where_none_was_asked_for(pictures: tuple[Tensor, Tensor]):
    source, truths = pictures
    unasked = truths[0].clone()
    sky = (truths - source).abs().amax(dim=(0, 2)) < 0.001
    unasked += 0.2 * sky[:, None] * (unasked < 0.5)
    assert score(unasked, pictures)["change outside"] > 0.01


def test_an_edit_of_everything_has_no_outside(pictures: tuple[Tensor, Tensor]):
    source, _ = pictures
    found = measure(source, source, source, (1 - source)[None] * 0.2)
    assert "colour spread" not in found.measures and "warp error" not in found.measures
    everything = measure(source, source, torch.zeros_like(source), torch.ones_like(source)[None])
    assert everything.measures["change outside"] is None


def test_true_depth_is_where_the_rays_hit():
    views = true_geometry(SCENE, CAMERAS)
    assert views.depths.shape == (4, 40, 40)
    buffer = trace(SCENE.table, CAMERAS, SCENE.sun_azimuth, samples=1)
    height = buffer.position[2].reshape(4, 40, 40)
    ground = (buffer.part == GROUND).reshape(4, 40, 40) & (views.depths < 500)
    assert ground.any() and height[ground].abs().max() < 1e-3
    centre = CAMERAS.camera_to_world[2, :3, 3]
    pixel = views.depths[2, 39, 20]
    assert pixel == pytest.approx(float(centre[2] / -buffer.direction[2].reshape(4, 40, 40)[2, 39, 20]), rel=1e-4)
    level = true_geometry(SCENE, orbit_cameras([10.0], [0.0], 40))
    assert level.depths[0, 0].min() > 900, "the sky"
