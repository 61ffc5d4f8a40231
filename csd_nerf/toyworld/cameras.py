"""Cameras that look at the toy world's object.

Convention of OpenGL and nerfstudio: a camera-to-world matrix has the camera's x axis to the right, y up and z
backwards; the world's z is up. Azimuth 0 sees the object's front (from +x) and grows counter-clockwise seen from above.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

TARGET = (0.0, 0.0, 0.88)
DISTANCE = 2.85
FIELD_OF_VIEW = 45.0


@dataclass(frozen=True)
class Cameras:
    """Pinhole cameras that share one size and focal length."""

    camera_to_world: Float[Tensor, "n 4 4"]
    azimuth: tuple[float, ...]
    """Degrees, of each camera."""
    elevation: tuple[float, ...]
    """Degrees above the ground."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    focal: float
    """Pixels, both axes; the principal point is the picture's centre."""

    def __len__(self) -> int:
        return len(self.azimuth)

    def split(self) -> list["Cameras"]:
        """The same cameras, one by one."""
        return [
            replace(self, camera_to_world=self.camera_to_world[i : i + 1], azimuth=(a,), elevation=(e,))
            for i, (a, e) in enumerate(zip(self.azimuth, self.elevation, strict=True))
        ]


def orbit_cameras(azimuth: list[float], elevation: list[float], size: int = 64, distance: float = DISTANCE) -> Cameras:
    """Square cameras on a sphere around the object.

    Args:
        azimuth: degrees.
        elevation: degrees, 5..60 is sensible.
        size: pixels along a side.
        distance: scene units from the object's middle.
    """
    poses = [look_at(a, e, distance) for a, e in zip(azimuth, elevation, strict=True)]
    focal = size / (2 * math.tan(math.radians(FIELD_OF_VIEW) / 2))
    return Cameras(torch.stack(poses), tuple(azimuth), tuple(elevation), size, size, focal)


def look_at(azimuth: float, elevation: float, distance: float = DISTANCE) -> Float[Tensor, "4 4"]:
    """Camera-to-world matrix of one camera that looks at the object's middle (degrees, scene units)."""
    a, e = math.radians(azimuth), math.radians(elevation)
    back = torch.tensor([math.cos(e) * math.cos(a), math.cos(e) * math.sin(a), math.sin(e)])
    right = torch.tensor([-math.sin(a), math.cos(a), 0.0])
    pose = torch.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2] = right, torch.linalg.cross(back, right), back
    pose[:3, 3] = torch.tensor(TARGET) + distance * back
    return pose


def random_cameras(count: int, seed: int, size: int = 64) -> Cameras:
    """Random views: any azimuth, elevation 5..50 degrees (fewer from high up), distance within 6 % of the usual."""
    rng = np.random.default_rng([seed, 19])
    elevation = 5 + 45 * rng.beta(1.2, 1.8, count)
    azimuth = rng.uniform(0, 360, count).tolist()
    return orbit_cameras(azimuth, elevation.tolist(), size, DISTANCE * rng.uniform(0.96, 1.06))


def ring_cameras(count: int, seed: int, size: int = 64, elevations: tuple[float, ...] = (15.0, 38.0)) -> Cameras:
    """Views all around, taking turns between rings of fixed elevation, with jitter of at most a third of a step."""
    rng = np.random.default_rng([seed, 23])
    step = 360 / count
    azimuth = [(i + rng.uniform(-0.33, 0.33)) * step for i in range(count)]
    elevation = [elevations[i % len(elevations)] + rng.uniform(-5, 5) for i in range(count)]
    return orbit_cameras(azimuth, elevation, size)


def arc_cameras(count: int, seed: int, size: int = 64, sweep: float = 60.0) -> Cameras:
    """A smooth path of a video: an arc of `sweep` degrees at even speed, while the camera rises or sinks a little.

    Where it begins, which way it goes and how it rises are drawn from the seed; the object's front is seen from its
    middle within 45 degrees. Elevations are 14 to 26 degrees. Raises `ValueError` for fewer than two frames.
    """
    if count < 2:
        raise ValueError(f"a video has at least 2 frames, got count={count}")
    rng = np.random.default_rng([seed, 37])
    middle, way = rng.uniform(-45, 45), rng.choice((-1, 1))
    low, rise, phase = rng.uniform(16, 24), 2.0, rng.uniform(0, 2 * math.pi)
    share = [i / (count - 1) for i in range(count)]
    azimuth = [float(middle + way * sweep * (s - 0.5)) for s in share]
    elevation = [float(low + rise * math.sin(phase + math.pi * s)) for s in share]
    return orbit_cameras(azimuth, elevation, size)


def pixel_rays(cameras: Cameras, samples: int = 2) -> tuple[Float[Tensor, "3 n"], Float[Tensor, "3 n"]]:
    """Origins and unit directions of `samples` x `samples` rays in every pixel.

    Rays are ordered by camera, then sample row (height * samples of them), then sample column.
    """
    rows = (torch.arange(cameras.height * samples) + 0.5) / samples - cameras.height / 2
    columns = (torch.arange(cameras.width * samples) + 0.5) / samples - cameras.width / 2
    y, x = torch.meshgrid(-rows / cameras.focal, columns / cameras.focal, indexing="ij")
    local = torch.stack([x, y, -torch.ones_like(x)]).reshape(3, -1)
    local = local / local.norm(dim=0)
    world = cameras.camera_to_world[:, :3, :3] @ local  # views 3 rays
    origins = cameras.camera_to_world[:, :3, 3:].expand_as(world)
    return origins.transpose(0, 1).reshape(3, -1), world.transpose(0, 1).reshape(3, -1).contiguous()
