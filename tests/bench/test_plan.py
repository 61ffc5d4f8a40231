"""Which cells there are: scenes nobody chose, instructions with a truth, methods with equal budgets."""

from dataclasses import fields, replace
from typing import Any

import pytest

from csd_nerf.bench.compute import compute
from csd_nerf.bench.generation import make_cells
from csd_nerf.bench.methods import METHODS, Budget, Method, at_once, in_rounds, one_by_one
from csd_nerf.bench.picture_methods import PictureBudget, PictureProtocol
from csd_nerf.bench.picture_plan import make_panorama_plan, make_video_plan
from csd_nerf.bench.plan import (
    FULL,
    QUICK,
    Choice,
    Protocol,
    check_machine,
    make_plan,
    weights_hash,
    with_guidance,
)
from csd_nerf.bench.scenes import (
    AMBIGUOUS,
    DETERMINISTIC,
    INSTRUCTIONS,
    benchmark_scenes,
    instruction,
    instructions,
    source_caption,
    target_caption,
)
from csd_nerf.scenes.edit_options import EditPipelineConfig
from csd_nerf.scenes.edit_schedule import EditSchedule
from csd_nerf.toyworld.captions import INSTRUCTIONS as TEMPLATES
from csd_nerf.toyworld.captions import vocabulary
from csd_nerf.toyworld.scene import HELD_OUT_SEEDS, scene_from_seed
from tests.bench.cells import HERE, TINY, plan_of

PICTURES = PictureProtocol(PictureBudget(20, parts=3, batch=2))


def test_scenes_were_not_seen_and_not_chosen():
    seeds = benchmark_scenes()
    scenes = [scene_from_seed(seed) for seed in seeds]
    assert len(seeds) >= 8 and len({scene.object for scene in scenes}) == len(seeds)
    assert all(scene.held_out for scene in scenes)
    for scene in scenes:
        first = next(s for s in range(HELD_OUT_SEEDS, scene.seed + 1) if scene_from_seed(s).object == scene.object)
        assert first == scene.seed


@pytest.mark.parametrize("seed", benchmark_scenes())
def test_every_instruction_means_what_its_group_says(seed: int):
    scene = scene_from_seed(seed)
    assert len(DETERMINISTIC) >= 4 and len(AMBIGUOUS) >= 2
    for name in INSTRUCTIONS:
        asked = instruction(name, scene)
        assert asked.ambiguous == (name in AMBIGUOUS)
        for edit in asked.edits:
            assert edit.scene(scene) != scene, "an edit that changes nothing measures nothing"
        assert instruction(asked.text, scene).edits == asked.edits


def test_instructions_without_a_truth_are_refused():
    scene = scene_from_seed(HELD_OUT_SEEDS)
    for text, said in (
        ("make it a cathedral", "no toy-world edit"),
        ("change nothing", "asks for no edit"),
        ("paint it in the style of udnie", "--instructions"),
    ):
        with pytest.raises(ValueError, match=said):
            instruction(text, scene)
    assert len(instruction("give it a top hat", scene).edits) == 8


@pytest.mark.parametrize("kind", [kind for kind in TEMPLATES if kind not in ("identity", "painting")])
def test_every_wording_of_the_toy_world_can_be_asked_for(kind: str):
    scene = scene_from_seed(HELD_OUT_SEEDS)
    for template in TEMPLATES[kind]:
        text = template.format(object=scene.object, colour="pink", material="stone", hat="red top hat")
        asked = instruction(text, scene)
        assert asked.text == text and {edit.kind for edit in asked.edits} == {kind}


def test_instructions_that_say_the_same_only_elsewhere_are_two():
    names = ("recolour", "make it pink")
    first, second = (scene_from_seed(HELD_OUT_SEEDS + index) for index in range(2))
    with pytest.raises(ValueError, match="both say 'make it pink'; leave one of them out"):
        instructions(names, first)
    assert [one.name for one in instructions(names, second)] == list(names)


def test_captions_leave_open_what_the_instruction_does():
    scene = replace(scene_from_seed(HELD_OUT_SEEDS + 3), object="snowman", colour="orange", background="meadow")
    assert source_caption(scene) == "an orange snowman on a meadow"
    said = {text: target_caption(scene, instruction(text, scene)) for text in (*INSTRUCTIONS, "give it a red hat")}
    assert said["hat"] == "an orange snowman with a hat on a meadow"
    assert said["give it a red hat"] == "an orange snowman with a red hat on a meadow"
    assert said["colour"] is None
    assert said["night"] == "an orange snowman on a meadow at night"
    assert target_caption(scene, instruction("turn it into a pencil sketch", scene)).endswith(", pencil sketch")
    assert {word.strip(",") for text in said.values() if text for word in text.split()} <= set(vocabulary())


def spent(method: Method, budget: Budget) -> int:
    """UNet samples that a run with these settings makes, by the schedule that it follows."""
    settings = method.spend(budget)
    plan = EditSchedule(budget.views, settings["edit_batch_size"], settings["edit_every"], seed=0)
    samples = 0
    for _ in range(budget.nerf_steps):
        if plan.due:
            samples += len(plan.next_batch()) * settings["edit_steps"] * method.samples_per_step
            plan.finish_round()
        plan.steps_since_round += 1
    return samples


@pytest.mark.parametrize("budget", [FULL.budget, QUICK.budget, Budget(90, 200, 7, 5, 24)])
@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("unedited", "in2n-every-10")])
def test_methods_spend_the_same(name: str, budget: Budget):
    assert spent(METHODS[name], budget) == pytest.approx(budget.samples, rel=0.12)


def test_noise_and_kernel_are_told_apart():
    """Each editor that works in rounds is there with one noise and with many, all else equal."""
    for name, method in METHODS.items():
        shared = METHODS.get(f"{name}-shared")
        if shared is not None:
            assert {**method.settings, "noise": "shared"} == shared.settings
            assert method.settings["noise"] == "independent"
            assert shared.pace is method.pace and shared.samples_per_step == method.samples_per_step
    assert sum(name.endswith("-shared") for name in METHODS) == 7


def test_the_published_update_has_its_own_pace():
    method = METHODS["in2n-every-10"]
    assert spent(method, FULL.budget) == 40 * 20 * 3


def test_paces():
    method = Method("m", "", 5)
    assert in_rounds(method, FULL.budget) == {
        "edit_every": 100,
        "edit_batch_size": 20,
        "edit_steps": 24,
        "t_max_passes": 2,
    }
    assert at_once(replace(method, samples_per_step=3), FULL.budget)["edit_steps"] == 80
    running = one_by_one(replace(method, samples_per_step=3), FULL.budget)
    assert running["edit_batch_size"] == 1 and running["edit_every"] == 2
    assert running["edit_steps"] == 16, "160 edits of 20 steps are one in 2.5 NeRF steps: 200 shorter ones"
    few = one_by_one(replace(method, samples_per_step=3), replace(FULL.budget, nerf_steps=100))
    assert few["edit_every"] == 1 and few["edit_steps"] == 20, "there are not enough NeRF steps to spend it all"


def test_keys_follow_whatever_decides_a_result():
    plan = plan_of(scenes=1)
    keys = {cell.key for cell in plan.edits()}
    assert len(keys) == len(plan.edits()) == 2 * len(HERE)
    assert {cell.key for cell in plan_of(scenes=2).edits()} > keys, "more scenes do not change those that were there"

    def of(seeds: tuple[int, ...] = (0,), protocol: Protocol = TINY) -> set[str]:
        choice = Choice((HELD_OUT_SEEDS,), ("recolour", "hat"), HERE, seeds)
        return {cell.key for cell in make_plan(choice, protocol).edits()}

    assert of() == keys
    unedited = {cell.key for cell in plan.edits() if cell.spec["method"] == "unedited"}
    assert of(seeds=(1,)) & keys == unedited
    assert not of(protocol=replace(TINY, scene_steps=3)) & keys, "another scene under the same edits"
    budgets: list[dict[str, Any]] = [{"nerf_steps": 3}, {"samples_per_view": 40}]
    for change in budgets:
        assert of(protocol=replace(TINY, budget=replace(TINY.budget, **change))) & keys == unedited


def test_a_machine_of_another_version_or_prior_computes_nothing():
    cell = next(cell for cell in plan_of(scenes=1).edits() if cell.spec["method"] == "csd-edit")
    check_machine(cell.spec, cell.where)
    version = "another version of csd_nerf"
    for name, said in (("configuration", version), ("preset", version), ("prior", "other weights of toy")):
        with pytest.raises(RuntimeError, match=f"{said}.*--engine ray"):
            compute({**cell.spec, name: "other"}, cell.where, ())


def test_the_priors_weights_belong_to_the_key(tmp_path):
    (tmp_path / "unet.safetensors").write_bytes(b"one")
    first = weights_hash(str(tmp_path))
    weights_hash.cache_clear()
    (tmp_path / "unet.safetensors").write_bytes(b"two")
    assert weights_hash(str(tmp_path)) != first
    assert weights_hash("someone/model") == "someone/model"


@pytest.mark.parametrize(
    ("gpu", "native", "comes_to"), [(True, True, "fp16"), (False, True, "bf16"), (False, False, "fp32")]
)
def test_auto_is_the_precision_that_this_machine_edits_in(
    gpu: bool, native: bool, comes_to: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    monkeypatch.setattr("csd_nerf.priors.registry.gains_from_bfloat16", lambda: native)
    choice = Choice((HELD_OUT_SEEDS,), ("recolour",), ("unedited", "csd-edit"))
    plans: Any = ((make_plan, TINY), (make_video_plan, PICTURES), (make_panorama_plan, PICTURES))
    for make, protocol in plans:
        planned = make(choice, protocol)
        assert planned == make(replace(choice, precision=comes_to), protocol)
        assert comes_to in str(planned.edits()[1].spec) and planned.prior.endswith(f", {comes_to})")
        other = make(replace(choice, precision="fp32" if comes_to != "fp32" else "bf16"), protocol)
        assert planned.edits()[1].key != other.edits()[1].key
    auto, same = (
        make_cells(["a red car"], ["csd"], (0,), quick=True, prior="toy", precision=precision)
        for precision in ("auto", comes_to)
    )
    assert auto == same and auto[0].spec["precision"] == comes_to


def test_a_sweep_is_of_the_same_cells_at_other_scales():
    base = Choice((HELD_OUT_SEEDS,), ("hat",), ("csd-edit", "sds"))
    plan = make_plan(with_guidance(base, (1.5, 4.0, 1.5)), TINY)
    assert [cell.spec["settings"]["guidance_scale"] for cell in plan.edits()] == [1.5, 4.0] * 2
    with pytest.raises(ValueError, match="--sweep -1"):
        with_guidance(base, (2.0, -1.0))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scenes": (7,)}, "--scenes 7 may be a scene that the prior was trained on"),
        ({"scenes": ()}, "--scenes is empty"),
        ({"methods": ("sdss",)}, "--methods sdss is unknown: choose from unedited, csd-edit"),
        ({"methods": ("sds", "sds")}, "--methods names one twice"),
        ({"instructions": ("make it a cathedral",)}, "--instructions 'make it a cathedral'"),
        (
            {"instructions": ("hat", "make it purple polka dots")},
            "'make it purple polka dots': 'polka dots' is not und",
        ),
        ({"instructions": ("make it out of wood and stone",)}, "'and stone' is not understood"),
        ({"instructions": ("give it a hat and make it night",)}, "'and make it night' is not understood"),
        ({"instructions": ("recolour", "make it pink")}, "--instructions 'recolour' and 'make it pink' are one for"),
        ({"seeds": (-1,)}, "--seeds -1"),
    ],
)
def test_bad_choices_name_their_flag(change: dict[str, Any], said: str):
    choice = Choice((HELD_OUT_SEEDS,), ("hat",), ("csd-edit",))
    with pytest.raises(ValueError, match=said):
        make_plan(replace(choice, **change), TINY)


def test_every_setting_is_one_of_the_pipelines():
    """A misspelt one would be set on the configuration, and nothing would come of it."""
    known = {entry.name for entry in fields(EditPipelineConfig)}
    for method in METHODS.values():
        assert set(method.spend(FULL.budget)) <= known, method.name
