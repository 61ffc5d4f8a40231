"""Edits with a known truth: changes of the scene (true in 3D) and styles of the picture.

An `Edit` is data: what it is called, how it is worded, which fields of the scene it replaces, or which style it
applies.
Ambiguous instructions ("give it a hat", "change its colour") draw the missing part at random.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from torch import Tensor

from csd_nerf.toyworld.captions import INSTRUCTIONS
from csd_nerf.toyworld.scene import (
    BARE,
    COLOURS,
    HAT_KINDS,
    HELD_OUT_SEEDS,
    MATERIALS,
    OBJECT_NAMES,
    Hat,
    Scene,
    is_held_out,
)
from csd_nerf.toyworld.style_nets import PAINTINGS, StyleNet
from csd_nerf.toyworld.styles import PHOTO_STYLES, STYLES

SHARES: dict[str, float] = {
    "recolour": 0.18,
    "material": 0.19,
    "hat": 0.20,
    "snow": 0.07,
    "night": 0.06,
    "sketch": 0.08,
    "oil": 0.07,
    "popart": 0.04,
    "colour": 0.05,
    "painting": 0.05,
    "identity": 0.01,
}
AMBIGUOUS = ("hat", "colour")


@dataclass(frozen=True)
class Edit:
    """One edit of one scene."""

    kind: str
    """A key of `SHARES`."""
    instruction: str
    changes: tuple[tuple[str, object], ...] = ()
    """Fields of the scene and their new values."""
    style: str | None = None
    """A name in `STYLES`, `PHOTO_STYLES` or `PAINTINGS`."""

    @property
    def meaning(self) -> str:
        """What it came to mean, in words: `blue top hat`, `stone`, `snow`."""
        said = [
            f"{value.colour} {value.kind}" if isinstance(value, Hat) else str(value)
            for name, value in self.changes
            if name in ("hat", "colour", "material")
        ]
        return " ".join(said) or self.kind

    @property
    def colour(self) -> str | None:
        """The colour that it brings, a name in `COLOURS`: of the object, or of its hat."""
        given = dict(self.changes)
        hat, colour = given.get("hat"), given.get("colour")
        return hat.colour if isinstance(hat, Hat) else colour if isinstance(colour, str) else None

    def scene(self, scene: Scene) -> Scene:
        """The scene after the edit."""
        return replace(scene, **dict(self.changes))

    def picture(self, images: Float[Tensor, "n 3 h w"], nets: Mapping[str, StyleNet] | None = None) -> Tensor:
        """Pictures (0..1) of the edited scene with the edit's style on them.

        Raises:
            KeyError: the style is a painting and its network was not given.
        """
        if self.style is None:
            return images
        ours = STYLES | PHOTO_STYLES
        if self.style in ours:
            return ours[self.style](images)
        if not nets or self.style not in nets:
            raise KeyError(f"the style '{self.style}' needs its network {self.style}.safetensors: give its folder")
        return nets[self.style](images)


def draw_edit(kind: str, scene: Scene | None, rng: np.random.Generator, paintings: tuple[str, ...] = ()) -> Edit | None:
    """A random edit of a kind with random wording, or None where it would change nothing or is not possible.

    Args:
        kind: a key of `SHARES`.
        scene: the scene to edit; None for a photo, which only styles can change.
        rng: draws wording and whatever is left open.
        paintings: the painting styles that may be used.
    """
    template = str(rng.choice(INSTRUCTIONS[kind]))
    if scene is None and "{object}" in template:
        return None
    words: dict[str, str] = {"object": scene.object if scene else ""}
    changes: tuple[tuple[str, object], ...] = ()
    style = kind if kind in STYLES or (scene is None and kind in PHOTO_STYLES) else None
    if kind == "painting":
        if not paintings:
            return None
        style = str(rng.choice(paintings))
        words["painting"] = PAINTINGS[style]
    elif style is None and kind != "identity":
        if scene is None or (change := _draw_change(kind, scene, rng)) is None:
            return None
        changes, said = change
        words |= said
    instruction = template.format(**words).replace(" a orange", " an orange")
    return Edit(kind, instruction, changes, style)


Changes = tuple[tuple[str, object], ...]


def _draw_change(kind: str, scene: Scene, rng: np.random.Generator) -> tuple[Changes, dict[str, str]] | None:
    if kind in ("recolour", "colour"):
        colour = str(rng.choice(_other_colours(scene)))
        return (("colour", colour), ("painted", True)), {"colour": colour}
    if kind == "material":
        # metal takes the colour that it finds, which under bare wood or stone is not to be seen
        materials = MATERIALS[1:] if scene.painted else BARE
        materials = [m for m in materials if m != scene.material or m in BARE and scene.painted]
        # Reflections are the hardest to learn, and half of the scenes cannot have them.
        weights = np.array([2.0 if m == "metal" else 1.0 for m in materials])
        material = str(rng.choice(materials, p=weights / weights.sum()))
        return _material(material), {"material": material}
    if kind == "hat":
        return None if scene.hat else _draw_hat(rng)
    if kind in ("snow", "night"):
        return None if getattr(scene, kind) else (((kind, True),), {})
    raise ValueError(f"unknown kind of edit '{kind}', known: {', '.join(SHARES)}")


def _material(material: str) -> Changes:
    return (("material", material), ("painted", material not in BARE))


def _other_colours(scene: Scene) -> list[str]:
    """Colours that an edit may give; a training scene must not be edited into a held-out combination."""
    training = scene.seed < HELD_OUT_SEEDS
    return [
        colour
        for colour in COLOURS
        if colour != scene.colour and not (training and is_held_out(scene.object, colour, scene.background))
    ]


def _draw_hat(rng: np.random.Generator) -> tuple[Changes, dict[str, str]]:
    """Half of the hats leave the colour open, and three in ten the kind too."""
    hat = Hat(str(rng.choice(HAT_KINDS)), str(rng.choice(list(COLOURS))))
    said = ("hat", hat.kind, f"{hat.colour} hat", f"{hat.colour} {hat.kind}")[rng.choice(4, p=(0.3, 0.2, 0.15, 0.35))]
    return (("hat", hat),), {"hat": said}


def draw_edits(
    scene: Scene | None,
    count: int,
    rng: np.random.Generator,
    paintings: tuple[str, ...] = (),
    shares: Mapping[str, float] = SHARES,
) -> list[Edit]:
    """`count` (or fewer) edits of different kinds; each kind comes with probability `count` times its share.

    Systematic sampling: the shares are laid end to end in random order and hit at equal distances.
    """
    kinds = list(rng.permutation(list(shares)))
    ends = np.cumsum([shares[kind] for kind in kinds])
    hits = (rng.random() + np.arange(count)) / count * ends[-1]
    chosen = [kinds[int(np.searchsorted(ends, hit, side="right"))] for hit in hits]
    edits = [draw_edit(str(kind), scene, rng, paintings) for kind in dict.fromkeys(chosen)]
    return [edit for edit in edits if edit is not None]


def edit_from_instruction(instruction: str, scene: Scene, seed: int = 0) -> Edit:
    """The edit that an instruction of the toy world's language asks for; what it leaves open is drawn from `seed`.

    Raises:
        ValueError: the instruction is none the toy world knows.
    """
    rng = np.random.default_rng([seed, 29])
    words = instruction.lower().replace(",", " ").split()
    colours = [word for word in words if word in COLOURS]
    for style, mark in (("sketch", "pencil"), ("oil", "oil"), ("popart", "pop")):
        if mark in words:
            return Edit(style, instruction, style=style)
    for style, title in PAINTINGS.items():
        if title in " ".join(words):
            return Edit("painting", instruction, style=style)
    if "hat" in words or "cap" in words:
        kinds = [kind for kind in HAT_KINDS if kind in " ".join(words)]
        kind = kinds[0] if kinds else str(rng.choice(HAT_KINDS))
        hat = Hat(kind, colours[0] if colours else str(rng.choice(list(COLOURS))))
        return Edit("hat", instruction, (("hat", hat),))
    if "snow" in words or "winter" in words:
        return Edit("snow", instruction, (("snow", True),))
    if "night" in words:
        return Edit("night", instruction, (("night", True),))
    for material, names in (("wood", ("wood", "wooden")), ("metal", ("metal",)), ("stone", ("stone",))):
        if any(name in words for name in names):
            return Edit("material", instruction, _material(material))
    if colours:
        return Edit("recolour", instruction, (("colour", colours[0]), ("painted", True)))
    if "colour" in words or "color" in words:
        return Edit("colour", instruction, (("colour", str(rng.choice(_other_colours(scene)))), ("painted", True)))
    if instruction.lower().strip() in INSTRUCTIONS["identity"]:
        return Edit("identity", instruction)
    known = ", ".join(f"'{templates[0]}'" for templates in INSTRUCTIONS.values())
    raise ValueError(
        f"no toy-world edit for '{instruction}'; known are, with their paraphrases: {known}; "
        f"objects: {', '.join(OBJECT_NAMES)}"
    )


def possible_edits(instruction: str, scene: Scene) -> list[Edit]:
    """Everything that an instruction can mean, in a fixed order: one edit, or several where it leaves something open.

    Raises:
        ValueError: the instruction is none the toy world knows.
    """
    # What is left open is drawn from a seed; this many draws meet each of 24 hats.
    return sorted({edit_from_instruction(instruction, scene, draw) for draw in range(400)}, key=str)
