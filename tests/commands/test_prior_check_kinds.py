"""What `csd prior check` draws of each kind of edits."""

import numpy as np
import pytest

from csd_nerf.commands.prior_check.kinds import KINDS, NAMED_HAT, OPEN_KINDS
from csd_nerf.toyworld.scene import HELD_OUT_SEEDS, MATERIALS, Hat, scene_from_seed
from csd_nerf.toyworld.style_nets import PAINTINGS

SCENES = [scene_from_seed(HELD_OUT_SEEDS + index) for index in range(40)]


def test_materials_and_paintings_have_gates_of_their_own() -> None:
    names = {kind.name for kind in KINDS}
    assert {f"material: {name}" for name in MATERIALS[1:]} | {f"painting: {name}" for name in PAINTINGS} < names
    assert {"material", "painting", "hat", "colour", "identity"}.isdisjoint(names) and NAMED_HAT in names
    assert [kind.name for kind in OPEN_KINDS] == ["hat", "colour"]


@pytest.mark.parametrize("kind", [*KINDS, *OPEN_KINDS], ids=lambda kind: kind.name)
def test_edits_are_of_their_kind(kind) -> None:
    edits = [kind.draw(scene, np.random.default_rng(index), tuple(PAINTINGS)) for index, scene in enumerate(SCENES)]
    found = [edit for edit in edits if edit is not None]
    assert len(found) >= 5 and {edit.kind for edit in found} == {kind.drawn_as}
    for edit in found:
        given = dict(edit.changes)
        if kind.drawn_as == "material":
            assert given["material"] == kind.part and kind.part in edit.instruction
        if kind.drawn_as == "painting":
            assert edit.style == kind.part
        if kind.drawn_as == "hat":
            hat = given["hat"]
            assert isinstance(hat, Hat)
            assert (f"{hat.colour} {hat.kind}" in edit.instruction) == (kind.name == NAMED_HAT)


def test_a_painting_without_its_network_is_not_drawn() -> None:
    wave = next(kind for kind in KINDS if kind.name == "painting: wave")
    assert wave.draw(SCENES[0], np.random.default_rng(0), ("udnie",)) is None
