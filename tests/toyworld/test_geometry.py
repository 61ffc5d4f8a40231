"""Signed distances against closed forms, and hits that lie on the surface."""

import math

import pytest
import torch

from csd_nerf.toyworld.cameras import look_at, orbit_cameras, pixel_rays
from csd_nerf.toyworld.geometry import Part, along, compile_parts, distance, nearest_part, turned
from csd_nerf.toyworld.objects import OBJECTS
from csd_nerf.toyworld.scene import OBJECT_NAMES, scene_from_seed
from csd_nerf.toyworld.trace import HIT, march, surface_normals, trace

POINTS = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 2.0], [1.0, 1.0, 0.0], [0.2, 0.1, 0.3]]).t()


def test_sphere_and_cut():
    table = compile_parts([Part("ellipsoid", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0, -1e3))])
    assert torch.allclose(distance(table, POINTS), POINTS.norm(dim=0) - 1, atol=1e-5)
    dome = compile_parts([Part("ellipsoid", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0, 0.0))])
    assert distance(dome, torch.tensor([[0.0], [0.0], [-0.5]])).item() == pytest.approx(0.5)


def test_box_corner_edge_and_face():
    table = compile_parts([Part("box", (0.0, 0.0, 0.0), (1.0, 0.5, 0.25, 0.0))])
    points = torch.tensor([[2.0, 1.5, 1.25], [2.0, 0.0, 1.25], [3.0, 0.0, 0.0], [0.0, 0.0, 0.0]]).t()
    expected = torch.tensor([math.sqrt(3), math.sqrt(2), 2.0, -0.25])
    assert torch.allclose(distance(table, points), expected, atol=1e-5)


def test_cylinder_and_torus():
    cylinder = compile_parts([Part("cone", (0.0, 0.0, 0.0), (0.5, 0.5, 1.0, 0.1))])
    points = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0], [0.5 + 3, 0.0, 1.0 + 4]]).t()
    assert torch.allclose(distance(cylinder, points), torch.tensor([1.4, 1.9, 4.9]), atol=1e-5)
    torus = compile_parts([Part("torus", (0.0, 0.0, 0.0), (1.0, 0.25, 0, 0))])
    assert torch.allclose(distance(torus, POINTS[:, :2]), torch.tensor([0.75, math.sqrt(5) - 0.25]), atol=1e-5)


def test_rotation_takes_the_axis_where_it_should():
    capsule = Part("cone", (0.0, 0.0, 0.0), (1e-3, 1e-3, 1.0, 0.1), rotation=along((0.0, 2.0, 0.0)))
    same = Part("cone", (0.0, 0.0, 0.0), (1e-3, 1e-3, 1.0, 0.1), rotation=turned("x", -90))
    end = torch.tensor([[0.0], [1.1], [0.0]])
    for part in (capsule, same):
        assert distance(compile_parts([part]), end).item() == pytest.approx(0.0, abs=1e-4)


def test_parts_of_a_table_are_found_by_row():
    parts = [
        Part("torus", (0.0, 0.0, 3.0), (0.5, 0.1, 0, 0), "#000000"),
        Part("box", (0.0, 0.0, 0.0), (0.5, 0.5, 0.5, 0.0)),
    ]
    table = compile_parts(parts)
    rows = nearest_part(table, torch.tensor([[0.5, 0.6], [0.0, 0.0], [3.0, 0.0]]))
    assert [table.parts[row].primitive for row in rows.tolist()] == ["torus", "box"]
    with pytest.raises(ValueError, match="at least one part"):
        compile_parts([])


@pytest.mark.parametrize("name", OBJECT_NAMES)
def test_objects_stand_on_the_ground_and_fit_the_view(name):
    for v in ((0.0,) * 4, (1.0,) * 4, (-1.0,) * 4, (1.0, -1.0, 1.0, -1.0)):
        parts, anchor = OBJECTS[name](v)
        table = compile_parts(parts)
        x, y, z = torch.meshgrid(*[torch.linspace(-1.2, 1.2, 25)] * 2, torch.linspace(-0.3, 2.1, 25), indexing="ij")
        inside = distance(table, torch.stack([x, y, z]).reshape(3, -1)).reshape(25, 25, 25) < 0
        assert inside[..., z[0, 0] > 1.85].sum() == 0
        assert (x.square() + y.square())[inside].max().sqrt() < 1.25
        below = distance(table, torch.tensor([[anchor.x], [anchor.y], [anchor.z - 0.12 * anchor.scale]])).item()
        above = distance(table, torch.tensor([[anchor.x], [anchor.y], [anchor.z + 0.45]])).item()
        assert below < 0.08 < above, "a hat neither floats nor is swallowed"


def test_hits_lie_on_the_surface_and_normals_look_back():
    scene = scene_from_seed(12)
    buffer = trace(scene.table, orbit_cameras([25.0], [20.0], 32), scene.sun_azimuth)
    hit = buffer.part >= 0
    assert 0.1 < hit.float().mean() < 0.7
    points, normals = buffer.position[:, hit], buffer.normal[:, hit]
    assert distance(scene.table, points).abs().max() < 8 * HIT + 1e-4
    assert torch.allclose(normals.norm(dim=0), torch.ones(normals.shape[1]), atol=1e-4)
    assert ((normals * buffer.direction[:, hit]).sum(0) < 0.15).float().mean() > 0.99
    assert (buffer.position[2, buffer.part == -1].abs() < 1e-3).float().mean() > 0.9


def test_normals_of_a_sphere():
    table = compile_parts([Part("ellipsoid", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0, -1e3))])
    points = torch.nn.functional.normalize(torch.randn(3, 20, generator=torch.Generator().manual_seed(0)), dim=0)
    assert torch.allclose(surface_normals(table, points), points, atol=5e-3)


def test_a_sphere_is_met_where_it_is():
    table = compile_parts([Part("ellipsoid", (0.0, 0.0, 1.0), (0.5, 0.5, 0.5, -1e3))])
    origin = torch.tensor([[3.0, 3.0, 3.0], [0.0, 0.0, 0.0], [1.0, 1.0, 2.0]])
    direction = torch.tensor([[-1.0, 1.0, -1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    depth = march(table, origin, direction, torch.full((3,), torch.inf))
    assert depth[0].item() == pytest.approx(2.5, abs=3 * HIT)
    assert torch.isinf(depth[1:]).all()
    assert torch.isinf(march(table, origin[:, :1], direction[:, :1], torch.tensor([2.0]))).all()


def test_cameras_follow_the_opengl_convention():
    pose = look_at(0.0, 0.0)
    assert torch.allclose(pose[:3, :3].t() @ pose[:3, :3], torch.eye(3), atol=1e-6)
    assert torch.linalg.det(pose[:3, :3]).item() == pytest.approx(1.0)
    assert torch.allclose(pose[:3, 2], torch.tensor([1.0, 0.0, 0.0]))  # z backwards, away from the object
    assert torch.allclose(pose[:3, 1], torch.tensor([0.0, 0.0, 1.0]))
    cameras = orbit_cameras([40.0], [30.0], 16)
    _, direction = pixel_rays(cameras, 1)
    forward = -cameras.camera_to_world[0, :3, 2]
    assert (direction.t() @ forward).min() > 0.8
    top_left, top_right = direction[:, 0], direction[:, 15]
    assert ((top_right - top_left) @ cameras.camera_to_world[0, :3, 0]) > 0
    assert ((direction[:, 0] - direction[:, -16]) @ cameras.camera_to_world[0, :3, 1]) > 0
