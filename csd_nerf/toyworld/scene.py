"""What a toy scene is: an object, how it looks, where it stands. Everything follows from one integer seed.

Train and held-out scenes differ twice: their seeds come from disjoint ranges (held out: `HELD_OUT_SEEDS` and up), and
one combination of object, colour and background in seven never occurs in training, as a source or after an edit.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from csd_nerf.toyworld.geometry import PartTable, compile_parts
from csd_nerf.toyworld.objects import HATS, OBJECTS, hat_parts

OBJECT_NAMES = tuple(OBJECTS)
HAT_KINDS = tuple(HATS)
COLOURS: dict[str, str] = {
    "red": "#dc1f1f",
    "orange": "#f58a12",
    "yellow": "#fbdc1e",
    "green": "#2aa83a",
    "blue": "#2050dc",
    "purple": "#8030b8",
    "pink": "#fa86b8",
    "white": "#f0f0ee",
}
MATERIALS = ("matte", "metal", "wood", "stone")
BARE = ("wood", "stone")
BACKGROUNDS = ("studio", "meadow", "sand", "sea", "floor")
HELD_OUT_SEEDS = 1_000_000


@dataclass(frozen=True)
class Hat:
    """A hat on the object's top."""

    kind: str
    """One of `HAT_KINDS`."""
    colour: str
    """A name in `COLOURS`."""


@dataclass(frozen=True)
class Scene:
    """One toy scene; edits are made with `dataclasses.replace`."""

    seed: int
    """Also the seed of ground and material textures, so they stay put under edits."""
    object: str
    proportions: tuple[float, float, float, float]
    """Variation of the object's shape, each -1..1."""
    colour: str
    background: str
    material: str = "matte"
    painted: bool = True
    """False where bare wood or stone shows and the colour does not."""
    hat: Hat | None = None
    snow: bool = False
    night: bool = False
    sun_azimuth: float = -35.0
    """Degrees from +x towards +y."""

    @cached_property
    def table(self) -> PartTable:
        """The object's primitives, hat included."""
        parts, anchor = OBJECTS[self.object](self.proportions)
        if self.hat is not None:
            parts = parts + hat_parts(self.hat.kind, anchor)
        return compile_parts(parts)

    @property
    def held_out(self) -> bool:
        """Whether training never shows this combination."""
        return is_held_out(self.object, self.colour, self.background)


def is_held_out(object_name: str, colour: str, background: str) -> bool:
    """One combination in seven, spread so that every object, colour and background is seen in training."""
    index = OBJECT_NAMES.index(object_name)
    return (index + 2 * tuple(COLOURS).index(colour) + 3 * BACKGROUNDS.index(background)) % 7 == 0


def scene_from_seed(seed: int) -> Scene:
    """A plain scene (no hat, snow or night); seeds from `HELD_OUT_SEEDS` on give held-out combinations only.

    A third of the scenes has a material other than matte.
    """
    if seed < 0:
        raise ValueError(f"a scene's seed must not be negative, got {seed}")
    rng = np.random.default_rng([seed, 17])
    while True:
        material = MATERIALS[rng.integers(1, len(MATERIALS))] if rng.random() < 0.33 else "matte"
        scene = Scene(
            seed=seed,
            object=OBJECT_NAMES[rng.integers(len(OBJECT_NAMES))],
            proportions=tuple(rng.uniform(-1, 1, 4).round(4).tolist()),
            colour=list(COLOURS)[rng.integers(len(COLOURS))],
            background=BACKGROUNDS[rng.integers(len(BACKGROUNDS))],
            material=material,
            painted=material not in BARE or bool(rng.random() < 0.4),
            sun_azimuth=float(round(-35 + rng.uniform(-25, 25), 2)),
        )
        if scene.held_out == (seed >= HELD_OUT_SEEDS):
            return scene


def odd_scene_from_seed(seed: int, chance: float = 0.15) -> Scene:
    """Like `scene_from_seed`, but with probability `chance` already in one state that an edit could have made."""
    scene = scene_from_seed(seed)
    rng = np.random.default_rng([seed, 18])
    if rng.random() >= chance:
        return scene
    state = rng.integers(3)
    if state == 0:
        return replace(scene, night=True)
    if state == 1:
        return replace(scene, snow=True)
    return replace(scene, hat=Hat(HAT_KINDS[rng.integers(len(HAT_KINDS))], list(COLOURS)[rng.integers(len(COLOURS))]))


def demo_scene() -> Scene:
    """The scene of `csd demo`: an orange bear on a meadow, a combination that training never shows."""
    return Scene(HELD_OUT_SEEDS + 7, "bear", (0.2, 0.1, 0.0, 0.6), "orange", "meadow")
