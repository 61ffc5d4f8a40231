"""Sphere tracing of one object on a ground plane into a geometry buffer.

Everything that does not depend on colours is computed once here (what each ray hits, normals, how open the place is
to the sky, whether the sun reaches it); `shading` then makes as many looks from one buffer as wanted.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from csd_nerf.toyworld.cameras import Cameras, pixel_rays
from csd_nerf.toyworld.geometry import PartTable, distance, nearest_part

SKY, GROUND = -2, -1
STEPS = 56
HIT = 1.5e-3
RELAXATION = 0.92  # the ellipsoid's distance is a bound of first order only
SUN_HEIGHT = 48.0
_TETRAHEDRON = ((1.0, -1.0, -1.0), (-1.0, -1.0, 1.0), (-1.0, 1.0, -1.0), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class GeometryBuffer:
    """What the rays of some views of one geometry hit; n = views * height * width * samples^2."""

    table: PartTable
    direction: Float[Tensor, "3 n"]
    """Unit directions of the rays."""
    position: Float[Tensor, "3 n"]
    """World position of the hit; undefined where the ray meets the sky."""
    normal: Float[Tensor, "3 n"]
    part: Int[Tensor, "n"]
    """Row of the object's part, or `GROUND`, or `SKY`."""
    openness: Float[Tensor, "n"]
    """Ambient occlusion, 0 (closed in) to 1 (open)."""
    sunlight: Float[Tensor, "n"]
    """Soft shadow, 0 (in shadow) to 1; undefined (1) where the surface faces away from the sun."""
    away: Float[Tensor, "n"]
    """Horizontal distance of the hit from the object, or from the circle on which several stand."""
    sun: tuple[float, float, float]
    """Unit direction towards the sun."""
    views: int
    height: int
    width: int
    samples: int
    """Rays along a pixel's side."""


def sun_direction(azimuth: float, height: float = SUN_HEIGHT) -> tuple[float, float, float]:
    """Unit vector towards the sun (degrees)."""
    a, e = math.radians(azimuth), math.radians(height)
    return (math.cos(e) * math.cos(a), math.cos(e) * math.sin(a), math.sin(e))


@torch.no_grad()
def trace(table: PartTable, cameras: Cameras, sun_azimuth: float, samples: int = 2) -> GeometryBuffer:
    """Trace every ray of every camera."""
    shape = (len(cameras), cameras.height, cameras.width)
    return trace_rays(table, pixel_rays(cameras, samples), sun_azimuth, shape, samples)


@torch.no_grad()
def trace_rays(
    table: PartTable,
    rays: tuple[Float[Tensor, "3 n"], Float[Tensor, "3 n"]],
    sun_azimuth: float,
    shape: tuple[int, int, int],
    samples: int,
    circle: float = 0.0,
) -> GeometryBuffer:
    """Trace rays of any kind of camera.

    Args:
        table: the parts of all objects.
        rays: origins and unit directions, ordered as those of `pixel_rays`.
        sun_azimuth: degrees.
        shape: views, height and width in pixels; n = views * height * width * samples^2.
        samples: rays along a pixel's side.
        circle: radius of the circle around the origin on which the objects stand, scene units; 0 for a single one.
    """
    origin, direction = rays
    ground = torch.where(direction[2] < -1e-4, -origin[2] / direction[2].clamp_max(-1e-4), torch.inf)
    depth = march(table, origin, direction, ground)
    hit = torch.isfinite(depth)
    part = torch.where(torch.isfinite(ground), GROUND, SKY)
    position = origin + direction * torch.where(hit, depth, ground.clamp_max(1e3))
    normal = torch.zeros_like(position)
    normal[2] = 1.0
    rows = hit.nonzero()[:, 0]
    on_object = position[:, rows]
    part[rows] = nearest_part(table, on_object)
    normal[:, rows] = surface_normals(table, on_object)
    sun = sun_direction(sun_azimuth)
    openness, sunlight = torch.ones_like(depth), torch.ones_like(depth)
    away = (position[:2].square().sum(0).sqrt() - circle).abs()
    near = (part != SKY) & (away < 3.5)
    rows = near.nonzero()[:, 0]
    start = position[:, rows] + 4e-3 * normal[:, rows]
    openness[rows] = ambient_openness(table, start, normal[:, rows])
    facing = (normal[:, rows] * torch.tensor(sun)[:, None]).sum(0) > 0
    sunlight[rows[facing]] = soft_shadow(table, start[:, facing], sun)
    return GeometryBuffer(
        table,
        direction,
        position,
        normal,
        part,
        openness,
        sunlight,
        away,
        sun,
        *shape,
        samples,
    )


def march(
    table: PartTable, origin: Float[Tensor, "3 n"], direction: Float[Tensor, "3 n"], limit: Float[Tensor, "n"]
) -> Float[Tensor, "n"]:
    """Distance along each ray to the object, `inf` where it is missed or lies behind `limit`."""
    depth = torch.full_like(limit, torch.inf)
    near, far = sphere_span(table, origin, direction)
    far = torch.minimum(far, limit)
    active = (near < far).nonzero()[:, 0]
    o, d, t, end = origin[:, active], direction[:, active], near[active], far[active]
    for _ in range(STEPS):
        if active.numel() == 0:
            break
        gap = distance(table, o + d * t)
        touching = gap < HIT
        depth[active[touching]] = t[touching]
        t = t + RELAXATION * gap
        keep = (~touching & (t < end)).nonzero()[:, 0]
        if keep.numel() < active.numel():
            active, o, d, t, end = active[keep], o[:, keep], d[:, keep], t[keep], end[keep]
    close = active  # rays that graze a surface when the steps run out
    if close.numel():
        grazing = distance(table, o + d * t) < 8 * HIT
        depth[close[grazing]] = t[grazing]
    return depth


def sphere_span(
    table: PartTable, origin: Float[Tensor, "3 n"], direction: Float[Tensor, "3 n"]
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """Where rays enter and leave the sphere around the object; entry > exit where they miss it."""
    to_centre = torch.tensor(table.centre)[:, None] - origin
    middle = (to_centre * direction).sum(0)
    half = table.radius**2 - (to_centre * to_centre).sum(0) + middle * middle
    root = half.clamp_min(0).sqrt()
    near = torch.where(half > 0, (middle - root).clamp_min(0), torch.inf)
    return near, middle + root


def surface_normals(table: PartTable, points: Float[Tensor, "3 n"], step: float = 1.5e-3) -> Float[Tensor, "3 n"]:
    """Outward unit normals by differences at a tetrahedron's corners."""
    total = torch.zeros_like(points)
    for corner in _TETRAHEDRON:
        offset = torch.tensor(corner)[:, None]
        total = total + offset * distance(table, points + step * offset)
    return torch.nn.functional.normalize(total, dim=0)


def ambient_openness(
    table: PartTable, points: Float[Tensor, "3 n"], normal: Float[Tensor, "3 n"]
) -> Float[Tensor, "n"]:
    """How far object and ground stay away along the normal, compared with how far they could, 0..1."""
    blocked = torch.zeros_like(points[0])
    for step, weight in ((0.05, 0.3), (0.13, 0.3), (0.28, 0.25), (0.5, 0.15)):
        probe = points + step * normal
        gap = torch.minimum(distance(table, probe), probe[2]).clamp(0, step)
        blocked = blocked + weight * (1 - gap / step)
    return (1 - 0.95 * blocked).clamp(0, 1)


def soft_shadow(
    table: PartTable, points: Float[Tensor, "3 n"], sun: tuple[float, float, float], width: float = 9.0, steps: int = 22
) -> Float[Tensor, "n"]:
    """Share of a broad sun seen from each point, 0..1: the smallest clearance on the way, relative to distance."""
    light = torch.ones_like(points[0])
    direction = torch.tensor(sun)[:, None].expand_as(points)
    near, far = sphere_span(table, points, direction)
    active = (near < far).nonzero()[:, 0]
    o, d, t, end = points[:, active], direction[:, active], near[active].clamp_min(0.02), far[active]
    seen = light[active]
    for _ in range(steps):
        if active.numel() == 0:
            break
        gap = distance(table, o + d * t)
        seen = torch.minimum(seen, (width * gap / t).clamp(0, 1))
        light[active] = seen
        t = t + gap.clamp(0.025, 0.2)
        keep = ((seen > 0.01) & (t < end)).nonzero()[:, 0]
        if keep.numel() < active.numel():
            active, o, d, t, end, seen = active[keep], o[:, keep], d[:, keep], t[keep], end[keep], seen[keep]
    return light * light * (3 - 2 * light)
