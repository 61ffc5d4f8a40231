"""Every wording of the toy world is understood, and a word too many is named."""

from itertools import product

import numpy as np
import pytest

from csd_nerf.toyworld.captions import INSTRUCTIONS
from csd_nerf.toyworld.edits import SHARES, draw_edit
from csd_nerf.toyworld.scene import COLOURS, HAT_KINDS, HELD_OUT_SEEDS, OBJECT_NAMES, scene_from_seed
from csd_nerf.toyworld.style_nets import PAINTINGS
from csd_nerf.toyworld.wordings import not_understood, wordings

HATS = ("hat", *HAT_KINDS)


@pytest.mark.parametrize("kind", list(INSTRUCTIONS))
def test_every_template_with_everything_that_it_can_name_is_understood(kind: str):
    hats = [*HATS, *(f"{colour} {hat}" for colour, hat in product(COLOURS, HATS))]
    named = {"recolour": COLOURS, "material": ("metal", "wood", "stone"), "hat": hats, "painting": PAINTINGS.values()}
    texts = set()
    for template, value, thing in product(INSTRUCTIONS[kind], named.get(kind, ("",)), OBJECT_NAMES[:2]):
        text = template.format(colour=value, material=value, hat=value, painting=value, object=thing)
        text = text.replace(" a orange", " an orange")
        texts.add(text)
        assert not_understood(text, kind, [thing]) == "", text
    assert set(wordings(kind, OBJECT_NAMES[:2])) == texts


@pytest.mark.parametrize("kind", list(SHARES))
def test_whatever_the_toy_world_draws_is_understood(kind: str):
    rng = np.random.default_rng(0)
    scenes = [scene_from_seed(HELD_OUT_SEEDS + index) for index in range(60)]
    drawn = [(scene, draw_edit(kind, scene, rng, tuple(PAINTINGS))) for scene in scenes]
    texts = [(edit.instruction, scene.object) for scene, edit in drawn if edit is not None]
    assert len({text for text, _ in texts}) >= 3
    assert [text for text, thing in texts if not_understood(text, kind, [thing])] == []


@pytest.mark.parametrize(
    ("text", "kind", "unknown"),
    [
        ("make it purple polka dots", "recolour", "polka dots"),
        ("make it out of wood and stone", "material", "and stone"),
        ("give it a hat and make it night", "hat", "and make it night"),
        ("make it night and give it a hat", "hat", "make it night and"),
        ("make it pink blue", "recolour", "blue"),
        ("make the car pink", "recolour", "car"),
        ("make the bear pink", "recolour", ""),
        ("Make it a different color", "colour", ""),
        ("make it wooden", "material", ""),
        ("add hat", "hat", ""),
        ("give it a red top hat", "hat", ""),
    ],
)
def test_what_is_said_beside_a_wording_is_named(text: str, kind: str, unknown: str):
    assert not_understood(text, kind, ["bear"]) == unknown


def test_without_one_object_none_can_be_named():
    assert not_understood("make the bear pink", "recolour", []) == "the bear"
    assert not_understood("make it pink", "recolour", []) == ""
