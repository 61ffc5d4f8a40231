"""Things (mushroom, house, car, teapot, tree) of the toy world.

Every builder takes `v`, four numbers in -1..1 drawn from the scene's seed, and returns the parts of an object that
faces +x, stands on z = 0 and reaches at most about 1.7 units up and 1.2 from the z axis, and the place of a hat.
"""

import math

from csd_nerf.toyworld.geometry import along, scaled, turned
from csd_nerf.toyworld.solids import (
    BLACK,
    BODY,
    BROWN,
    CREAM,
    GLASS,
    GREY,
    LAMP,
    LIT,
    WHITE,
    Anchor,
    Built,
    Finish,
    Proportions,
    box,
    cone,
    ellipsoid,
    sides,
    stick,
    torus,
)


def mushroom(v: Proportions) -> Built:
    """A spotted cap on a cream stem with a face."""
    wide, high = 0.76 * (1 + 0.10 * v[0]), 0.58 * (1 + 0.12 * v[1])
    foot = 0.70 * (1 + 0.08 * v[2])
    parts = [
        cone((0, 0, foot / 2), 0.27, 0.2, foot / 2 - 0.03, CREAM, 0.05, finish=BODY),
        ellipsoid((0, 0, foot - 0.03), (wide, wide, high), cut=-0.02),
    ]
    for azimuth, height, size in (
        (15, 0.45, 0.15),
        (80, 0.3, 0.12),
        (135, 0.6, 0.15),
        (200, 0.3, 0.13),
        (265, 0.5, 0.15),
        (320, 0.22, 0.11),
        (60, 0.8, 0.13),
        (240, 0.85, 0.1),
        (170, 0.12, 0.1),
    ):
        a, e = math.radians(azimuth + 12 * v[3]), math.asin(height)
        normal = (math.cos(e) * math.cos(a), math.cos(e) * math.sin(a), math.sin(e))
        place = (0.99 * wide * normal[0], 0.99 * wide * normal[1], foot - 0.03 + 0.99 * high * normal[2])
        parts.append(ellipsoid(place, (size, size, 0.05), WHITE, along(normal)))
    parts += sides(lambda s: ellipsoid((0.25, 0.1 * s, foot * 0.56), (0.05, 0.055, 0.085), BLACK))
    parts.append(ellipsoid((0.29, 0, foot * 0.36), (0.04, 0.08, 0.03), "#c0504a"))
    return parts, Anchor(0, 0, foot + high - 0.1, 1.0)


def house(v: Proportions) -> Built:
    """A gabled house with a door in front and windows that shine at night."""
    deep, wide, wall = 0.56 * (1 + 0.1 * v[0]), 0.56 * (1 + 0.08 * v[1]), 0.38 * (1 + 0.1 * v[2])
    eave, roof = 2 * wall, "#5a4038"
    side = wide / math.sqrt(2)
    ridge = eave + wide
    parts = [
        box((0, 0, wall), (deep, wide, wall), rounding=0.01),
        box((0, 0, eave - 0.01), (deep - 0.005, side, side), rounding=0.005, rotation=turned("x", 45)),
        box((-0.25, 0.3 * wide, eave + 0.62 * wide), (0.09, 0.09, 0.28), "#a05540", 0.01),
        box((deep, 0, 0.23), (0.03, 0.13, 0.23), "#6a3d1e", 0.01),
        ellipsoid((deep + 0.035, 0.08, 0.22), 0.025, LAMP),
        ellipsoid((deep, 0, eave + 0.12), (0.03, 0.12, 0.12), GLASS, finish=LIT),
    ]
    length = side + 0.09
    for s in (1.0, -1.0):
        y, z = s * wide / 2, eave + wide / 2
        centre = (0.0, y + s * 0.055, z)
        parts.append(box(centre, (deep + 0.1, length, 0.045), roof, 0.01, turned("x", -45 * s), finish=BODY))
    for s in (1.0, -1.0):
        parts.append(box((deep, 0.34 * s, 0.42), (0.025, 0.11, 0.12), GLASS, 0.01, finish=LIT))
        parts.append(box((0.2 * s, wide, 0.42), (0.12, 0.025, 0.12), GLASS, 0.01, finish=LIT))
        parts.append(box((0.2 * s, -wide, 0.42), (0.12, 0.025, 0.12), GLASS, 0.01, finish=LIT))
    parts.append(box((-deep, 0, 0.42), (0.025, 0.2, 0.12), GLASS, 0.01, finish=LIT))
    return parts, Anchor(0.1, 0, ridge - 0.02, 1.05)


def car(v: Proportions) -> Built:
    """A boxy car."""
    long, high = 0.84 * (1 + 0.07 * v[0]), 0.2 * (1 + 0.15 * v[1])
    cabin, wheel = 0.44 * (1 + 0.12 * v[2]), 0.21 * (1 + 0.1 * v[3])
    z = wheel + high * 0.85
    top = z + high + 0.15
    parts = [
        box((0, 0, z), (long, 0.42, high), rounding=0.11),
        box((-0.1, 0, top), (cabin, 0.36, 0.22), rounding=0.1),
        box((-0.1, 0, top - 0.01), (cabin + 0.012, 0.29, 0.13), GLASS, 0.06),
        box((0.06, 0, top - 0.01), (cabin * 0.36, 0.372, 0.12), GLASS, 0.05),
        box((-0.1 - cabin * 0.58, 0, top - 0.01), (cabin * 0.26, 0.372, 0.12), GLASS, 0.05),
        box((long - 0.02, 0, z - 0.08), (0.05, 0.38, 0.05), GREY, 0.03),
        box((-long + 0.02, 0, z - 0.08), (0.05, 0.38, 0.05), GREY, 0.03),
    ]
    for x in (0.55 * long, -0.57 * long):
        parts += sides(
            lambda s, x=x: cone((x, 0.38 * s, wheel), wheel - 0.03, wheel - 0.03, 0.06, BLACK, 0.03, turned("x", 90))
        )
        parts += sides(lambda s, x=x: ellipsoid((x, 0.46 * s, wheel), (0.1, 0.03, 0.1), "#c9ccd2"))
    parts += sides(
        lambda s: ellipsoid((long - 0.01, 0.27 * s, z + 0.04), (0.05, 0.085, 0.075), LAMP, finish=Finish(glow=1.0))
    )
    parts += sides(
        lambda s: ellipsoid((-long + 0.01, 0.28 * s, z + 0.05), (0.04, 0.08, 0.05), "#c01818", finish=Finish(glow=0.5))
    )
    parts = scaled(parts, 1.08)
    return parts, Anchor(-0.1, 0, 1.08 * (top + 0.2), 1.1)


def teapot(v: Proportions) -> Built:
    """A teapot with a flower in front, the spout on its left."""
    wide, high = 0.6 * (1 + 0.08 * v[0]), 0.46 * (1 + 0.1 * v[1])
    z = high + 0.05
    parts = [
        ellipsoid((0, 0, z), (wide, wide, high)),
        cone((0, 0, 0.05), 0.36, 0.32, 0.05, CREAM, 0.01, finish=BODY),
        cone((0, 0, z + high * 0.86), 0.36, 0.34, 0.02, CREAM, 0.02, finish=BODY),
        ellipsoid((0, 0, z + high * 0.88), (0.31, 0.31, 0.16)),
        ellipsoid((0, 0, z + high * 0.88 + 0.2), 0.085, CREAM),
        torus((0, -wide - 0.06, z + 0.04), 0.25 + 0.03 * v[2], 0.058, "main", turned("y", 90)),
    ]
    tip = 0.36 + 0.06 * v[3]
    parts.append(cone((0, wide + 0.14, z + 0.06), 0.15, 0.075, 0.26, rounding=0.02, rotation=along((0, 0.9, 0.75))))
    parts.append(cone((0, wide + tip, z + 0.26), 0.085, 0.1, 0.035, CREAM, 0.015, rotation=along((0, 0.7, 0.95))))
    flower_x = wide * 0.985
    parts.append(ellipsoid((flower_x, 0, z), (0.05, 0.075, 0.075), "#f5c542"))
    for k in range(5):
        a = math.radians(90 + 72 * k)
        y, up = 0.145 * math.cos(a), 0.145 * math.sin(a)
        bulge = wide * math.sqrt(max(0.0, 1 - (y / wide) ** 2 - (up / high) ** 2))
        parts.append(ellipsoid((bulge, y, z + up), (0.035, 0.08, 0.08), WHITE))
    parts = scaled(parts, 1.08)
    return parts, Anchor(0, 0, 1.08 * (z + high * 0.88 + 0.14), 1.05)


def tree(v: Proportions) -> Built:
    """A round tree with red fruit in front and one low branch."""
    crown, z = 0.46 * (1 + 0.1 * v[0]), 0.95 * (1 + 0.05 * v[1])
    lean = 0.05 * v[2]
    balls = [
        ((lean, 0, z + 0.14), crown),
        ((0.22, 0.3, z - 0.08), 0.32),
        ((0.2, -0.32, z - 0.06), 0.3),
        ((-0.3, 0.1, z - 0.05), 0.34),
        ((0.02, 0.03, z + 0.34), 0.34),
    ]
    parts = [cone((0, 0, 0.35), 0.19, 0.11, 0.35, BROWN, 0.02, finish=BODY)]
    parts += [ellipsoid(c, r) for c, r in balls]
    parts.append(stick((0, -0.05, 0.38), (0.05, -0.42, 0.62 + 0.06 * v[3]), 0.055, BROWN, finish=BODY))
    parts.append(ellipsoid((0.06, -0.52, 0.7 + 0.06 * v[3]), 0.19))
    parts.append(ellipsoid((0.165, 0, 0.3), (0.05, 0.09, 0.13), "#2c1a0c"))
    for x, y, up in ((0.5, 0.2, -0.06), (0.44, -0.28, 0.04), (0.46, 0.0, 0.22), (0.1, 0.6, -0.02), (0.3, 0.3, 0.24)):
        parts.append(ellipsoid((x, y, z + up), 0.075, "#e8352a"))
    parts = scaled(parts, 0.93)
    return parts, Anchor(0.02, 0.03, 0.93 * (z + 0.34 + 0.28), 1.0)
