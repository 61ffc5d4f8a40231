"""Agreement of edited views on pictures whose choices are known."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from csd_nerf.bench.agreement import view_agreement
from csd_nerf.bench.compute import edited_views, training_cameras
from csd_nerf.bench.scenes import instruction
from csd_nerf.toyworld.render import Renderer
from csd_nerf.toyworld.scene import COLOURS, scene_from_seed

SCENE = scene_from_seed(1_000_001)
CAMERAS = training_cameras({"views": 4, "held_out": 3, "size": 40})
ASKED = instruction("give it a hat", SCENE)
NAMES = [edit.colour or "" for edit in ASKED.edits]


@pytest.fixture(scope="module")
def pictures() -> tuple[Tensor, Tensor]:
    renderer = Renderer(CAMERAS)
    return renderer.render(SCENE), torch.stack([renderer.edited(SCENE, edit) for edit in ASKED.edits])


def of(colour: str) -> int:
    return NAMES.index(colour)


def test_an_instruction_about_hats_leaves_every_colour_open():
    assert set(NAMES) == set(COLOURS)
    assert {edit.colour for edit in instruction("change its colour", SCENE).edits} == set(COLOURS) - {SCENE.colour}
    assert instruction("make it snow", SCENE).edits[0].colour is None


def test_views_of_one_true_edit_agree(pictures: tuple[Tensor, Tensor]):
    source, truths = pictures
    generator = torch.Generator().manual_seed(0)
    for index in (0, 5, len(truths) - 1):
        noisy = (truths[index] + 0.05 * torch.randn(truths[index].shape, generator=generator)).clamp(0, 1)
        found = view_agreement(noisy, source, truths, NAMES)
        assert found.choices == (NAMES[index],) * 4 and found.share == found.edited == 1


def test_hats_of_one_colour_and_two_kinds_agree(pictures: tuple[Tensor, Tensor]):
    source, truths = pictures
    first, second = [index for index, name in enumerate(NAMES) if name == "blue"][:2]
    mixed = torch.cat([truths[first][:2], truths[second][2:]])
    assert view_agreement(mixed, source, truths, NAMES).share == 1


def test_other_colours_and_missing_edits_count_against_it(pictures: tuple[Tensor, Tensor]):
    source, truths = pictures
    mixed = torch.stack([truths[of("red")][0], truths[of("red")][1], truths[of("green")][2], source[3]])
    found = view_agreement(mixed, source, truths, NAMES)
    assert found.choices == ("red", "red", "green", None)
    assert found.share == 0.5 and found.edited == 0.75


def test_doing_nothing_is_no_agreement(pictures: tuple[Tensor, Tensor]):
    found = view_agreement(pictures[0], *pictures, NAMES)
    assert found.share == found.edited == 0


def test_views_that_no_edit_changes_say_nothing(pictures: tuple[Tensor, Tensor]):
    source, truths = pictures
    hidden = truths.clone()
    hidden[:, 0] = source[0]
    found = view_agreement(truths[0], source, hidden, NAMES)
    assert found.choices == (NAMES[0],) * 3 and len(found.shown) == 3
    assert all(not torch.equal(hidden[0, view], source[view]) for view in found.shown)
    with pytest.raises(ValueError, match="nothing can agree"):
        view_agreement(source, source, source[None], ["red"])


def test_the_last_edit_of_each_view_counts(tmp_path: Path):
    rounds = [
        {"round": 1, "views": {"0": "a/0.png", "1": "a/1.png"}},
        {"round": 2, "views": {"1": "b/1.png"}},
    ]
    for name in ("a/0.png", "a/1.png", "b/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    names = ["00007.png", "00003.png"]
    (tmp_path / "edits.json").write_text(json.dumps({"view_names": names, "rounds": rounds}))
    assert edited_views(tmp_path) == {7: b"a/0.png", 3: b"b/1.png"}
