"""Which hat a picture shows, by comparison with true pictures of the same scene from the same camera.

Everything happens in Lab, lightness at half weight, since networks shade hats in their own way.

1. kind: the hat whose picture, in its best colour, is nearest where any hat changes the bare scene;
2. no hat: where this kind changes the scene, the picture is at least as near to the bare scene as to any colour of it;
3. colour: nearest in the pixels of this hat's cloth that differ from the bare scene. It is *clear* when the mean
   distance to it is at most `CLEAR` of that to the runner-up.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from csd_nerf.toyworld.judging.colour import to_lab
from csd_nerf.toyworld.render import Renderer
from csd_nerf.toyworld.scene import COLOURS, HAT_KINDS, Hat, Scene

CLEAR = 0.7
"""A 60 : 40 mixture of two neighbouring colours is as clear as this, an even one is not."""
_CHANGED, _CLOTH, _FEWEST = 0.1, 0.25, 8
_LIGHTNESS = 0.5


@dataclass(frozen=True)
class HatVerdict:
    """What one picture shows."""

    kind: str | None
    """One of `HAT_KINDS`, None without a hat."""
    colour: str | None
    """A name in `COLOURS`, None without a hat."""
    ratio: float
    """Distance to this colour divided by that to the runner-up, 0..1."""

    @property
    def clear(self) -> bool:
        """Whether there is a hat, and of one colour rather than another."""
        return self.colour is not None and self.ratio <= CLEAR

    @property
    def words(self) -> str:
        """`blue`, `blue?` where it is not clear, `no hat`."""
        return "no hat" if self.colour is None else self.colour + ("" if self.clear else "?")


class HatJudge:
    """Judges pictures of one scene from one camera."""

    def __init__(
        self, bare: Float[Tensor, "1 3 h w"], hatted: Float[Tensor, "kinds colours 3 h w"], colours: tuple[str, ...]
    ) -> None:
        """`hatted` holds the true pictures with every kind of `HAT_KINDS` in every one of `colours`, all 0..1."""
        self._bare, self._colours = bare, colours
        difference = (hatted - bare).abs().amax(2)
        self._changed = (difference > _CHANGED).any(1)  # kinds h w
        self._cloth = (hatted.amax(1) - hatted.amin(1)).amax(1) > _CLOTH
        self._lab_bare = to_lab(bare, _LIGHTNESS)[0]
        self._lab = torch.stack([to_lab(kind, _LIGHTNESS) for kind in hatted])
        if not self._cloth.flatten(1).any(1).all():
            raise ValueError("a hat is hidden from this camera: nothing can be said about its colour")

    def __call__(self, pictures: Float[Tensor, "n 3 h w"]) -> list[HatVerdict]:
        """A verdict on each picture (0..1)."""
        return [self._judge(picture, lab) for picture, lab in zip(pictures, to_lab(pictures, _LIGHTNESS), strict=True)]

    def _judge(self, picture: Float[Tensor, "3 h w"], lab: Float[Tensor, "3 h w"]) -> HatVerdict:
        anywhere = self._changed.any(0)
        to_hats = (lab - self._lab).square().sum(2)  # kinds colours h w
        kind = int(to_hats[:, :, anywhere].mean(2).amin(1).argmin())
        here = self._changed[kind]
        to_bare = (lab - self._lab_bare).square().sum(0)[here].mean()
        if to_bare <= to_hats[kind][:, here].mean(1).min():
            return HatVerdict(None, None, 1.0)
        distances, order = to_hats[kind].sqrt()[:, self._region(picture, kind)].mean(1).sort()
        ratio = float(distances[0] / distances[1].clamp_min(1e-9))
        return HatVerdict(HAT_KINDS[kind], self._colours[int(order[0])], ratio)

    def _region(self, picture: Float[Tensor, "3 h w"], kind: int) -> Bool[Tensor, "h w"]:
        """The cloth that the picture shows; all of it where a small or displaced hat leaves too few pixels."""
        shown = self._cloth[kind] & ((picture - self._bare[0]).abs().amax(0) > _CHANGED)
        return shown if shown.sum() >= _FEWEST else self._cloth[kind]


def hat_judge(scene: Scene, renderer: Renderer) -> HatJudge:
    """The judge of a bare scene, with the first camera of `renderer`. Raises `ValueError` if a hat cannot be seen."""
    hatted = [
        torch.stack([renderer.render(replace(scene, hat=Hat(kind, colour)))[0] for colour in COLOURS])
        for kind in HAT_KINDS
    ]
    return HatJudge(renderer.render(scene)[:1], torch.stack(hatted), tuple(COLOURS))


def clear_colours(verdicts: list[HatVerdict]) -> list[str]:
    """The different colours that are clear, sorted."""
    return sorted({verdict.colour for verdict in verdicts if verdict.clear and verdict.colour})
