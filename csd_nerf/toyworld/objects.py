"""The ten objects and three hats of the toy world, by name."""

from collections.abc import Callable

from csd_nerf.toyworld.creatures import bear, cat, duck, robot, snowman
from csd_nerf.toyworld.geometry import Part, scaled
from csd_nerf.toyworld.solids import DARK, WHITE, Anchor, Built, cone, ellipsoid, torus
from csd_nerf.toyworld.things import car, house, mushroom, teapot, tree

OBJECTS: dict[str, Callable[..., Built]] = {
    "mushroom": mushroom,
    "snowman": snowman,
    "house": house,
    "car": car,
    "cat": cat,
    "teapot": teapot,
    "robot": robot,
    "tree": tree,
    "duck": duck,
    "bear": bear,
}


def _party_hat() -> list[Part]:
    parts = [cone((0, 0, 0.25), 0.25, 0.015, 0.26, "hat"), ellipsoid((0, 0, 0.53), 0.075, WHITE)]
    return [*parts, torus((0, 0, 0.02), 0.24, 0.035, WHITE)]


def _top_hat() -> list[Part]:
    return [
        cone((0, 0, 0.02), 0.38, 0.38, 0.012, "hat", 0.015),
        cone((0, 0, 0.24), 0.21, 0.235, 0.21, "hat", 0.015),
        cone((0, 0, 0.075), 0.232, 0.235, 0.04, DARK),
    ]


def _cap() -> list[Part]:
    return [
        ellipsoid((0, 0, -0.02), (0.29, 0.29, 0.27), "hat", cut=0.0),
        ellipsoid((0.3, 0, 0.0), (0.27, 0.22, 0.035), "hat"),
        ellipsoid((0, 0, 0.255), 0.04, WHITE),
    ]


HATS: dict[str, Callable[[], list[Part]]] = {"party hat": _party_hat, "top hat": _top_hat, "cap": _cap}


def hat_parts(kind: str, anchor: Anchor) -> list[Part]:
    """The parts of a hat, placed on an object."""
    return scaled(HATS[kind](), anchor.scale, (anchor.x, anchor.y, anchor.z))
