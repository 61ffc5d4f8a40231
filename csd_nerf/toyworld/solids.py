"""Short-hands for the primitives that objects are built from, and the colours of their fixed parts."""

import math
from collections.abc import Callable
from typing import NamedTuple, TypedDict

from csd_nerf.toyworld.geometry import UPRIGHT, Number, Part, Rotation, Vector, along

WHITE, CREAM, BLACK, BROWN = "#f2f2f0", "#f0e2c0", "#141418", "#7a4a24"
GREY, DARK, GLASS, LAMP = "#9aa0a8", "#3a3d44", "#27405a", "#ffd97a"
UNCUT = -1e3


class Finish(TypedDict, total=False):
    """Optional fields of a `Part`."""

    textured: bool
    glow: float
    glow_colour: str


LIT = Finish(glow=1.0, glow_colour="#ffd060")
BODY = Finish(textured=True)


class Anchor(NamedTuple):
    """Where a hat sits: the middle of its lower rim, and the factor on a hat of 0.25 units radius."""

    x: Number
    y: Number
    z: Number
    scale: Number


Proportions = tuple[float, ...]
Built = tuple[list[Part], Anchor]


def ellipsoid(
    centre: Vector,
    radii: Vector | float,
    paint: str = "main",
    rotation: Rotation = UPRIGHT,
    cut: float = UNCUT,
    finish: Finish | None = None,
) -> Part:
    """An ellipsoid or (one radius) a sphere, without what lies below `cut` in its own frame."""
    x, y, z = radii if isinstance(radii, tuple) else (radii, radii, radii)
    return Part("ellipsoid", centre, (x, y, z, cut), paint, rotation, **(finish or {}))


def box(
    centre: Vector,
    half: Vector,
    paint: str = "main",
    rounding: float = 0.03,
    rotation: Rotation = UPRIGHT,
    finish: Finish | None = None,
) -> Part:
    """A box of half extents `half`, its rounded edges included."""
    return Part("box", centre, (*half, rounding), paint, rotation, **(finish or {}))


def cone(
    centre: Vector,
    bottom: float,
    top: float,
    half: float,
    paint: str = "main",
    rounding: float = 0.0,
    rotation: Rotation = UPRIGHT,
    finish: Finish | None = None,
) -> Part:
    """A cone or cylinder between two radii, of half height `half`, grown by `rounding`."""
    return Part("cone", centre, (bottom, top, half, rounding), paint, rotation, **(finish or {}))


def torus(centre: Vector, ring: float, tube: float, paint: str = "main", rotation: Rotation = UPRIGHT) -> Part:
    """A ring in its own x-y plane."""
    return Part("torus", centre, (ring, tube, 0, 0), paint, rotation)


def stick(start: Vector, end: Vector, radius: float, paint: str = "main", finish: Finish | None = None) -> Part:
    """A capsule between two points."""
    x, y, z = (e - s for s, e in zip(start, end, strict=True))
    centre = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2, (start[2] + end[2]) / 2)
    return cone(centre, 1e-3, 1e-3, math.dist(start, end) / 2, paint, radius, along((x, y, z)), finish)


def sides(make: Callable[[float], Part]) -> list[Part]:
    """The same part on the left and on the right; `make` takes the sign of y."""
    return [make(1.0), make(-1.0)]
