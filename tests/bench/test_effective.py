"""What a cell of the benchmark of scenes edits with, and what of it belongs to its key."""

import copy
from typing import Any

import pytest

from csd_nerf.bench import plan
from csd_nerf.bench.effective import effective, in_words
from csd_nerf.bench.plan import Choice, make_plan, with_guidance
from csd_nerf.distill import presets
from csd_nerf.scenes.edit_config import lite_config
from csd_nerf.toyworld.scene import HELD_OUT_SEEDS
from tests.bench.cells import TINY, plan_of


@pytest.mark.parametrize(
    ("name", "value"), [("lr", 9.0), ("mixing", "mean"), ("image_guidance_scale", 7.0), ("keep_detail", 0.5)]
)
def test_what_is_left_to_the_preset_belongs_to_the_key(name: str, value: Any, monkeypatch: pytest.MonkeyPatch):
    before = {cell.key for cell in plan_of(scenes=1).edits() if cell.spec["method"] == "csd-edit"}
    monkeypatch.setitem(presets._CHOICES["corrected"], name, value)
    assert not before & {cell.key for cell in plan_of(scenes=1).edits()}


@pytest.mark.parametrize(
    ("name", "value"), [("t_min_first", 0.3), ("method_t_max", 0.6), ("guidance_first", 3.0), ("guidance_scale", 3.0)]
)
def test_another_default_of_the_edits_leaves_scenes_and_the_dataset_update(
    name: str, value: float, monkeypatch: pytest.MonkeyPatch
):
    def cells() -> dict[str, set[str]]:
        asked = make_plan(Choice((HELD_OUT_SEEDS,), ("hat",), ("csd-edit", "in2n")), TINY)
        edits = {m: {c.key for c in asked.edits() if c.spec["method"] == m} for m in ("csd-edit", "in2n")}
        return {**edits, "scene": {cell.key for cell in asked.cells if cell.kind == "scene"}}

    monkeypatch.setattr(plan, "_configuration", plan._configuration.__wrapped__)  # not that of another test
    before, lite = cells(), lite_config()
    setattr(lite.pipeline, name, value)
    monkeypatch.setattr("csd_nerf.scenes.edit_config.lite_config", lambda: copy.deepcopy(lite))
    after = cells()
    assert after["scene"] == before["scene"] and not after["csd-edit"] & before["csd-edit"]
    assert (after["in2n"] == before["in2n"]) == (name != "guidance_scale")
    lite.pipeline.view_dependence = True
    assert not any(cells()[kind] & before[kind] for kind in before)


def test_a_point_of_a_sweep_has_its_guidance_in_every_round():
    choice = with_guidance(Choice((HELD_OUT_SEEDS,), ("hat",), ("csd-edit", "in2n")), (7.5,))
    for cell in make_plan(choice, TINY).edits():
        first, later = effective(cell.spec["settings"])
        assert first.guidance_scale == later.guidance_scale == 7.5
    asked = next(cell for cell in plan_of(scenes=1).edits() if cell.spec["method"] == "csd-edit")
    assert [one.guidance_scale for one in effective(asked.spec["settings"])] == [4, 2]
    assert in_words(asked.spec["settings"]).startswith(
        "guidance 4 falling to 2, noise levels 0.5 to 0.98, then 0.2 to 0.5"
    )
