"""Panoramas show what cameras see, without a join, and edits of them are edits of every object."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from csd_nerf.toyworld.cameras import Cameras, arc_cameras, look_at, orbit_cameras, pixel_rays
from csd_nerf.toyworld.edits import edit_from_instruction
from csd_nerf.toyworld.panorama import (
    APART,
    CIRCLE,
    ELEVATION,
    FOCAL,
    MOST,
    PICTURE,
    Panorama,
    PanoramaRenderer,
    panorama_from_seed,
    panorama_rays,
    pictures_of,
)
from csd_nerf.toyworld.render import Renderer
from csd_nerf.toyworld.scene import HELD_OUT_SEEDS, scene_from_seed
from csd_nerf.toyworld.shading import shade
from csd_nerf.toyworld.trace import trace_rays

THREE = panorama_from_seed(HELD_OUT_SEEDS + 1, 3)
"""Painted wood on the sand."""


@pytest.fixture(scope="module")
def renderer() -> PanoramaRenderer:
    return PanoramaRenderer(samples=1)


@pytest.fixture(scope="module")
def source(renderer: PanoramaRenderer) -> Tensor:
    return renderer.render(THREE)


def camera_towards(azimuth: float, size: int) -> Cameras:
    """A pinhole camera in the panorama's middle that looks there (radians)."""
    pose = look_at(math.degrees(azimuth) + 180, ELEVATION)
    pose[:2, 3] += CIRCLE * torch.tensor([math.cos(azimuth), math.sin(azimuth)])
    return Cameras(pose[None], (math.degrees(azimuth),), (ELEVATION,), size, size, FOCAL)


def error(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().mean())


@pytest.mark.parametrize("column", [0, 31, 50])
def test_a_column_is_the_middle_one_of_a_camera_that_looks_there(column: int):
    origin, direction = (rays.reshape(3, 65, 192) for rays in panorama_rays(65, 192, samples=1))
    angle = (96 - column - 0.5) / (FOCAL * math.cos(math.radians(ELEVATION)))
    pinhole = [rays.reshape(3, 65, 65)[:, :, 32] for rays in pixel_rays(camera_towards(angle, 65), samples=1)]
    assert torch.allclose(origin[:, :, column], pinhole[0], atol=1e-5)
    assert torch.allclose(direction[:, :, column], pinhole[1], atol=1e-5)


def test_neighbouring_objects_are_a_picture_apart():
    direction = panorama_rays(64, 192, samples=1)[1].reshape(3, 64, 192)
    angles = torch.atan2(direction[1], direction[0])[32]
    steps = angles[:-1] - angles[1:]
    assert torch.allclose(steps, torch.tensor(APART / PICTURE), atol=1e-5), "no join anywhere"
    for i, azimuth in enumerate(THREE.azimuths):
        assert float(angles[64 * i + 31 : 64 * i + 33].mean()) == pytest.approx(azimuth, abs=1e-5)


def test_every_picture_is_what_a_camera_sees(source: Tensor):
    for azimuth, picture in zip(THREE.azimuths, pictures_of(source), strict=True):
        rays = pixel_rays(camera_towards(azimuth, 64), samples=1)
        buffer = trace_rays(THREE.table, rays, THREE.sun_azimuth, (1, 64, 64), 1, CIRCLE)
        seen = shade(buffer, THREE.scenes[0])[0]
        assert error(picture[..., 28:36], seen[..., 28:36]) < 0.012
        assert error(picture, seen) < 0.03 < error(picture, seen.flip(-1)), "the flip shows what an error would be"


def test_one_object_alone_is_its_own_scene():
    """But for the ground, whose texture is elsewhere."""
    scene = replace(scene_from_seed(HELD_OUT_SEEDS), background="studio", sun_azimuth=-20.0, material="matte")
    alone = PanoramaRenderer(samples=1).render(Panorama((scene,)))
    own = Renderer(orbit_cameras([0.0], [ELEVATION]), samples=1).render(scene)[0]
    other = Renderer(orbit_cameras([0.0], [ELEVATION]), samples=1).render(replace(scene, sun_azimuth=-60.0))[0]
    assert error(alone, own) < 0.01 and error(alone[..., 26:38], own[..., 26:38]) < 0.005
    assert error(alone, own) < error(alone, other), "the sun is where it was"


def test_it_does_not_matter_what_stands_beside(source: Tensor, renderer: PanoramaRenderer):
    alone = renderer.render(Panorama(THREE.scenes[1:2]))
    middle = pictures_of(source)[1]
    assert (middle - alone).abs().amax(0)[:, 16:48].median() < 1e-4
    assert error(middle, alone) < 0.02, "neighbours' shadows only"


def test_a_taller_panorama_adds_above_and_below(renderer: PanoramaRenderer):
    one = Panorama(THREE.scenes[:1])
    tall = PanoramaRenderer(height=96, samples=1).render(one)
    assert tall.shape == (3, 96, 64)
    assert torch.allclose(tall[:, 16:80], renderer.render(one), atol=1e-5)


def test_recolouring_leaves_everything_else_as_it_is(source: Tensor, renderer: PanoramaRenderer):
    edit = edit_from_instruction("make it purple", THREE.scenes[0])
    after = renderer.edited(THREE, edit)
    rays = panorama_rays(64, THREE.width, samples=1)
    buffer = trace_rays(THREE.table, rays, THREE.sun_azimuth, (1, 64, THREE.width), 1, CIRCLE)
    colours = {scene.colour for scene in THREE.scenes}
    objects = (buffer.part >= 0).reshape(64, -1)
    changed = (after != source).any(0)
    assert len(colours) == 2 and {s.colour for s in THREE.edited(edit).scenes} == {"purple"}
    assert not changed[~objects].any()
    for mask, where in zip(changed.split(64, dim=1), objects.split(64, dim=1), strict=True):
        assert mask.sum() > 0.3 * where.sum(), "every object is recoloured"
    assert torch.equal(renderer.render(THREE), source), "the source is not touched"


def test_every_object_gets_the_same_hat(source: Tensor, renderer: PanoramaRenderer):
    after = renderer.edited(THREE, edit_from_instruction("give it a blue top hat", THREE.scenes[0]))
    for before, picture in zip(pictures_of(source), pictures_of(after), strict=True):
        changed = (picture - before).abs().amax(0) > 0.15
        red, _, blue = picture[:, :32][:, changed[:32]].mean(1)
        assert changed[:32].sum() > 60 and blue > 2 * red


def test_night_and_snow_are_everywhere(source: Tensor, renderer: PanoramaRenderer):
    night = renderer.edited(THREE, edit_from_instruction("make it night", THREE.scenes[0]))
    snow = renderer.edited(THREE, edit_from_instruction("make it snow", THREE.scenes[0]))
    for before, dark, white in zip(*map(pictures_of, (source, night, snow)), strict=True):
        assert dark.mean() < 0.6 * before.mean()
        assert white[:, -4:].mean() > 0.6 and error(white, before) > 0.05
    stars = (night[:, :8].amin(0) > 0.5).any(0)
    assert stars.any() and not stars.all(), "points, not lines along the horizon"
    sketch = renderer.edited(THREE, edit_from_instruction("turn it into a pencil sketch", THREE.scenes[0]))
    assert float((sketch[0] - sketch[2]).abs().max()) < 0.06, "grey lines on warm paper"


def test_panoramas_of_a_seed_repeat_and_hold_its_scene():
    seed = HELD_OUT_SEEDS + 2
    made = panorama_from_seed(seed)
    assert made == panorama_from_seed(seed) != panorama_from_seed(seed + 1)
    assert scene_from_seed(seed) in made.scenes
    assert len({scene.object for scene in made.scenes}) == 5 and len({scene.colour for scene in made.scenes}) == 2
    assert PanoramaRenderer(samples=1).render(replace(made, scenes=made.scenes[:1])).shape == (3, 64, 64)
    assert made.width == 320


def test_objects_that_share_no_place_are_refused():
    scene = THREE.scenes[0]
    with pytest.raises(ValueError, match="share their snow"):
        Panorama((scene, replace(scene, snow=True)))
    for count in (0, MOST + 1):
        with pytest.raises(ValueError, match=f"1 to {MOST} objects, got {count}"):
            Panorama((scene,) * count)


@pytest.mark.parametrize("seed", range(4))
def test_a_video_follows_a_smooth_arc(seed: int):
    path = arc_cameras(24, seed)
    steps = torch.tensor(path.azimuth).diff()
    assert steps.abs().sum() == pytest.approx(60, abs=1e-3) and (steps - steps[0]).abs().max() < 1e-3
    elevations = torch.tensor(path.elevation)
    assert elevations.diff().abs().max() < 0.3 and elevations.min() > 13 and elevations.max() < 27
    assert max(map(abs, path.azimuth)) <= 75, "the front is never out of sight"
    assert path.azimuth != arc_cameras(24, seed + 1).azimuth
    with pytest.raises(ValueError, match="at least 2 frames"):
        arc_cameras(1, seed)
