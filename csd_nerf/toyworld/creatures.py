"""Creatures (cat, duck, bear, snowman, robot) of the toy world.

Every builder takes `v`, four numbers in -1..1 drawn from the scene's seed, and returns the parts of an object that
faces +x, stands on z = 0 and reaches at most about 1.7 units up and 1.2 from the z axis, and the place of a hat.
"""

from csd_nerf.toyworld.geometry import along, scaled, turned
from csd_nerf.toyworld.solids import (
    BLACK,
    BODY,
    BROWN,
    CREAM,
    DARK,
    GREY,
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


def cat(v: Proportions) -> Built:
    """A sitting cat."""
    body, head = 0.37 * (1 + 0.1 * v[0]), 0.33 * (1 + 0.07 * v[1])
    z = 0.98 + 0.06 * v[2]
    x = 0.12
    parts = [
        ellipsoid((-0.1, 0, 0.42), (body + 0.04, body, 0.46)),
        ellipsoid((0.02, 0, 0.66), (0.27, 0.27, 0.36)),
        ellipsoid((x, 0, z), (head * 0.95, head * 1.08, head * 0.92)),
        ellipsoid((0.17, 0, 0.5), (0.17, 0.18, 0.3), WHITE),
        ellipsoid((x + head * 0.83, 0, z - 0.09), (0.1, 0.14, 0.09), WHITE),
        ellipsoid((x + head * 0.83 + 0.09, 0, z - 0.045), (0.03, 0.045, 0.03), "#e0708a"),
    ]
    parts += sides(
        lambda s: cone(
            (x - 0.02, 0.62 * head * s, z + head * 0.98),
            0.13,
            0.015,
            0.13,
            rounding=0.01,
            rotation=along((0.05, 0.22 * s, 1)),
        )
    )
    parts += sides(
        lambda s: cone(
            (x + 0.045, 0.62 * head * s, z + head * 0.92),
            0.08,
            0.01,
            0.09,
            "#f0a8b4",
            rotation=along((0.08, 0.22 * s, 1)),
        )
    )
    parts += sides(lambda s: ellipsoid((x + head * 0.82, 0.14 * s, z + 0.05), (0.05, 0.07, 0.08), "#9fd430"))
    parts += sides(lambda s: ellipsoid((x + head * 0.82 + 0.035, 0.14 * s, z + 0.05), (0.03, 0.03, 0.065), BLACK))
    parts += sides(lambda s: stick((0.2, 0.14 * s, 0.5), (0.27, 0.15 * s, 0.08), 0.085))
    parts += sides(lambda s: ellipsoid((0.32, 0.15 * s, 0.07), (0.13, 0.1, 0.075), WHITE))
    parts += sides(lambda s: ellipsoid((-0.1, 0.3 * s, 0.2), (0.26, 0.14, 0.22)))
    bend = 1.0 if v[3] > 0 else -1.0
    tail = [(-0.4, 0, 0.12), (-0.66, 0.1 * bend, 0.14), (-0.8, 0.22 * bend, 0.36), (-0.76, 0.3 * bend, 0.62)]
    parts += [stick(a, b, 0.075) for a, b in zip(tail, tail[1:], strict=False)]
    parts.append(ellipsoid(tail[-1], 0.09, WHITE))
    return parts, Anchor(x - 0.01, 0, z + head * 0.78, 0.95)


def duck(v: Proportions) -> Built:
    """A duck."""
    long, head = 0.6 * (1 + 0.07 * v[0]), 0.29 * (1 + 0.08 * v[1])
    x, z = 0.36, 0.98 + 0.07 * v[2]
    parts = [
        ellipsoid((-0.06, 0, 0.38), (long, 0.43, 0.37)),
        cone((0.31, 0, 0.68), 0.24, 0.17, 0.2, rounding=0.02, rotation=along((0.15, 0, 1))),
        ellipsoid((x, 0, z), head),
        ellipsoid((x + head + 0.06, 0, z - 0.05), (0.17, 0.15, 0.055), "#f28a14"),
        ellipsoid((x + head + 0.03, 0, z - 0.11), (0.12, 0.11, 0.04), "#c8690a"),
        cone((-long - 0.04, 0, 0.58), 0.19, 0.03, 0.2, rounding=0.02, rotation=along((-0.8, 0, 0.9))),
        cone((0.3, 0, 0.53), 0.245, 0.245, 0.025, WHITE, 0.02, along((0.15, 0, 1))),
    ]
    parts += sides(
        lambda s: ellipsoid((-0.12, 0.4 * s, 0.44 + 0.03 * v[3]), (0.36, 0.09, 0.21), rotation=turned("y", 14))
    )
    parts += sides(
        lambda s: ellipsoid((-0.2, 0.455 * s, 0.42 + 0.03 * v[3]), (0.2, 0.055, 0.1), WHITE, turned("y", 14))
    )
    parts += sides(lambda s: ellipsoid((x + head * 0.72, head * 0.58 * s, z + 0.08), 0.075, WHITE))
    parts += sides(lambda s: ellipsoid((x + head * 0.72 + 0.045, head * 0.58 * s + 0.025 * s, z + 0.085), 0.05, BLACK))
    parts = scaled(parts, 1.1)
    return parts, Anchor(1.1 * x - 0.02, 0, 1.1 * (z + head * 0.78), 1.0)


def bear(v: Proportions) -> Built:
    """A sitting teddy bear."""
    body, head = 0.4 * (1 + 0.1 * v[0]), 0.35 * (1 + 0.07 * v[1])
    z, arm = 1.03 + 0.05 * v[2], 0.12 * v[3]
    parts = [
        ellipsoid((0, 0, 0.46), (body * 0.92, body, 0.45)),
        ellipsoid((0.03, 0, z), (head * 0.95, head * 1.05, head * 0.95)),
        ellipsoid((body * 0.72, 0, 0.46), (0.14, 0.24, 0.27), CREAM),
        ellipsoid((head * 0.95, 0, z - 0.08), (0.15, 0.17, 0.13), CREAM),
        ellipsoid((head * 0.95 + 0.14, 0, z - 0.03), (0.05, 0.07, 0.05), BLACK),
        ellipsoid((-body * 0.92, 0, 0.36), 0.11, CREAM),
    ]
    parts += sides(lambda s: ellipsoid((0, 0.29 * s, z + 0.26), (0.09, 0.14, 0.14)))
    parts += sides(lambda s: ellipsoid((0.065, 0.29 * s, z + 0.26), (0.05, 0.085, 0.085), CREAM))
    parts += sides(lambda s: ellipsoid((head * 0.86, 0.14 * s, z + 0.08), 0.052, BLACK))
    parts += sides(lambda s: stick((0.05, 0.34 * s, 0.68), (0.3, 0.5 * s, 0.46 + arm * s), 0.12))
    parts += sides(lambda s: stick((0.1, 0.24 * s, 0.16), (0.44, 0.3 * s, 0.15), 0.15))
    parts += sides(lambda s: ellipsoid((0.57, 0.315 * s, 0.16), (0.04, 0.1, 0.1), CREAM))
    return parts, Anchor(0.02, 0, z + head * 0.8, 0.95)


def snowman(v: Proportions) -> Built:
    """Three balls with a carrot, a scarf and stick arms."""
    low, mid, top = 0.46 * (1 + 0.07 * v[0]), 0.34 * (1 + 0.08 * v[1]), 0.255 * (1 + 0.08 * v[2])
    z_low = low * 0.92
    z_mid = z_low + 0.68 * (low + mid)
    z_top = z_mid + 0.76 * (mid + top)
    parts = [ellipsoid((0, 0, z_low), low), ellipsoid((0, 0, z_mid), mid), ellipsoid((0, 0, z_top), top)]
    parts += sides(lambda s: ellipsoid((top * 0.88, 0.1 * s, z_top + 0.07), 0.042, BLACK))
    parts.append(cone((top + 0.12, 0, z_top - 0.02), 0.06, 0.008, 0.15, "#f07a18", rotation=along((1, 0, -0.08))))
    parts += [ellipsoid((mid * 0.97, 0, z_mid + h), 0.042, BLACK) for h in (-0.08, 0.1)]
    parts.append(ellipsoid((low * 0.97, 0, z_low + 0.1), 0.042, BLACK))
    parts += sides(
        lambda s: stick((0, 0.28 * s, z_mid + 0.03), (0.1, 0.72 * s, z_mid + 0.25 + 0.1 * v[3]), 0.03, BROWN)
    )
    parts.append(torus((0, 0, z_top - 0.72 * top), top * 0.72, 0.062, "#1e8f8a"))
    parts.append(stick((0.2, 0.14, z_top - 0.75 * top), (mid + 0.02, 0.2, z_mid - 0.02), 0.055, "#1e8f8a"))
    return scaled(parts, 0.94), Anchor(0, 0, 0.94 * (z_top + top * 0.72), 0.92)


def robot(v: Proportions) -> Built:
    """A robot with a panel on its chest."""
    wide, tall, head = 0.36 * (1 + 0.12 * v[0]), 0.33 * (1 + 0.1 * v[1]), 0.27 * (1 + 0.1 * v[2])
    z, arm = 0.36 + tall, 0.08 * v[3]
    top = z + tall + 0.07 + 0.21
    parts = [
        box((0, 0, z), (0.27, wide, tall), rounding=0.06),
        box((0, 0, top), (0.23, head, 0.21), rounding=0.06),
        cone((0, 0, z + tall + 0.03), 0.1, 0.1, 0.06, GREY),
        box((0.27, 0, z + 0.04), (0.02, wide * 0.66, tall * 0.5), DARK, 0.015),
        ellipsoid((0.295, 0.12, z + 0.12), 0.05, "#e03030", finish=Finish(glow=0.7)),
        ellipsoid((0.295, -0.02, z + 0.12), 0.05, "#f5c542", finish=Finish(glow=0.7)),
        box((0.29, 0.03, z - 0.04), (0.02, 0.15, 0.03), "#48d0e0", 0.01, finish=Finish(glow=0.8)),
        box((0.23, 0, top - 0.1), (0.02, head * 0.55, 0.028), DARK, 0.01),
    ]
    parts += sides(
        lambda s: ellipsoid(
            (0.23, 0.45 * head * s, top + 0.05), (0.045, 0.075, 0.075), "#d8fbff", finish=Finish(glow=1.0)
        )
    )
    parts += sides(lambda s: ellipsoid((0.265, 0.45 * head * s, top + 0.05), (0.025, 0.035, 0.035), BLACK))
    parts += sides(lambda s: cone((0, (head + 0.05) * s, top), 0.075, 0.075, 0.045, GREY, 0.01, turned("x", 90)))
    parts += sides(
        lambda s: stick(
            (0, (wide + 0.09) * s, z + tall - 0.1), (0.1, (wide + 0.17) * s, z - 0.2 + arm * s), 0.07, GREY, finish=BODY
        )
    )
    parts += sides(lambda s: ellipsoid((0.12, (wide + 0.18) * s, z - 0.26 + arm * s), 0.105))
    parts += sides(lambda s: cone((0, 0.18 * s, 0.24), 0.09, 0.09, 0.16, GREY, finish=BODY))
    parts += sides(lambda s: box((0.06, 0.18 * s, 0.07), (0.19, 0.125, 0.075), "main", 0.04))
    return parts, Anchor(0, 0, top + 0.19, 1.0)
