"""Signed distance functions of a handful of primitives, evaluated for a whole object at once.

An object is the union of `Part`s. A `PartTable` is the compiled form: one matrix takes world points into every part's
own frame, and parts of one primitive share each elementwise operation, so an evaluation costs a fixed, small number of
torch calls however many parts there are.

World frame: z up, lengths in scene units (an object is about 1.5 units high), the ground is the plane z = 0 and every
object faces +x. Distances are negative inside. The ellipsoid's distance is the usual first-order bound, so a tracer
must step a little short of it.

Sizes by primitive (in the part's own frame, whose axes are the world's, rotated by `rotation`):

- `ellipsoid`: radii x, y, z, and the height below which it is cut off (`-inf` for none)
- `box`: half extents x, y, z with the rounding included, and the rounding radius
- `cone`: bottom radius, top radius, half height, rounding added outside (a cylinder has equal radii, a capsule none)
- `torus`: ring radius, tube radius; the ring lies in the part's x-y plane
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Primitive = Literal["ellipsoid", "box", "cone", "torus"]
PRIMITIVES: tuple[Primitive, ...] = ("ellipsoid", "box", "cone", "torus")
Number = float | int
Vector = tuple[Number, Number, Number]
Rotation = tuple[Vector, Vector, Vector]
UPRIGHT: Rotation = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


@dataclass(frozen=True)
class Part:
    """One primitive of an object and how it is painted."""

    primitive: Primitive
    centre: Vector
    """Position in world coordinates, scene units."""
    size: tuple[Number, Number, Number, Number]
    """Meaning by primitive: see the module's docstring."""
    paint: str = "main"
    """`main` (the object's colour), `hat` (the hat's colour) or a fixed colour `#rrggbb`."""
    rotation: Rotation = UPRIGHT
    """Columns are the part's axes in world coordinates."""
    textured: bool = False
    """Whether a part of a fixed colour takes part in a change of material (parts painted `main` always do)."""
    glow: Number = 0.0
    """How much the part shines by itself at night, 0..1."""
    glow_colour: str | None = None
    """Of its shine, where that is not the paint's own."""


@dataclass(frozen=True)
class PartTable:
    """Parts of one object, compiled for evaluation; parts are sorted by primitive."""

    parts: tuple[Part, ...]
    """In the order of the table's rows."""
    matrix: Float[Tensor, "three_k 3"]
    """World to part frames: rows are all x, then all y, then all z coordinates."""
    offset: Float[Tensor, "three_k 1"]
    sizes: Float[Tensor, "k 4 1"]
    spans: tuple[tuple[Primitive, int, int], ...]
    """Rows [first, last) of each primitive that occurs."""
    centre: Vector
    """Centre of a sphere around the object."""
    radius: float


def turned(axis: Literal["x", "y", "z"], degrees: Number) -> Rotation:
    """Rotation about one world axis, counter-clockwise when looking down the axis."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    if axis == "x":
        return ((1.0, 0.0, 0.0), (0.0, c, -s), (0.0, s, c))
    if axis == "y":
        return ((c, 0.0, s), (0.0, 1.0, 0.0), (-s, 0.0, c))
    return ((c, -s, 0.0), (s, c, 0.0), (0.0, 0.0, 1.0))


def along(direction: Vector) -> Rotation:
    """Rotation that takes the part's z axis to `direction` (any length but zero)."""
    z = _unit(direction)
    x = _unit(_cross((1.0, 0.0, 0.0) if abs(z[0]) < 0.9 else (0.0, 1.0, 0.0), z))
    y = _cross(z, x)
    return ((x[0], y[0], z[0]), (x[1], y[1], z[1]), (x[2], y[2], z[2]))


def _unit(a: Vector) -> Vector:
    length = math.sqrt(a[0] * a[0] + a[1] * a[1] + a[2] * a[2])
    return (a[0] / length, a[1] / length, a[2] / length)


def _cross(a: Vector, b: Vector) -> Vector:
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])


def scaled(parts: list[Part], factor: Number, shift: Vector = (0.0, 0.0, 0.0)) -> list[Part]:
    """The same parts, scaled about the origin and then moved by `shift`."""
    moved = []
    for part in parts:
        centre = tuple(c * factor + s for c, s in zip(part.centre, shift, strict=True))
        moved.append(replace(part, centre=centre, size=tuple(s * factor for s in part.size)))
    return moved


def compile_parts(parts: list[Part]) -> PartTable:
    """Sort parts by primitive and gather their frames and sizes into tensors."""
    if not parts:
        raise ValueError("an object needs at least one part")
    ordered = tuple(sorted(parts, key=lambda part: PRIMITIVES.index(part.primitive)))
    rotation = torch.tensor([part.rotation for part in ordered])  # k 3 3, columns are axes
    centre = torch.tensor([part.centre for part in ordered])
    frames = rotation.transpose(1, 2)  # k axis 3
    offset = -(frames @ centre[:, :, None])[:, :, 0]
    spans = []
    for primitive in PRIMITIVES:
        rows = [i for i, part in enumerate(ordered) if part.primitive == primitive]
        if rows:
            spans.append((primitive, rows[0], rows[-1] + 1))
    low, high = (centre - _reach(ordered)).amin(0), (centre + _reach(ordered)).amax(0)
    middle = (low + high) / 2
    radius = ((centre - middle).norm(dim=1) + _reach(ordered)[:, 0]).max()
    return PartTable(
        parts=ordered,
        matrix=frames.permute(1, 0, 2).reshape(-1, 3).contiguous(),
        offset=offset.t().reshape(-1, 1).contiguous(),
        sizes=torch.tensor([part.size for part in ordered])[:, :, None],
        spans=tuple(spans),
        centre=tuple(middle.tolist()),
        radius=float(radius),
    )


def _reach(parts: tuple[Part, ...]) -> Float[Tensor, "k 1"]:
    """Radius of a sphere around each part."""
    reaches = []
    for part in parts:
        a, b, c, d = part.size
        reach = {
            "ellipsoid": max(a, b, c),
            "box": math.sqrt(a * a + b * b + c * c),
            "cone": math.sqrt(max(a, b) ** 2 + c * c) + d,
            "torus": a + b,
        }[part.primitive]
        reaches.append(reach)
    return torch.tensor(reaches)[:, None]


def part_distances(table: PartTable, points: Float[Tensor, "3 n"]) -> Float[Tensor, "k n"]:
    """Signed distance from world points to each part, scene units."""
    count = len(table.parts)
    local = torch.addmm(table.offset, table.matrix, points)
    x, y, z = local[:count], local[count : 2 * count], local[2 * count :]
    found = []
    for primitive, first, last in table.spans:
        rows = slice(first, last)
        found.append(_DISTANCE[primitive](x[rows], y[rows], z[rows], table.sizes[rows]))
    return found[0] if len(found) == 1 else torch.cat(found)


def distance(table: PartTable, points: Float[Tensor, "3 n"]) -> Float[Tensor, "n"]:
    """Signed distance from world points to the object, scene units."""
    return part_distances(table, points).amin(0)


def nearest_part(table: PartTable, points: Float[Tensor, "3 n"]) -> Int[Tensor, "n"]:
    """Row of the part that each point lies on (or is closest to)."""
    return part_distances(table, points).argmin(0)


def _ellipsoid(x: Tensor, y: Tensor, z: Tensor, size: Tensor) -> Tensor:
    radii = size[:, :3]
    x, y, zs = x / radii[:, 0], y / radii[:, 1], z / radii[:, 2]
    first = (x * x + y * y + zs * zs).sqrt()
    x, y, zs = x / radii[:, 0], y / radii[:, 1], zs / radii[:, 2]
    second = (x * x + y * y + zs * zs).sqrt().clamp_min(1e-6)
    return torch.maximum(first * (first - 1) / second, size[:, 3] - z)


def _box(x: Tensor, y: Tensor, z: Tensor, size: Tensor) -> Tensor:
    rounding = size[:, 3]
    x, y, z = (c.abs() - size[:, i] + rounding for i, c in enumerate((x, y, z)))
    inside = torch.maximum(torch.maximum(x, y), z).clamp_max(0)
    x, y, z = x.clamp_min(0), y.clamp_min(0), z.clamp_min(0)
    return (x * x + y * y + z * z).sqrt() + inside - rounding


def _cone(x: Tensor, y: Tensor, z: Tensor, size: Tensor) -> Tensor:
    bottom, top, half, rounding = size[:, 0], size[:, 1], size[:, 2], size[:, 3]
    q = (x * x + y * y).sqrt()
    cap_x = q - torch.minimum(q, torch.where(z < 0, bottom, top))
    cap_z = z.abs() - half
    slope, height = top - bottom, 2 * half
    share = (((top - q) * slope + (half - z) * height) / (slope * slope + height * height)).clamp(0, 1)
    side_x, side_z = q - top + slope * share, z - half + height * share
    squared = torch.minimum(cap_x * cap_x + cap_z * cap_z, side_x * side_x + side_z * side_z)
    sign = 1 - 2 * ((side_x < 0) & (cap_z < 0)).to(x.dtype)
    return sign * squared.sqrt() - rounding


def _torus(x: Tensor, y: Tensor, z: Tensor, size: Tensor) -> Tensor:
    ring = (x * x + y * y).sqrt() - size[:, 0]
    return (ring * ring + z * z).sqrt() - size[:, 1]


_DISTANCE = {"ellipsoid": _ellipsoid, "box": _box, "cone": _cone, "torus": _torus}
