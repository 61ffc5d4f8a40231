"""True 3D edits: the same in all views, and only where they should be."""

from dataclasses import replace

import pytest
import torch

from csd_nerf.toyworld.cameras import Cameras, orbit_cameras, random_cameras, ring_cameras
from csd_nerf.toyworld.edits import edit_from_instruction
from csd_nerf.toyworld.render import Renderer, to_bytes
from csd_nerf.toyworld.scene import Hat, Scene, demo_scene
from csd_nerf.toyworld.shading import albedos, shade
from csd_nerf.toyworld.trace import GeometryBuffer, trace

SIZE = 32


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(orbit_cameras([20.0, 45.0], [15.0, 25.0], SIZE))


def project(points: torch.Tensor, cameras: Cameras, view: int, samples: int) -> torch.Tensor:
    """Index of the ray of one view that is closest to each point, -1 outside the picture."""
    pose = cameras.camera_to_world[view]
    local = pose[:3, :3].t() @ (points - pose[:3, 3:])
    column = ((local[0] / -local[2] * cameras.focal + cameras.width / 2) * samples).floor().long()
    row = ((-local[1] / -local[2] * cameras.focal + cameras.height / 2) * samples).floor().long()
    side = SIZE * samples
    inside = (row >= 0) & (row < side) & (column >= 0) & (column < side)
    return torch.where(inside, row * side + column, -1)


def test_points_project_onto_their_own_rays():
    scene, cameras = demo_scene(), orbit_cameras([70.0], [30.0], SIZE)
    buffer = trace(scene.table, cameras, 0.0, 1)
    hit = (buffer.part >= 0).nonzero()[:, 0]
    assert torch.equal(project(buffer.position[:, hit], cameras, 0, 1), hit)


@pytest.mark.parametrize("change", [{}, {"material": "wood", "painted": False}, {"hat": Hat("top hat", "blue")}])
def test_one_point_has_one_albedo_in_all_views(change):
    scene, samples = replace(demo_scene(), **change), 2
    cameras = orbit_cameras([20.0, 45.0], [15.0, 25.0], SIZE)
    first, second = (trace(scene.table, one, 0.0, samples) for one in cameras.split())
    hit = (first.part >= 0).nonzero()[:, 0]
    there = project(first.position[:, hit], cameras, 1, samples)
    hit, there = hit[there >= 0], there[there >= 0]
    near = (first.position[:, hit] - second.position[:, there]).norm(dim=0) < 0.03
    seen = near & (second.part[there] >= 0)
    assert seen.float().mean() > 0.4
    hit, there = hit[seen], there[seen]
    same = first.part[hit] == second.part[there]
    assert same.float().mean() > 0.9
    difference = (albedos(first, hit[same], scene) - albedos(second, there[same], scene)).abs().amax(0)
    assert difference.median() < 0.02
    assert (difference > 0.15).float().mean() < 0.05


def main_pixels(buffer: GeometryBuffer) -> torch.Tensor:
    """Pixels of one view where any ray meets a part in the object's own colour."""
    main = torch.tensor([part.paint == "main" for part in buffer.table.parts])
    mine = (buffer.part >= 0) & main[buffer.part.clamp_min(0)]
    s = buffer.samples
    return mine.reshape(buffer.height, s, buffer.width, s).any(3).any(1)


def test_recolouring_touches_the_main_part_only(renderer):
    scene = demo_scene()
    blue = edit_from_instruction("make it blue", scene)
    changed = (renderer.render(scene) - renderer.edited(scene, blue)).abs().amax(1) > 1e-6
    for view, camera in enumerate(renderer.cameras.split()):
        mine = main_pixels(trace(scene.table, camera, scene.sun_azimuth))
        assert not (changed[view] & ~mine).any()
        assert (changed[view] & mine).sum() > 0.9 * mine.sum()


def test_a_hat_appears_on_top_and_nothing_else_moves_up_there(renderer):
    scene = demo_scene()
    before = renderer.render(scene)
    after = renderer.edited(scene, edit_from_instruction("give it a green top hat", scene))
    changed = (before - after).abs().amax(1) > 0.1
    buffer = trace(scene.table, renderer.cameras.split()[0], scene.sun_azimuth)
    top = main_pixels(buffer).any(1).nonzero()[0, 0]
    above = changed[0, :top]
    assert above.sum() >= 8
    red, green, blue = after[0, :, :top][:, above].mean(1)
    assert green > red and green > blue


def test_snow_whitens_and_night_darkens(renderer):
    scene = demo_scene()
    day = renderer.render(scene)
    snow = renderer.edited(scene, edit_from_instruction("make it snow", scene))
    night = renderer.edited(scene, edit_from_instruction("make it night", scene))
    ground = slice(SIZE - 4, SIZE)
    assert snow[:, :, ground].mean() > 0.75 > day[:, :, ground].mean()
    assert (snow[:, :, ground].amax(1) - snow[:, :, ground].amin(1)).mean() < 0.12
    assert night.mean() < 0.6 * day.mean()
    assert (night[:, 2] - night[:, 0]).mean() > 0.03


def test_materials_differ_and_composing_edits_commutes(renderer):
    scene = demo_scene()
    looks = [renderer.render(replace(scene, material=m)) for m in ("matte", "metal", "wood", "stone")]
    for i, first in enumerate(looks):
        for second in looks[:i]:
            assert (first - second).abs().mean() > 0.004
    hat, night = (edit_from_instruction(words, scene, 1) for words in ("give it a hat", "make it night"))
    assert hat.scene(night.scene(scene)) == night.scene(hat.scene(scene))


def test_pictures_are_deterministic_and_in_range(renderer):
    scene = demo_scene()
    images = renderer.render(scene)
    assert images.shape == (2, 3, SIZE, SIZE)
    assert 0 <= images.min() and images.max() <= 1
    again = shade(trace(scene.table, renderer.cameras, scene.sun_azimuth), scene)
    assert torch.allclose(images, again, atol=1e-5)
    assert to_bytes(images).dtype == torch.uint8


def test_the_object_fills_the_picture():
    for name in ("car", "bear", "cat"):
        scene = Scene(0, name, (0.0, 0.0, 0.0, 0.0), "red", "studio", hat=Hat("party hat", "blue"))
        buffer = trace(scene.table, orbit_cameras([60.0], [12.0], SIZE), 0.0, 1)
        rows, columns = ((buffer.part >= 0).reshape(SIZE, SIZE).any(axis).nonzero()[:, 0] for axis in (1, 0))
        extent = max(rows[-1] - rows[0], columns[-1] - columns[0]) / SIZE
        assert 0.5 < extent < 0.97
        assert rows[0] >= 1, "hats stay in the picture"


def test_rings_go_all_around():
    cameras = ring_cameras(12, seed=3)
    gaps = sorted(cameras.azimuth)
    assert max(b - a for a, b in zip(gaps, [*gaps[1:], gaps[0] + 360], strict=True)) < 51
    assert min(cameras.elevation) >= 10 and max(cameras.elevation) <= 43
    assert torch.equal(random_cameras(2, 5).camera_to_world, random_cameras(2, 5).camera_to_world)
