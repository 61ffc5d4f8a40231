"""A mesh as a soft constraint, against solids whose inside and distance are known."""

from pathlib import Path

import pytest
import torch
import trimesh

from csd_nerf.scenes.errors import SceneError
from csd_nerf.scenes.shape_guide import load_shape, winding_number


def saved(mesh: trimesh.parent.Geometry, path: Path) -> Path:
    mesh.export(path)
    return path


@pytest.fixture
def ball(tmp_path: Path) -> Path:
    return saved(trimesh.creation.icosphere(subdivisions=2, radius=3.0), tmp_path / "ball.obj")


def test_inside_and_distance_of_a_ball(ball: Path):
    """Whatever the size of the file's mesh, the ball has radius 0.6."""
    guide = load_shape(ball, scale=0.6, resolution=32)
    points = torch.rand(2000, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    radius = points.norm(dim=-1)
    clear = (radius - 0.6).abs() > 0.06
    assert (guide.inside(points) == (radius < 0.6))[clear].all()
    # The loss of an empty field, where all weights are known: inside -log(0.01), outside -log(0.99).
    empty = torch.zeros(len(points))
    weight = 1 - torch.exp(-(radius - 0.6).square() / (2 * 0.25**2))
    price = torch.where(radius < 0.6, -torch.log(torch.tensor(0.01)), -torch.log(torch.tensor(0.99)))
    assert guide.loss(points, empty).item() == pytest.approx((weight * price).mean().item(), rel=0.1)


def test_the_winding_number_counts():
    """1 inside, 0 outside, 2 where two boxes overlap, -1 inside of a mesh whose faces look inwards."""
    box = trimesh.creation.box((2, 2, 2))
    vertices, faces = torch.tensor(box.vertices, dtype=torch.float32), torch.tensor(box.faces)
    points = torch.tensor([[0.0, 0.0, 0.0], [0.9, -0.9, 0.9], [0.0, 0.0, 1.1], [3.0, 1.0, 2.0]])
    once = winding_number(points, vertices, faces)
    torch.testing.assert_close(once, torch.tensor([1.0, 1.0, 0.0, 0.0]), atol=1e-4, rtol=0)
    moved = torch.cat([vertices, vertices + torch.tensor([0.5, 0.0, 0.0])])
    twice = winding_number(points, moved, torch.cat([faces, faces + len(vertices)]))
    torch.testing.assert_close(twice, torch.tensor([2.0, 2.0, 0.0, 0.0]), atol=1e-4, rtol=0)
    inwards = winding_number(points, vertices, faces.flip(-1))
    torch.testing.assert_close(inwards, -once, atol=1e-4, rtol=0)


def test_overlapping_parts_are_one_shape(tmp_path: Path):
    """Counting the faces that a ray meets would find a hole in the middle."""
    ball = trimesh.creation.icosphere(subdivisions=2, radius=1.0)
    other = ball.copy()
    other.apply_translation((0.4, 0.0, 0.0))
    path = saved(trimesh.util.concatenate([ball, other]), tmp_path / "two.ply")
    assert load_shape(path, up="z", resolution=24).inside(torch.zeros(1, 3)).item()


@pytest.mark.parametrize("up", ["x", "y", "z"])
def test_up_is_up(tmp_path: Path, up: str):
    extents = {axis: 1.0 for axis in "xyz"} | {up: 3.0}
    path = saved(trimesh.creation.box(tuple(extents[axis] for axis in "xyz")), tmp_path / "tower.obj")
    guide = load_shape(path, scale=0.9, up=up, resolution=32)  # type: ignore[arg-type]
    assert guide.inside(torch.tensor([[0.0, 0.0, 0.8], [0.8, 0.0, 0.0], [0.0, 0.8, 0.0]])).tolist() == [
        True,
        False,
        False,
    ]


def test_handedness_is_kept(tmp_path: Path):
    """Standing a figure up turns it, and does not mirror it: x, y, z of the file become y, z, x."""
    body, arm, nose = (trimesh.creation.box(size) for size in ((0.2, 2.0, 0.2), (1.0, 0.2, 0.2), (0.2, 0.2, 1.0)))
    arm.apply_translation((0.5, 0.5, 0.0))
    nose.apply_translation((0.0, 0.0, 0.5))
    path = saved(trimesh.util.concatenate([body, arm, nose]), tmp_path / "figure.obj")
    guide = load_shape(path, scale=1.0, up="y", resolution=48)
    # Centring has moved the body to (-0.45, -0.45).
    body_top, arm_tip, nose_tip = (-0.45, -0.45, 0.9), (-0.45, 0.45, 0.5), (0.45, -0.45, 0.0)
    mirrored = [(0.45, -0.45, 0.5), (-0.45, 0.45, 0.0)]
    found = guide.inside(torch.tensor([body_top, arm_tip, nose_tip, *mirrored])).tolist()
    assert found == [True, True, True, False, False]


def test_the_field_is_drawn_to_the_mesh_and_free_near_it(ball: Path):
    guide = load_shape(ball, scale=0.6, freedom=0.1, resolution=32)
    points = torch.tensor([[0.0, 0.0, 0.0], [0.95, 0.0, 0.0], [0.6, 0.0, 0.0]])
    density = torch.full((3,), 3.0, requires_grad=True)
    guide.loss(points, density).backward()
    assert density.grad is not None
    inside, outside, surface = density.grad.tolist()
    assert inside < 0 < outside, "descent makes the inside denser and the outside emptier"
    assert abs(surface) < 0.05 * abs(inside)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        ("hello\n", "no faces|cannot be read"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\n", "no faces|cannot be read"),
    ],
)
def test_files_without_a_mesh(tmp_path: Path, content: str | None, said: str):
    path = tmp_path / "shape.obj"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SceneError, match=said) as caught:
        load_shape(path)
    assert "shape.obj" in str(caught.value)


@pytest.mark.parametrize("bad", [{"scale": 0.0}, {"scale": 1.5}, {"freedom": -1.0}, {"freedom": float("nan")}])
def test_numbers_that_cannot_be(ball: Path, bad: dict[str, float]):
    with pytest.raises(SceneError, match=next(iter(bad))):
        load_shape(ball, **bad)  # type: ignore[arg-type]
