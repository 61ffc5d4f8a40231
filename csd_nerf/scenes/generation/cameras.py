"""Cameras on a sphere around the object.

The world's z is up and the object is at its origin. Azimuth 0 sees the object's front, from +x, and grows
counter-clockwise seen from above; elevation is measured from the horizon. Both are in degrees. Camera-to-world matrices
are nerfstudio's: x right, y up, z backwards.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras, CameraType
from torch import Tensor

Range = tuple[float, float]


@dataclass(frozen=True)
class OrbitRanges:
    """Where training cameras may be; each value is uniform in its range."""

    radius: Range = (1.5, 2.0)
    """Distance from the object's middle, in scene units; the object fits into a ball of radius 1."""
    elevation: Range = (-10.0, 60.0)
    """Degrees above the horizon."""
    azimuth: Range = (-180.0, 180.0)
    """Degrees around the object, 0 in front of it."""
    field_of_view: Range = (40.0, 70.0)
    """Degrees, from edge to edge of the picture."""

    def __post_init__(self) -> None:
        """Raise `ValueError`, which names the field, for ranges that no camera can have."""
        limits = {"radius": (1e-3, 1e3), "elevation": (-89.0, 89.0), "azimuth": (-360.0, 360.0)}
        limits["field_of_view"] = (1.0, 170.0)
        for name, (least, most) in limits.items():
            low, high = getattr(self, name)
            if not least <= low <= high <= most:
                raise ValueError(f"{name}=({low}, {high}): give two numbers in order, from {least:g} to {most:g}")


@dataclass(frozen=True)
class OrbitViews:
    """Cameras that look at the object, and where they stand."""

    cameras: Cameras
    """`n` square pinhole cameras of one size."""
    azimuth: Float[Tensor, " n"]
    """Degrees."""
    elevation: Float[Tensor, " n"]
    """Degrees."""

    def __len__(self) -> int:
        return len(self.azimuth)

    @property
    def size(self) -> int:
        """Side of the pictures in pixels."""
        return int(self.cameras.height[0])


@dataclass(frozen=True)
class Rays:
    """Rays of several pictures, those of one picture together and in row-major order."""

    origins: Float[Tensor, "n 3"]
    directions: Float[Tensor, "n 3"]
    """Of unit length."""


def orbit_views(
    azimuth: Float[Tensor, " n"],
    elevation: Float[Tensor, " n"],
    radius: Float[Tensor, " n"],
    field_of_view: Float[Tensor, " n"],
    size: int,
) -> OrbitViews:
    """Square cameras of `size` pixels that look at the origin (degrees, scene units)."""
    a, e = torch.deg2rad(azimuth), torch.deg2rad(elevation)
    back = torch.stack([e.cos() * a.cos(), e.cos() * a.sin(), e.sin()], dim=1)
    right = torch.stack([-a.sin(), a.cos(), torch.zeros_like(a)], dim=1)
    up = torch.linalg.cross(back, right)
    poses = torch.stack([right, up, back, radius[:, None] * back], dim=2)
    focal = size / (2 * torch.tan(torch.deg2rad(field_of_view) / 2))
    half = torch.full_like(focal, size / 2)
    cameras = Cameras(poses, focal, focal, half, half, size, size, camera_type=CameraType.PERSPECTIVE)
    return OrbitViews(cameras, azimuth, elevation)


def random_views(ranges: OrbitRanges, count: int, size: int, generator: torch.Generator) -> OrbitViews:
    """Random cameras, one in each of `count` equal sectors of the azimuths, so that a batch sees several sides."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    low, high = ranges.azimuth
    sectors = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    # Where the sectors begin is random too: a batch of fixed sectors would never see two neighbouring views.
    turn = torch.rand((), generator=generator) if high - low >= 360 else torch.zeros(())
    azimuth = low + (high - low) * ((sectors + turn) % 1)
    return orbit_views(
        azimuth, uniform(*ranges.elevation), uniform(*ranges.radius), uniform(*ranges.field_of_view), size
    )


def turntable(ranges: OrbitRanges, count: int, size: int, elevation: float | None = None) -> OrbitViews:
    """Cameras evenly around the object, all at one height, at the middle of the ranges.

    `elevation` in degrees; None takes 30 (CSD D.2), or what of the ranges is nearest.
    """
    low, high = ranges.elevation
    height = min(max(30.0, low), high) if elevation is None else elevation
    azimuth = torch.arange(count) * (360.0 / count)
    return in_the_middle(ranges, azimuth, torch.full((count,), height), size)


def in_the_middle(
    ranges: OrbitRanges, azimuth: Float[Tensor, " n"], elevation: Float[Tensor, " n"], size: int
) -> OrbitViews:
    """Cameras at the middle of the ranges of distance and field of view."""
    radius, field_of_view = (
        torch.full_like(azimuth, sum(values) / 2) for values in (ranges.radius, ranges.field_of_view)
    )
    return orbit_views(azimuth, elevation, radius, field_of_view, size)


def generate_rays(cameras: Cameras) -> Rays:
    """The rays through all pixels' centres of all cameras, which have one size."""
    height, width = int(cameras.height[0]), int(cameras.width[0])
    poses = cameras.camera_to_worlds
    rows = (torch.arange(height, device=poses.device) + 0.5)[None, :, None]
    columns = (torch.arange(width, device=poses.device) + 0.5)[None, None, :]
    x = (columns - cameras.cx[:, :, None]) / cameras.fx[:, :, None]
    y = -(rows - cameras.cy[:, :, None]) / cameras.fy[:, :, None]
    x, y = torch.broadcast_tensors(x, y)
    local = torch.nn.functional.normalize(torch.stack([x, y, -torch.ones_like(x)], dim=-1), dim=-1)
    directions = torch.einsum("nij,nhwj->nhwi", poses[:, :, :3], local)
    origins = poses[:, None, None, :, 3].expand_as(directions)
    return Rays(origins.reshape(-1, 3), directions.reshape(-1, 3))
