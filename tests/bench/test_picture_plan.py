"""Which cells there are of panoramas and videos: equal budgets, keys that follow what decides a result."""

from dataclasses import replace
from typing import Any

import pytest

from csd_nerf.bench import picture_methods as own
from csd_nerf.bench.benchmarks import benchmark
from csd_nerf.bench.methods import METHODS, Method
from csd_nerf.bench.picture_edits import settings_of
from csd_nerf.bench.picture_methods import PANORAMA, VIDEO, PictureBudget, PictureProtocol
from csd_nerf.bench.picture_plan import make_panorama_plan, make_video_plan
from csd_nerf.bench.plan import Choice, Plan, with_guidance
from csd_nerf.distill import EditSettings
from csd_nerf.images.running import TOY
from csd_nerf.toyworld.scene import HELD_OUT_SEEDS

TINY = PictureProtocol(PictureBudget(20, parts=3, batch=2))
METHODS_HERE = ("unedited", "csd-edit", "random-noise")
CHOICE = Choice((HELD_OUT_SEEDS,), ("recolour", "hat"), METHODS_HERE, precision="fp32")
BUDGETS = [own.PANORAMA_FULL, own.PANORAMA_QUICK, own.VIDEO_FULL, own.VIDEO_QUICK]


def spent(name: str, method: Method, budget: PictureBudget) -> int:
    """UNet samples that an edit with these settings makes."""
    settings = method.spend(budget)
    together = settings.get("batch_size") or {"multidiffusion": 4 * budget.parts - 3}.get(name, budget.parts)
    return settings["steps"] * together * method.samples_per_step


@pytest.mark.parametrize("protocol", BUDGETS)
def test_methods_spend_the_same(protocol: PictureProtocol):
    for name, method in (PANORAMA if protocol.budget.parts == 5 else VIDEO).items():
        if name != "unedited":
            assert spent(name, method, protocol.budget) == pytest.approx(protocol.budget.samples, rel=0.08), name


@pytest.mark.parametrize("methods", [PANORAMA, VIDEO])
def test_noise_and_kernel_are_told_apart(methods: dict[str, Method]):
    for editor in ("csd-edit", "no-svgd", "random-noise"):
        noises = {m.settings["noise"] for m in methods.values() if m.settings.get("editor") == editor}
        assert noises >= {"shared", "independent"}
    assert all(
        {**m.settings, "noise": ""} == {**methods[n.removesuffix("-shared")].settings, "noise": ""}
        for n, m in methods.items()
        if n.endswith("-shared")
    )


def test_every_method_is_one_that_can_be_run():
    kinds: dict[Any, Any] = {"panorama": PANORAMA, "video": VIDEO}
    for kind, methods in kinds.items():
        for name, method in methods.items():
            if name != "unedited":
                settings: EditSettings = settings_of(kind, method.spend(TINY.budget))
                settings.validate()
                full = settings.resolved()
                assert full.guidance_scale == TOY["guidance_scale"]
                assert settings.parts.samples or full.t_max == TOY["t_max"]
    assert (
        VIDEO["csd-edit-temporal"].settings["temporal"] == own.TEMPORAL and "temporal" not in VIDEO["no-svgd"].settings
    )
    assert VIDEO["csd-edit-temporal"].about.startswith("csd-edit, ")


def keys(plan: Plan) -> set[str]:
    return {cell.key for cell in plan.edits()}


@pytest.mark.parametrize("make", [make_panorama_plan, make_video_plan])
def test_keys_follow_whatever_decides_a_result(make: Any):
    plan = make(CHOICE, TINY)
    assert len(keys(plan)) == len(plan.edits()) == 6 and len(plan.cells) == 9
    assert all(len(cell.needs) == (2 if cell.kind == "edit" else 0) for cell in plan.cells)
    more = make(replace(CHOICE, scenes=(HELD_OUT_SEEDS, HELD_OUT_SEEDS + 1)), TINY)
    assert keys(more) > keys(plan), "more scenes do not change those that were there"
    unedited = {cell.key for cell in plan.edits() if cell.spec["method"] == "unedited"}
    richer = replace(TINY, budget=replace(TINY.budget, samples_per_part=40))
    assert keys(make(CHOICE, richer)) & keys(plan) == unedited
    assert keys(make(replace(CHOICE, seeds=(1,)), TINY)) & keys(plan) == unedited
    assert not keys(make(replace(CHOICE, precision="bf16"), TINY)) & keys(plan), "the autoencoder's precision too"
    longer = replace(TINY, budget=replace(TINY.budget, parts=4))
    assert not keys(make(CHOICE, longer)) & keys(plan)
    assert not keys(make_panorama_plan(CHOICE, TINY)) & keys(make_video_plan(CHOICE, TINY))


def test_a_sweep_is_of_the_same_cells_at_other_scales():
    plan = make_video_plan(with_guidance(replace(CHOICE, methods=("csd-edit", "ip2p")), (1.5, 4.0)), TINY)
    assert [cell.spec["settings"]["guidance_scale"] for cell in plan.edits()] == [1.5, 4.0] * 4


def test_bad_choices_name_their_flag():
    for change, said in (
        ({"methods": ("in2n",)}, "--methods in2n is unknown: choose from unedited, csd-edit"),
        ({"instructions": ("make it a cathedral",)}, "--instructions 'make it a cathedral'"),
        ({"instructions": ("make the bear pink",)}, "'the bear' is not understood"),
        ({"instructions": ("recolour", "make it pink")}, "--instructions 'recolour' and 'make it pink' are one"),
        ({"scenes": (3,)}, "--scenes 3 may be"),
    ):
        with pytest.raises(ValueError, match=said):
            make_panorama_plan(replace(CHOICE, **change), TINY)


@pytest.mark.parametrize("name", ["scenes", "panorama", "video"])
def test_defaults_are_names_that_exist(name: Any):
    for quick in (True, False):
        found = benchmark(name, quick)
        assert set(found.defaults.methods) <= set(found.subject.methods)
        assert found.defaults.methods[:2] == ("unedited", "csd-edit")
        assert name == "scenes" or {"no-svgd", "random-noise"} < set(found.defaults.methods), "the paper's ablations"
        assert ("sketch" in found.defaults.instructions) == (name != "scenes" and not quick)
    assert benchmark("scenes", False).subject.methods is METHODS
