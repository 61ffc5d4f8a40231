"""What is edited: toy scenes that the prior's training never saw, and what they are told to become."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from csd_nerf.toyworld.captions import caption, with_style
from csd_nerf.toyworld.edits import Edit, possible_edits
from csd_nerf.toyworld.scene import BARE, COLOURS, HELD_OUT_SEEDS, MATERIALS, OBJECT_NAMES, Hat, Scene, scene_from_seed
from csd_nerf.toyworld.wordings import not_understood

DETERMINISTIC = ("recolour", "material", "snow", "night")
AMBIGUOUS = ("hat", "colour")
INSTRUCTIONS = DETERMINISTIC + AMBIGUOUS
"""Names of the benchmark's instructions; `instruction` words them for a scene."""


@dataclass(frozen=True)
class Instruction:
    """One instruction for one scene."""

    name: str
    """A name in `INSTRUCTIONS`, or the text itself."""
    text: str
    """As the prior is told: "make it out of stone"."""
    edits: tuple[Edit, ...]
    """All that it can mean."""

    @property
    def ambiguous(self) -> bool:
        """Whether it leaves something open that the views must agree on."""
        return len(self.edits) > 1


def benchmark_scenes() -> tuple[int, ...]:
    """Seeds of the scenes: the first held-out scene of each object of the toy world, so that nobody chose them."""
    found: dict[str, int] = {}
    for seed in count(HELD_OUT_SEEDS):
        found.setdefault(scene_from_seed(seed).object, seed)
        if len(found) == len(OBJECT_NAMES):
            return tuple(found.values())
    raise AssertionError("unreachable: the count has no end")


def instruction(name: str, scene: Scene, beside: Sequence[Scene] = ()) -> Instruction:
    """An instruction by its name in `INSTRUCTIONS` (or `sketch`), or by its text in the toy world's language.

    Colour and material are drawn from the scene's seed among those that it does not have, nor what stands `beside` it
    in a panorama: an edit that leaves one of these as it is, is none that an instruction can mean.

    Raises:
        ValueError: the toy world does not know it, or some of its words, or cannot show what it asks for.
    """
    rng = np.random.default_rng([scene.seed, 31])
    taken = {scene.colour, *(other.colour for other in beside)}
    colour = str(rng.choice([colour for colour in COLOURS if colour not in taken]))
    # Metal takes the colour that it finds, which under bare wood or stone is not to be seen.
    materials = [one for one in (MATERIALS[1:] if scene.painted else BARE) if one != scene.material]
    texts = {
        "recolour": f"make it {colour}",
        "material": f"make it out of {rng.choice(materials)}",
        "snow": "make it snow",
        "night": "make it night",
        "hat": "give it a hat",
        "colour": "change its colour",
        "sketch": "turn it into a pencil sketch",
    }
    text = texts.get(name, name)
    try:
        edits = tuple(possible_edits(text, scene))
    except ValueError as error:
        raise ValueError(f"--instructions {name!r}: {error}. Names are {', '.join(INSTRUCTIONS)}") from error
    if any(edit.kind == "painting" for edit in edits):
        raise ValueError(f"--instructions {name!r}: paintings have no true views here, take another instruction")
    if edits and (unknown := not_understood(text, edits[0].kind, _named(scene, beside))):
        raise ValueError(
            f"--instructions {name!r}: '{unknown}' is not understood, and would be measured as if it were not there; "
            f"one edit is asked for at a time, of what is shown, as in '{texts['recolour']}' or '{texts['hat']}'"
        )
    edits = tuple(edit for edit in edits if edit.style or all(edit.scene(other) != other for other in beside))
    if not edits or any(edit.kind == "identity" for edit in edits):
        raise ValueError(
            f"--instructions {name!r} asks for no edit, or for one that some object shows already: take another"
        )
    return Instruction(name, text, edits)


def instructions(names: Sequence[str], scene: Scene, beside: Sequence[Scene] = ()) -> list[Instruction]:
    """Several instructions for one scene. Raises `ValueError`, also for two that say the same there."""
    asked: dict[str, Instruction] = {}
    for name in names:
        one = instruction(name, scene, beside)
        if one.text in asked:
            raise ValueError(
                f"--instructions {asked[one.text].name!r} and {name!r} are one for scene {scene.seed}: both say "
                f"'{one.text}'; leave one of them out"
            )
        asked[one.text] = one
    return list(asked.values())


def _named(scene: Scene, beside: Sequence[Scene]) -> tuple[str, ...]:
    """The object by whose name all that is edited can be called; none where there are several."""
    return (scene.object,) if all(other.object == scene.object for other in beside) else ()


def source_caption(scene: Scene) -> str:
    """Words for the whole scene, without a view: `a red bear on a meadow`."""
    return caption(scene, 0.0, 20.0).removesuffix(", front view")


def target_caption(scene: Scene, asked: Instruction) -> str | None:
    """Words for the scene after the edit; None where words would have to choose what the instruction leaves open.

    A hat's colour and kind can be left open in words ("a red bear with a hat on a meadow"), a colour cannot.
    """
    first = asked.edits[0]
    said = with_style(source_caption(first.scene(scene)), first.style)
    if not asked.ambiguous:
        return said
    hats = [value for edit in asked.edits for name, value in edit.changes if name == "hat" and isinstance(value, Hat)]
    if len(hats) < len(asked.edits):
        return None
    kinds, colours = {hat.kind for hat in hats}, {hat.colour for hat in hats}
    words = [*(colours if len(colours) == 1 else ()), *(kinds if len(kinds) == 1 else ("hat",))]
    full = f"{hats[0].colour} {hats[0].kind}"
    with_article = ("an " if full[0] in "aeiou" else "a ") + full
    left = " ".join(words)
    return said.replace(with_article, ("an " if left[0] in "aeiou" else "a ") + left)
