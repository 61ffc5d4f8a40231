"""Rays, rendering, occupancy, shading and fields, against closed forms and slow references."""

import math

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras

from csd_nerf.scenes.generation.cameras import OrbitRanges, Rays, generate_rays, orbit_views, random_views, turntable
from csd_nerf.scenes.generation.fields import FIELDS, BackgroundField, FieldKind, FieldSettings, ObjectField
from csd_nerf.scenes.generation.occupancy import OccupancyGrid
from csd_nerf.scenes.generation.pipeline import binary_entropy
from csd_nerf.scenes.generation.rendering import FAR, ObjectRenderer
from csd_nerf.scenes.generation.seeds import Stream, step_generator
from csd_nerf.scenes.generation.shading import Shading, ShadingPolicy, shade
from csd_nerf.toyworld.cameras import look_at

SMALL = FieldSettings(width=8, blocks=2, frequencies=2, levels=2, log2_table=8, finest=16, voxels=(4, 8))


class Ball(ObjectField):
    """A ball of even density and one colour; normals point outwards."""

    def __init__(self, density: float, radius: float = 0.5) -> None:
        super().__init__(FieldSettings(), 3)
        self.value, self.radius = density, radius

    def raw(self, points):  # noqa: ANN001, ANN201
        inside = (points.norm(dim=1) < self.radius).float()
        return self.value * inside, points

    def forward(self, points):  # noqa: ANN001, ANN201
        return self.raw(points)

    def raw_colour(self, features):  # noqa: ANN001, ANN201
        return torch.tensor([2.0, 0.0, -2.0]).expand(len(features), 3)

    def normals(self, points):  # noqa: ANN001, ANN201
        return torch.nn.functional.normalize(points, dim=1)


def renderer(field: ObjectField, samples: int = 2000) -> ObjectRenderer:
    torch.manual_seed(0)
    return ObjectRenderer(field, BackgroundField(3), OccupancyGrid(8), samples)


def ray(x: float = 0.0) -> Rays:
    """Along -z, past the origin at a distance of `x`."""
    return Rays(torch.tensor([[x, 0.0, 2.0]]), torch.tensor([[0.0, 0.0, -1.0]]))


def test_rays_are_nerfstudios():
    views = random_views(OrbitRanges(), 3, 5, torch.Generator().manual_seed(0))
    rays = generate_rays(views.cameras)
    for index in range(3):
        bundle = views.cameras.generate_rays(index, keep_shape=True)
        own = slice(index * 25, (index + 1) * 25)
        assert torch.allclose(rays.directions[own], bundle.directions.reshape(-1, 3), atol=1e-6)
        assert torch.allclose(rays.origins[own], bundle.origins.reshape(-1, 3), atol=1e-6)


def test_cameras_stand_where_the_toy_worlds_do():
    """Same azimuth, elevation and axes; only the target differs."""
    azimuth, elevation, radius, field = (torch.tensor([value]) for value in (70.0, 25.0, 2.85, 45.0))
    pose = orbit_views(azimuth, elevation, radius, field, 64).cameras.camera_to_worlds[0]
    theirs = look_at(70.0, 25.0)
    assert torch.allclose(pose[:, :3], theirs[:3, :3], atol=1e-6)
    assert torch.allclose(pose[:, 3], theirs[:3, 3] - torch.tensor([0.0, 0.0, 0.88]), atol=1e-5)


def test_a_batch_sees_all_sides_and_stays_in_its_ranges():
    ranges = OrbitRanges(radius=(2.0, 3.0), elevation=(5.0, 40.0), azimuth=(-180.0, 180.0), field_of_view=(30.0, 50.0))
    seen = set()
    for step in range(200):
        views = random_views(ranges, 4, 8, step_generator(0, Stream.CAMERAS, step))
        turned = torch.sort((views.azimuth + 180) / 90).values
        assert (turned.diff() < 2).all() and (turned.diff() > 0).all(), "one in each sector of a quarter"
        assert ((views.elevation >= 5) & (views.elevation <= 40)).all()
        radius = views.cameras.camera_to_worlds[:, :, 3].norm(dim=1)
        assert ((radius >= 2 - 1e-5) & (radius <= 3 + 1e-5)).all()
        seen |= {int(angle // 30) for angle in views.azimuth}
    assert seen == set(range(-6, 6))


@pytest.mark.parametrize(
    "change", [{"radius": (0.0, 1.0)}, {"elevation": (50.0, 10.0)}, {"field_of_view": (20.0, 180.0)}]
)
def test_ranges_that_no_camera_can_have_are_refused(change: dict):
    with pytest.raises(ValueError, match=f"{next(iter(change))}="):
        OrbitRanges(**change)


def test_a_turntable_is_at_30_degrees_or_as_near_as_the_ranges_allow():
    assert turntable(OrbitRanges(), 12, 8).elevation.unique().item() == 30.0
    assert turntable(OrbitRanges(elevation=(40.0, 50.0)), 12, 8).elevation.unique().item() == 40.0
    assert isinstance(turntable(OrbitRanges(), 3, 8).cameras, Cameras)


@pytest.mark.parametrize("offset", [0.0, 0.3])
def test_a_ball_absorbs_as_its_chord_is_long(offset: float):
    density = 1.5
    chord = 2 * math.sqrt(0.25 - offset**2)
    seen = renderer(Ball(density))(ray(offset), normals=True)
    opacity = 1 - math.exp(-density * chord)
    assert float(seen.opacity) == pytest.approx(opacity, abs=2e-3)
    assert seen.foreground[0, 0].item() == pytest.approx(opacity * torch.sigmoid(torch.tensor(2.0)).item(), abs=2e-3)
    behind = renderer(Ball(density)).background(ray().directions)[0]
    assert torch.allclose(seen.colour[0], seen.foreground[0] + (1 - seen.opacity) * behind, atol=1e-6)
    half = math.log(2) / density
    expected = 2 - math.sqrt(0.25 - offset**2) + half if half < chord else FAR
    assert float(seen.depth) == pytest.approx(expected, abs=3e-3)


def test_only_surface_that_faces_away_is_penalised():
    near = renderer(Ball(1000.0))(ray(), normals=True)
    assert near.orientation is not None and float(near.orientation) < 1e-3
    assert near.normals is not None and torch.allclose(near.normals[0], torch.tensor([0.0, 0, 1]), atol=1e-2)

    class Inward(Ball):
        def normals(self, points):  # noqa: ANN001, ANN201
            return -super().normals(points)

    turned = renderer(Inward(1000.0))(ray(), normals=True)
    assert turned.orientation is not None and float(turned.orientation) == pytest.approx(1.0, abs=1e-2)


def test_empty_space_costs_nothing_and_changes_nothing():
    ball, asked = Ball(3.0), []
    grid = OccupancyGrid(8, threshold=0.1, every=1)

    class Counted(Ball):
        def forward(self, points):  # noqa: ANN001, ANN201
            asked.append(len(points))
            return super().forward(points)

    for step in range(4):
        grid.update(ball.density, 0, step)
    field = Counted(3.0)
    whole = renderer(field, 400)
    sparse = ObjectRenderer(field, whole.background, grid, 400)
    before, after = whole(ray(0.1)), sparse(ray(0.1))
    assert asked[1] < 0.8 * asked[0]
    assert torch.allclose(before.colour, after.colour, atol=1e-6) and torch.equal(before.depth, after.depth)
    assert not grid(torch.tensor([[0.95, 0.95, 0.95], [1.5, 0.0, 0.0]])).any() and grid(torch.zeros(1, 3)).all()


def test_fog_thinner_than_the_threshold_can_grow():
    grid = OccupancyGrid(4, threshold=5.0, every=1)
    grid.update(lambda points: torch.full((len(points),), 0.1), 0, 0)
    assert grid.occupied.all()


def test_a_ray_that_misses_the_cube_shows_the_background():
    seen = renderer(Ball(5.0), 16)(Rays(torch.tensor([[3.0, 3.0, 2.0]]), torch.tensor([[0.0, 0.0, 1.0]])))
    assert float(seen.opacity) == 0 and float(seen.depth) == FAR


@pytest.mark.parametrize("kind", ["mlp", "hash-grid", "voxel-grid", "sjc"])
def test_normals_go_against_the_densitys_gradient(kind: FieldKind):
    torch.manual_seed(1)
    field = FIELDS[kind](SMALL, 4 if kind == "sjc" else 3)
    if kind == "sjc":
        with torch.no_grad():
            side = torch.linspace(-1, 1, 8)
            x, y, z = torch.meshgrid(side, side, side, indexing="ij")
            field.get_parameter("grid.density_grid").copy_((-3 * (x**2 + 2 * y**2 + z))[None, None])
    points = (torch.rand(64, 3, generator=torch.Generator().manual_seed(0)) - 0.5).requires_grad_(True)
    (gradient,) = torch.autograd.grad(field.density(points).sum(), points)
    normals = field.normals(points.detach())
    assert torch.allclose(normals.norm(dim=1), torch.ones(64), atol=1e-4)
    agreement = -(normals * torch.nn.functional.normalize(gradient, dim=1)).sum(dim=1)
    assert float(agreement.median()) > 0.9
    density, features = field(points.detach())
    assert (density >= 0).all() and field.colour(features).shape == (64, 4 if kind == "sjc" else 3)


@pytest.mark.parametrize("kind", ["mlp", "hash-grid", "voxel-grid"])
def test_an_object_begins_as_a_blob(kind: FieldKind):
    torch.manual_seed(0)
    field = FIELDS[kind](SMALL, 3)
    middle, edge = field.density(torch.zeros(1, 3)), field.density(torch.tensor([[0.9, 0.0, 0.0]]))
    assert float(middle) > 5 > 0.1 > float(edge)


def test_lights():
    albedo = torch.tensor([[0.8, 0.4, 0.2]])
    at, camera = torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 2.0]])
    towards = Shading("lambertian", torch.zeros(3), 0.25)
    up, away = torch.tensor([[0.0, 0, 1]]), torch.tensor([[0.0, 0, -1]])
    tilted = torch.tensor([[math.sqrt(0.75), 0.0, 0.5]])
    assert torch.equal(shade(albedo, up, at, camera, Shading()), albedo)
    assert torch.allclose(shade(albedo, up, at, camera, towards), albedo)
    assert torch.allclose(shade(albedo, away, at, camera, towards), 0.25 * albedo)
    assert torch.allclose(shade(albedo, tilted, at, camera, towards), (0.25 + 0.75 * 0.5) * albedo)
    bare = Shading("textureless", torch.zeros(3), 0.25)
    assert torch.allclose(shade(albedo, tilted, at, camera, bare), torch.full((1, 3), 0.625))


def test_how_often_lights_are_drawn():
    policy = ShadingPolicy(albedo_share=0.1, lit_probability=0.6, textureless_probability=0.25, least_ambient=0.3)
    generator = torch.Generator().manual_seed(0)
    assert all(policy.draw(0.05, generator).mode == "albedo" for _ in range(50))
    drawn = [policy.draw(0.5, generator) for _ in range(2000)]
    shares = {mode: sum(one.mode == mode for one in drawn) / 2000 for mode in ("albedo", "lambertian", "textureless")}
    assert shares["albedo"] == pytest.approx(0.4, abs=0.04)
    assert shares["textureless"] == pytest.approx(0.15, abs=0.04)
    assert all(one.ambient >= 0.3 for one in drawn if one.lit)
    with pytest.raises(ValueError, match="lit_probability=1.5: give a share"):
        ShadingPolicy(lit_probability=1.5)


def test_entropy():
    values = binary_entropy(torch.tensor([0.0, 0.5, 1.0, 0.25]))
    assert float(values[1]) == 1.0 and float(values[0]) == pytest.approx(float(values[2]), abs=1e-4)
    assert float(values[3]) == pytest.approx(-(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75)), abs=1e-6)
