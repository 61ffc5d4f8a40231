"""What kinds of edits are measured, each by itself where it is a thing of its own to learn.

Wood, metal and stone are one kind to the toy world, and three to whoever asks for one of them; so are the paintings.
"""

from dataclasses import dataclass

import numpy as np

from csd_nerf.toyworld.edits import AMBIGUOUS, SHARES, Edit, draw_edit
from csd_nerf.toyworld.scene import MATERIALS, Hat, Scene
from csd_nerf.toyworld.style_nets import PAINTINGS

_TRIES = 40
"""Draws after which a scene is taken not to allow an edit."""


@dataclass(frozen=True)
class Kind:
    """One kind of edits."""

    name: str
    """In reports."""
    drawn_as: str
    """A key of `edits.SHARES`."""
    part: str | None = None
    """The material or the painting, where it is one of several."""

    def draw(self, scene: Scene, rng: np.random.Generator, paintings: tuple[str, ...]) -> Edit | None:
        """An edit of the scene, or None where it allows none (or there is no network for the painting)."""
        if self.drawn_as == "painting":
            return draw_edit("painting", scene, rng, (self.part,)) if self.part in paintings and self.part else None
        for _ in range(_TRIES):
            edit = draw_edit(self.drawn_as, scene, rng)
            if edit is None or self._fits(edit):
                return edit
        return None

    def _fits(self, edit: Edit) -> bool:
        given = dict(edit.changes)
        hat = given.get("hat")
        if isinstance(hat, Hat):  # what names colour and kind is the kind `NAMED_HAT`
            return (f"{hat.colour} {hat.kind}" in edit.instruction) == (self.name == NAMED_HAT)
        return self.part is None or given["material"] == self.part


NAMED_HAT = "named hat"
"""Hats whose colour and kind the instruction names: the deterministic part of the kind `hat`."""


def _parts(kind: str) -> tuple[Kind, ...]:
    parts = {"material": MATERIALS[1:], "painting": tuple(PAINTINGS)}.get(kind)
    return (Kind(kind, kind),) if parts is None else tuple(Kind(f"{kind}: {part}", kind, part) for part in parts)


KINDS = (
    *(one for kind in sorted(SHARES) if kind not in (*AMBIGUOUS, "identity") for one in _parts(kind)),
    Kind(NAMED_HAT, "hat"),
)
"""Those with one truth, which have gates."""
OPEN_KINDS = tuple(Kind(kind, kind) for kind in AMBIGUOUS)
"""Those that leave something open."""
