"""Which object in which colour a picture shows: nearest neighbour among true pictures.

A picture is compared with true pictures of every object in every colour, and of the ground without an object, in the
material, on the background and from the view (front, side, back, overhead) that its caption names. Shape, camera and
sun are drawn anew for each of them, as the toy world draws them. Pictures are compared in Lab at `SIDE` pixels; a
picture may be moved by one pixel in each direction, whatever is nearest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from csd_nerf.toyworld.cameras import Cameras, random_cameras
from csd_nerf.toyworld.captions import caption, view_word
from csd_nerf.toyworld.geometry import PartTable, compile_parts
from csd_nerf.toyworld.judging.colour import to_lab
from csd_nerf.toyworld.scene import COLOURS, HELD_OUT_SEEDS, OBJECT_NAMES, Scene, scene_from_seed
from csd_nerf.toyworld.shading import shade
from csd_nerf.toyworld.solids import ellipsoid
from csd_nerf.toyworld.trace import GeometryBuffer, trace

SIDE, _SHIFT, _BORDER = 32, 1, 2
_BANK_SEED = 50_000_000
"""First seed of the judge's own shapes and cameras; no scene of the training or the check has one as high."""


@dataclass(frozen=True)
class CaptionScene:
    """A held-out scene, the camera that it is seen from, and the words for it."""

    scene: Scene
    cameras: Cameras
    """One camera."""
    words: str = field(init=False)
    """The caption."""
    view: str = field(init=False)
    """front, side, back or overhead."""

    def __post_init__(self) -> None:
        """Find the words."""
        place = (self.cameras.azimuth[0], self.cameras.elevation[0])
        object.__setattr__(self, "words", caption(self.scene, *place))
        object.__setattr__(self, "view", view_word(*place))


@dataclass(frozen=True)
class PictureVerdict:
    """What one picture shows."""

    object: str | None
    """None: nothing, the bare ground is nearer than any object."""
    colour: str | None
    distance: float
    """Root mean square distance in Lab / 100 to the nearest true picture."""

    def right(self, scene: Scene) -> bool:
        """Whether it is the scene's object in the scene's colour."""
        return (self.object, self.colour) == (scene.object, scene.colour)


def caption_scenes(count: int, size: int = 64, first_seed: int = HELD_OUT_SEEDS) -> list[CaptionScene]:
    """The first held-out scenes whose captions name a colour (bare wood and stone name none), a random camera each."""
    chosen, seed = [], first_seed
    while len(chosen) < count:
        scene = scene_from_seed(seed)
        if scene.painted:
            chosen.append(CaptionScene(scene, random_cameras(1, seed, size)))
        seed += 1
    return chosen


@dataclass(frozen=True)
class _Candidate:
    scene: Scene
    buffer: GeometryBuffer
    object: str | None


class PictureJudge:
    """Nearest neighbour among `cameras` true pictures of each object in each colour."""

    def __init__(self, cameras: int = 24) -> None:
        """`cameras` per object and view; more know an object in more shapes and from more sides, and take longer."""
        self.cameras = cameras

    def __call__(
        self,
        pictures: Float[Tensor, "n 3 h w"],
        asked: Sequence[CaptionScene],
        on_step: Callable[[int, int], None] | None = None,
    ) -> list[PictureVerdict]:
        """What each picture (0..1, h and w at least `SIDE`) shows, known the words that it was drawn from.

        `on_step(done, total)` counts pictures.
        """
        features = _features(pictures)
        groups: dict[tuple[str, str, str], list[int]] = {}
        for index, one in enumerate(asked):
            groups.setdefault((one.view, one.scene.material, one.scene.background), []).append(index)
        verdicts: dict[int, PictureVerdict] = {}
        view, bank = "", []
        for key in sorted(groups):
            # Geometry is traced once per view, and forgotten before the next: it takes a few hundred megabytes.
            if key[0] != view:
                view, bank = key[0], self._bank(key[0])
            names, known = _shade(bank, material=key[1], background=key[2])
            for index in groups[key]:
                distances = _distances(features[index], known)
                best = int(distances.argmin())
                verdicts[index] = PictureVerdict(*names[best], distance=float(distances[best].sqrt()))
            if on_step is not None:
                on_step(len(verdicts), len(asked))
        return [verdicts[index] for index in range(len(asked))]

    def _bank(self, view: str) -> list[_Candidate]:
        """Traced geometry of every object, and of none, from `cameras` cameras that see this view."""
        bank, seed = [], _BANK_SEED
        for name in (*OBJECT_NAMES, None):
            for _ in range(self.cameras):
                seed, cameras = _next_camera(view, seed)
                rng = np.random.default_rng([seed, 43])
                shape = tuple(rng.uniform(-1, 1, 4).round(4).tolist())
                sun = float(-35 + rng.uniform(-25, 25))
                scene = Scene(seed, name or OBJECT_NAMES[0], shape, "red", "studio", sun_azimuth=sun)
                table = scene.table if name else _nothing()
                bank.append(_Candidate(scene, trace(table, cameras, sun), name))
        return bank


def _next_camera(view: str, seed: int) -> tuple[int, Cameras]:
    """The first seed after `seed` whose random camera sees this view, and this camera."""
    while True:
        seed += 1
        cameras = random_cameras(1, seed, SIDE)
        if view_word(cameras.azimuth[0], cameras.elevation[0]) == view:
            return seed, cameras


def _nothing() -> PartTable:
    """An object that no camera sees: a grain far below the ground."""
    return compile_parts([ellipsoid((0.0, 0.0, -9.0), 0.01)])


def _shade(
    bank: list[_Candidate], material: str, background: str
) -> tuple[list[tuple[str | None, str | None]], Float[Tensor, "m 3 s s"]]:
    """Object and colour of each candidate, and its features."""
    names: list[tuple[str | None, str | None]] = []
    pictures = []
    for candidate in bank:
        for colour in COLOURS if candidate.object else ("red",):
            scene = replace(candidate.scene, colour=colour, material=material, background=background)
            pictures.append(shade(candidate.buffer, scene))
            names.append((candidate.object, colour if candidate.object else None))
    return names, _features(torch.cat(pictures))


def _features(pictures: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 s s"]:
    return F.adaptive_avg_pool2d(to_lab(pictures.float().cpu()), SIDE)


def _distances(one: Float[Tensor, "3 s s"], known: Float[Tensor, "m 3 s s"]) -> Float[Tensor, " m"]:
    """Mean square distance to each candidate, the smallest over the moves of one pixel; the rim is left out."""
    inner = slice(_BORDER, SIDE - _BORDER)
    moves = [(y, x) for y in range(-_SHIFT, _SHIFT + 1) for x in range(-_SHIFT, _SHIFT + 1)]
    moved = torch.stack([one.roll(move, (1, 2))[:, inner, inner].flatten() for move in moves])
    candidates = known[:, :, inner, inner].flatten(1)
    return torch.cdist(candidates, moved).amin(1).square() / candidates.shape[1]
