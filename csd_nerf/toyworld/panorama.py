"""Panoramas: several toy scenes around one camera, and the true edits of the whole.

The camera stands in the middle and turns about the vertical axis; the objects stand on a circle around it, one to each
picture's width, and face it, on one ground under one sky and one sun. A column of the panorama is the middle column of
a tilted pinhole camera that looks that way: with focal length f and tilt e (both in `cameras`), the ray of a point u
pixels right of and v above the panorama's middle is

    R_z(-u / (f cos e)) normalize(forward(e) + v / f up(e)),

so that around each object's middle the panorama is what a camera of the toy world sees. There is no join: all of it is
traced at once. Objects of one panorama share material, background and sun, and whatever an edit does it does to all.
"""

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.toyworld.cameras import DISTANCE, FIELD_OF_VIEW, TARGET
from csd_nerf.toyworld.edits import Edit
from csd_nerf.toyworld.geometry import Part, PartTable, Rotation, Vector, compile_parts, turned
from csd_nerf.toyworld.objects import OBJECTS, hat_parts
from csd_nerf.toyworld.scene import COLOURS, OBJECT_NAMES, Scene, scene_from_seed
from csd_nerf.toyworld.shading import shade
from csd_nerf.toyworld.trace import GeometryBuffer, trace_rays

ELEVATION = 15.0
"""Degrees by which the camera looks down."""
PICTURE = 64
"""Pixels along the side of a picture of the toy world: the distance of neighbouring objects."""
FOCAL = PICTURE / (2 * math.tan(math.radians(FIELD_OF_VIEW) / 2))
CIRCLE = DISTANCE * math.cos(math.radians(ELEVATION))
"""Distance of the objects from the camera's foot, scene units."""
APART = PICTURE / (FOCAL * math.cos(math.radians(ELEVATION)))
"""Angle between neighbouring objects, radians."""
MOST = int(2 * math.pi / APART)
"""Objects that the circle has room for."""
_SHARED = ("background", "material", "painted", "snow", "night", "sun_azimuth")


@dataclass(frozen=True)
class Panorama:
    """Toy scenes from left to right; edits are made with `edited`.

    Raises:
        ValueError: there are none, more than the circle has room for, or they do not share what one place has once.
    """

    scenes: tuple[Scene, ...]

    def __post_init__(self) -> None:
        """Refuse what no picture can show."""
        if not 1 <= len(self.scenes) <= MOST:
            raise ValueError(f"a panorama has 1 to {MOST} objects, got {len(self.scenes)}")
        for name in _SHARED:
            values = {getattr(scene, name) for scene in self.scenes}
            if len(values) > 1:
                raise ValueError(f"the objects of a panorama share their {name}, got {sorted(map(str, values))}")

    @property
    def width(self) -> int:
        """Of its picture, in pixels."""
        return PICTURE * len(self.scenes)

    @property
    def azimuths(self) -> tuple[float, ...]:
        """Where the camera looks to see each object, radians, counter-clockwise from +x."""
        return tuple(APART * ((len(self.scenes) - 1) / 2 - i) for i in range(len(self.scenes)))

    @property
    def sun_azimuth(self) -> float:
        """Degrees; the middle of the panorama is lit as in a scene of its own."""
        return self.scenes[0].sun_azimuth + 180

    def edited(self, edit: Edit) -> "Panorama":
        """The same after an edit of every object and of the place."""
        return replace(self, scenes=tuple(edit.scene(scene) for scene in self.scenes))

    @cached_property
    def table(self) -> PartTable:
        """The primitives of all objects in the world, hats included, painted as they are."""
        return compile_parts(
            [part for scene, a in zip(self.scenes, self.azimuths, strict=True) for part in _at(scene, a)]
        )


def _at(scene: Scene, azimuth: float) -> list[Part]:
    """The parts of a scene's object on the circle, turned to the camera, in its own colours."""
    parts, anchor = OBJECTS[scene.object](scene.proportions)
    if scene.hat is not None:
        parts = parts + hat_parts(scene.hat.kind, anchor)
    turn = turned("z", math.degrees(azimuth) + 180)
    shift = (CIRCLE * math.cos(azimuth), CIRCLE * math.sin(azimuth), 0.0)
    placed = []
    for part in parts:
        x, y, z = (sum(turn[i][j] * part.centre[j] for j in range(3)) + shift[i] for i in range(3))
        placed.append(_painted(replace(part, centre=(x, y, z), rotation=_product(turn, part.rotation)), scene))
    return placed


def _product(a: Rotation, b: Rotation) -> Rotation:
    def row(i: int) -> Vector:
        x, y, z = (sum(a[i][k] * b[k][j] for k in range(3)) for j in range(3))
        return (x, y, z)

    return (row(0), row(1), row(2))


def _painted(part: Part, scene: Scene) -> Part:
    """A part in fixed colours, since objects of one panorama differ in theirs."""
    if part.paint == "main":
        return replace(part, paint=COLOURS[scene.colour], textured=True)
    if part.paint == "hat":
        assert scene.hat is not None
        return replace(part, paint=COLOURS[scene.hat.colour])
    return part


@dataclass
class PanoramaRenderer:
    """Pictures of one panorama before and after edits; what was traced is kept."""

    height: int = PICTURE
    """Pixels; what a picture of 64 does not show is added above and below."""
    samples: int = 2
    """Rays along a pixel's side."""
    _traced: dict[tuple, GeometryBuffer] = field(default_factory=dict, repr=False)

    def render(self, panorama: Panorama) -> Float[Tensor, "3 h w"]:
        """The picture, 0..1 sRGB."""
        buffer, table = self._buffer(panorama), panorama.table
        return shade(replace(buffer, table=table), panorama.scenes[0])[0]

    def edited(self, panorama: Panorama, edit: Edit) -> Float[Tensor, "3 h w"]:
        """The true picture after an edit. Lengths of styles grow with the height, see `styles`."""
        return edit.picture(self.render(panorama.edited(edit))[None])[0]

    def _buffer(self, panorama: Panorama) -> GeometryBuffer:
        shapes = tuple((s.object, s.proportions, s.hat.kind if s.hat else None) for s in panorama.scenes)
        key = (shapes, panorama.sun_azimuth)
        if key not in self._traced:
            rays = panorama_rays(self.height, panorama.width, self.samples)
            shape = (1, self.height, panorama.width)
            table, sun = panorama.table, panorama.sun_azimuth
            self._traced[key] = trace_rays(table, rays, sun, shape, self.samples, CIRCLE)
        return self._traced[key]


def panorama_rays(height: int, width: int, samples: int = 2) -> tuple[Float[Tensor, "3 n"], Float[Tensor, "3 n"]]:
    """Origins and unit directions of `samples` x `samples` rays in every pixel, ordered as those of `pixel_rays`."""
    tilt = math.radians(ELEVATION)
    up = (height / 2 - (torch.arange(height * samples) + 0.5) / samples) / FOCAL
    turn = (width / 2 - (torch.arange(width * samples) + 0.5) / samples) / (FOCAL * math.cos(tilt))
    ahead, rise = math.cos(tilt) + up * math.sin(tilt), up * math.cos(tilt) - math.sin(tilt)
    length = (ahead.square() + rise.square()).sqrt()
    ahead, rise = (ahead / length)[:, None], (rise / length)[:, None]
    parts = (ahead * turn.cos(), ahead * turn.sin(), rise.expand(-1, len(turn)))
    direction = torch.stack([part.reshape(-1) for part in parts])
    centre = torch.tensor([0.0, 0.0, TARGET[2] + DISTANCE * math.sin(tilt)])
    return centre[:, None].expand_as(direction), direction


def panorama_from_seed(seed: int, count: int = 5) -> Panorama:
    """`count` different objects in the place of `scene_from_seed(seed)`, which is one of them.

    Two colours take turns, so that six of the eight are new to all objects. Material and paint are the scene's.
    """
    scene = scene_from_seed(seed)
    rng = np.random.default_rng([seed, 41])
    others = rng.permutation([name for name in OBJECT_NAMES if name != scene.object])[: count - 1].tolist()
    colour = str(rng.choice([colour for colour in COLOURS if colour != scene.colour]))
    place = int(rng.integers(count))
    scenes = []
    for i, name in enumerate([*others[:place], scene.object, *others[place:]]):
        proportions = scene.proportions if i == place else tuple(rng.uniform(-1, 1, 4).round(4).tolist())
        own = scene.colour if (i - place) % 2 == 0 else colour
        scenes.append(replace(scene, object=name, proportions=proportions, colour=own))
    return Panorama(tuple(scenes))


def pictures_of(panorama: Float[Tensor, "3 h w"]) -> Float[Tensor, "n 3 h _w"]:
    """The pictures side by side that a panorama consists of, one for each object."""
    return torch.stack(panorama.split(PICTURE, dim=-1))
