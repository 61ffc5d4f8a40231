"""Scenes from seeds, the held-out rule, words, and edits that do what they say."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from csd_nerf.toyworld.captions import INSTRUCTIONS, caption, view_word, vocabulary, with_style
from csd_nerf.toyworld.edits import AMBIGUOUS, SHARES, draw_edit, draw_edits, edit_from_instruction
from csd_nerf.toyworld.scene import (
    BACKGROUNDS,
    COLOURS,
    HELD_OUT_SEEDS,
    OBJECT_NAMES,
    demo_scene,
    is_held_out,
    odd_scene_from_seed,
    scene_from_seed,
)
from csd_nerf.toyworld.style_nets import PAINTINGS


def test_a_seed_says_it_all():
    assert scene_from_seed(5) == scene_from_seed(5)
    assert len({scene_from_seed(seed) for seed in range(50)}) == 50
    with pytest.raises(ValueError, match="negative"):
        scene_from_seed(-1)


def test_held_out_combinations_are_never_trained_on():
    train = [odd_scene_from_seed(seed) for seed in range(150)]
    held_out = [scene_from_seed(HELD_OUT_SEEDS + seed) for seed in range(40)]
    assert not any(scene.held_out for scene in train)
    assert all(scene.held_out for scene in held_out)
    assert demo_scene().held_out
    rng = np.random.default_rng(0)
    for scene in train:
        for edit in draw_edits(scene, 5, rng):
            assert not edit.scene(scene).held_out


def test_the_held_out_rule_spares_every_object_colour_and_background():
    trained = [c for c in product(OBJECT_NAMES, COLOURS, BACKGROUNDS) if not is_held_out(*c)]
    share = 1 - len(trained) / (len(OBJECT_NAMES) * len(COLOURS) * len(BACKGROUNDS))
    assert 0.1 < share < 0.2
    assert [len({c[i] for c in trained}) for i in range(3)] == [len(OBJECT_NAMES), len(COLOURS), len(BACKGROUNDS)]


def test_some_scenes_are_already_odd():
    odd = sum(odd_scene_from_seed(s) != scene_from_seed(s) for s in range(250)) / 250
    assert 0.09 < odd < 0.21


def test_view_words():
    assert [view_word(float(a), 10.0) for a in (0, 359, -40, 90, 270, 180, -170)] == ["front"] * 3 + ["side"] * 2 + [
        "back"
    ] * 2
    assert view_word(0.0, 45.0) == "overhead"


def test_captions_name_what_is_seen():
    scene = replace(demo_scene(), material="metal", night=True)
    assert caption(scene, 0.0, 10.0) == "an orange metal bear on a meadow at night, front view"
    assert caption(replace(scene, snow=True), 90.0, 10.0, "oil") == (
        "an orange metal bear covered in snow at night, side view, oil painting"
    )
    assert caption(replace(scene, material="wood", painted=False), 0.0, 50.0).startswith("a wooden bear on a meadow")


def test_the_vocabulary_is_small_and_complete():
    words = set(vocabulary())
    assert len(words) < 400
    rng = np.random.default_rng(1)
    for seed in range(60):
        scene = odd_scene_from_seed(seed)
        for edit in draw_edits(scene, 5, rng, tuple(PAINTINGS)):
            azimuth, elevation = rng.uniform(0, 90, 2).tolist()
            said = caption(edit.scene(scene), azimuth, elevation, edit.style)
            assert set(f"{said} {edit.instruction}".replace(",", "").split()) <= words
    assert set(with_style("a photo", "udnie").replace(",", "").split()) <= words


def test_shares_are_kept():
    assert sum(SHARES.values()) == pytest.approx(1)
    rng = np.random.default_rng(2)
    kinds = [e.kind for seed in range(250) for e in draw_edits(scene_from_seed(seed), 5, rng, tuple(PAINTINGS))]
    for kind, share in SHARES.items():
        assert kinds.count(kind) / len(kinds) == pytest.approx(share, abs=0.025)


@pytest.mark.parametrize("kind", list(INSTRUCTIONS))
def test_an_instruction_is_understood_as_it_was_meant(kind):
    scene, rng = scene_from_seed(3), np.random.default_rng(4)
    for _ in range(30):
        edit = draw_edit(kind, scene, rng, tuple(PAINTINGS))
        assert edit is not None
        understood = edit_from_instruction(edit.instruction, scene, seed=9)
        assert (understood.kind, understood.style) == (kind, edit.style)
        if kind not in AMBIGUOUS:
            assert understood.scene(scene) == edit.scene(scene)


def test_half_of_the_hats_leave_the_colour_open():
    rng = np.random.default_rng(5)
    edits = [draw_edit("hat", scene_from_seed(1), rng) for _ in range(200)]
    said = [edit.instruction.split() for edit in edits if edit is not None]
    assert np.mean([not set(words) & set(COLOURS) for words in said]) == pytest.approx(0.5, abs=0.09)


def test_ambiguity_is_settled_by_the_seed():
    scene = demo_scene()
    drawn = {edit_from_instruction("give it a hat", scene, seed) for seed in range(40)}
    assert len(drawn) > 12
    assert edit_from_instruction("give it a hat", scene, 3) == edit_from_instruction("give it a hat", scene, 3)
    with pytest.raises(ValueError, match="no toy-world edit for 'sing a song'"):
        edit_from_instruction("sing a song", scene)


def test_edits_that_change_nothing_are_not_drawn():
    rng = np.random.default_rng(6)
    scene = replace(demo_scene(), snow=True, night=True)
    assert draw_edit("snow", scene, rng) is None
    assert draw_edit("night", scene, rng) is None
    assert draw_edit("painting", scene, rng) is None
    assert draw_edit("recolour", None, rng) is None
