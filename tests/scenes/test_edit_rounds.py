"""What happens in and around a round: conditions, the viewer's wishes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.field_components.field_heads import FieldHeadNames
from torch.nn.functional import normalize

from csd_nerf.scenes.edit_options import Instruction
from csd_nerf.scenes.edit_pipeline import EditPipeline
from csd_nerf.scenes.edit_trainer import EditTrainer, EditTrainerConfig
from csd_nerf.scenes.files import read_picture
from csd_nerf.scenes.run import EditRun
from csd_nerf.scenes.terminal import own_writers
from tests.scenes.edit_fixtures import (
    EDIT_STEPS,
    PROMPT,
    NegativePrior,
    make_trainer,
    tiny_run,
)


class RecordingPrior(NegativePrior):
    """Keeps what it is shown."""

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        self.conditions: list[torch.Tensor] = []
        self.encoded: list[torch.Tensor] = []

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        self.encoded.append(images)
        return super().encode(images)

    def encode_condition(self, images: torch.Tensor, *, scaled_sample: torch.Generator | None = None) -> torch.Tensor:
        self.conditions.append(images)
        return NegativePrior.encode(self, images)


@pytest.mark.parametrize("init", ["render", "source"])
def test_the_condition_is_always_the_photo(whole: EditRun, tiny_scene: Path, tmp_path: Path, init: str):
    prior = RecordingPrior()
    run = tiny_run(
        tiny_scene,
        tmp_path,
        prior=prior,
        load_dir=whole.scene_checkpoint.parent,
        max_num_iterations=12,
        configure=lambda config: setattr(config.pipeline, "edit_init", init),
    )
    assert run.rounds == 3, "a second pass has begun"
    index = json.loads((run.edits / "edits.json").read_text())
    for entry, condition in zip(index["rounds"], prior.conditions, strict=True):
        for view, picture in zip(entry["edited"], condition, strict=True):
            photo = read_picture(tiny_scene / "images" / index["view_names"][view]).permute(2, 0, 1).float() / 255
            assert (torch.nn.functional.avg_pool2d(photo, 2) - picture).abs().mean() < 0.02
    starts = len(prior.encoded) // 3
    assert starts == (2 if init == "render" else 1), "sources, and renders if the latents start there"


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_views_that_nothing_has_changed_are_the_photos_again(
    whole: EditRun, tiny_scene: Path, tmp_path: Path, share: float
):
    """Photos of more pixels than the prior's latents can say; without guidance and kernel nothing moves."""

    def still(config: EditTrainerConfig) -> None:
        config.pipeline.keep_detail, config.pipeline.edit_init = share, "source"
        config.pipeline.editor = "no-svgd"
        config.pipeline.guidance_scale, config.pipeline.datamanager.view_size = 0.0, None

    run = tiny_run(tiny_scene, tmp_path, load_dir=whole.scene_checkpoint.parent, configure=still)
    index = json.loads((run.edits / "edits.json").read_text())
    for entry in index["rounds"]:
        assert entry["settings"]["keep_detail"] == share
        for view, path in entry["views"].items():
            photo = read_picture(tiny_scene / "images" / index["view_names"][int(view)])
            error = (read_picture(run.edits / path).float() - photo.float()).abs()
            assert error.max() <= 1 if share else error.mean() > 5, "of 255"


def test_the_viewer_can_work_while_the_networks_run(tiny_scene: Path, tmp_path: Path):
    free = []
    trainers: list[EditTrainer] = []

    def look(call: int) -> float:
        free.append(not trainers[0].train_lock.locked())
        return 1.0

    trainer = make_trainer(tiny_scene, tmp_path, NegativePrior(on_call=look))
    trainers.append(trainer)
    trainer.train()
    assert len(free) == 10 and all(free)


def test_the_panel_changes_the_next_round(tiny_scene: Path, tmp_path: Path):
    panels = []

    def change(call: int) -> float:
        if call == 2:  # in round 1
            panels[0].a_prompt.value = "something else"
            panels[0].e_edit_steps.value = 3
            panels[0].f_edit_now.cb_hook(panels[0].f_edit_now)
        return 1.0

    trainer = make_trainer(tiny_scene, tmp_path, NegativePrior(on_call=change))
    panels.append(trainer.pipeline.csd_edit)
    trainer.train()
    first, second, third = json.loads((trainer.base_dir / "edits/edits.json").read_text())["rounds"]
    assert (first["prompt"], first["edit_steps"]) == (PROMPT, 5)
    assert (second["prompt"], second["edit_steps"]) == ("something else", 3)
    assert [entry["step"] - first["step"] for entry in (second, third)] == [1, 5], "asked for in round 1, then as usual"
    assert "Training has ended" in panels[0].i_progress.content
    assert panels[0].j_contact_sheet.content.startswith("**Round 3**")
    assert "data:image/jpeg;base64," in panels[0].j_contact_sheet.content


@pytest.mark.parametrize(
    ("rounds_a_pass", "passes", "levels"), [(1, 3, [0.9, 0.7, 0.5, 0.9, 0.7]), (2, 2, [0.9, 0.9, 0.5, 0.9, 0.9])]
)
def test_noise_falls_from_pass_to_pass_and_a_new_prompt_begins_anew(
    tiny_scene: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    rounds_a_pass: int,
    passes: int,
    levels: list[float],
):
    panels = []

    def change(call: int) -> float:
        if call == 11:  # in round 3 of five calls each
            panels[0].a_prompt.value = "something else"
        return 1.0

    def configure(config: EditTrainerConfig) -> None:
        options = config.pipeline
        options.edit_every, options.t_max, options.t_max_end, options.t_max_passes = 2, 0.9, 0.5, passes
        options.edit_batch_size = 12 // rounds_a_pass
        config.max_num_iterations = 10

    trainer = make_trainer(tiny_scene, tmp_path, NegativePrior(on_call=change), configure)
    panels.append(trainer.pipeline.csd_edit)
    trainer.train()
    rounds = json.loads((trainer.base_dir / "edits/edits.json").read_text())["rounds"]
    assert [entry["prompt"] for entry in rounds] == [PROMPT] * 3 + ["something else"] * 2
    assert [entry["settings"]["t_max"] for entry in rounds] == pytest.approx(levels)
    assert {*rounds[3]["edited"], *rounds[4]["edited"]} == {*rounds[0]["edited"], *rounds[1]["edited"]}, "all views"
    assert capsys.readouterr().out.count("rougher than") == 1, "the new prompt's passes do not fit"


@pytest.mark.parametrize("view_dependence", [True, False])
def test_without_view_dependence_a_point_looks_the_same_from_everywhere(
    tiny_scene: Path, tmp_path: Path, view_dependence: bool
):
    trainer = make_trainer(
        tiny_scene, tmp_path, NegativePrior(), lambda c: setattr(c.pipeline, "view_dependence", view_dependence)
    )
    field = trainer.pipeline.nerfacto.field.eval()
    directions = normalize(torch.randn(20, 3, generator=torch.Generator().manual_seed(1)), dim=-1)
    rays = RayBundle(
        origins=torch.tensor([[0.1, 0.2, 0.3]]) - directions,
        directions=directions,
        pixel_area=torch.ones(20, 1),
        camera_indices=torch.zeros(20, 1, dtype=torch.long),
    )
    near, far = torch.full((20, 1, 1), 0.99), torch.full((20, 1, 1), 1.01)
    with torch.no_grad():
        colours = field(rays.get_ray_samples(near, far))[FieldHeadNames.RGB].reshape(20, 3)
    assert (colours.std(dim=0).max() > 1e-4) == view_dependence


def test_ending_the_scene_phase_early_does_not_lengthen_the_run(
    tiny_scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    trainer = make_trainer(tiny_scene, tmp_path, NegativePrior(), lambda c: setattr(c.pipeline, "scene_steps", 100))
    panel = trainer.pipeline.csd_edit
    panel.f_edit_now.cb_hook(panel.f_edit_now)
    trainer.train()
    assert (trainer.session.scene_done, trainer.session.edit_done) == (1, EDIT_STEPS)
    assert "Training on the photos ends after 1 of 100 steps, since an edit was asked for" in capsys.readouterr().out
    assert [path.name for path in trainer.checkpoint_dir.iterdir()] == [f"step-{EDIT_STEPS:09d}.ckpt"]
    assert "Training has ended" in panel.i_progress.content
    panel.f_edit_now.cb_hook(panel.f_edit_now)
    assert not trainer.session.schedule.requested, "nobody is left to fulfil it"


def test_pause_edit_now_and_restore(tiny_scene: Path, tmp_path: Path):
    trainer = make_trainer(tiny_scene, tmp_path, NegativePrior())
    session, panel = trainer.session, trainer.pipeline.csd_edit
    trainer._init_viewer_state()
    panel.f_edit_now.cb_hook(panel.f_edit_now)
    trainer._update_viewer_state(0)
    assert session.phase == "edit" and session.rounds == 1, "a round now ends the scene phase"
    panel.g_pause_edits.value = True
    panel.g_pause_edits.cb_hook(panel.g_pause_edits)
    for step in range(1, 6):
        trainer._update_viewer_state(step)
    assert session.rounds == 1, "paused"
    panel.f_edit_now.cb_hook(panel.f_edit_now)
    trainer._update_viewer_state(6)
    assert session.rounds == 2, "asked for all the same"
    data = trainer.pipeline.datamanager
    assert len(data.train_dataset.edits) == 11
    panel.h_restore_originals.cb_hook(panel.h_restore_originals)
    trainer._update_viewer_state(7)
    assert data.train_dataset.edits == {} and session.edited_views == 0
    batch = data.train_image_dataloader.cached_collated_batch
    assert batch is not None
    assert torch.equal(batch["image"][4].permute(2, 0, 1), data.train_dataset.original(4))
    assert json.loads((trainer.base_dir / "edits/edits.json").read_text())["events"][0]["event"] == "originals restored"


def test_a_mistake_in_the_panel_is_shown_before_the_round_and_after(
    whole: EditRun, tiny_scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shown = []

    def look(call: int) -> float:
        shown.append((panel.i_progress.content, trainer.session.schedule.requested))
        return 1.0

    prior = NegativePrior(on_call=look)
    trainer = make_trainer(
        tiny_scene, tmp_path, prior, lambda config: setattr(config, "load_dir", whole.scene_checkpoint.parent)
    )
    panel = trainer.pipeline.csd_edit
    panel.c_guidance_scale.value, panel.a_prompt.value = -2.0, "[bold]snow[/] [/b]"
    trainer.session.schedule.requested = True
    read = panel.read

    def ask_again() -> Instruction:
        panel.f_edit_now.cb_hook(panel.f_edit_now)  # while the panel is being read
        return read()

    panel.read = ask_again
    trainer._init_viewer_state()
    complaint = "Not used: Guidance -2.0: give 0 or more (3 to 15 is usual); 4.0 is kept."
    assert shown[0][0].startswith(complaint) and shown[0][1], "the second wish is not lost"
    assert panel.i_progress.content.startswith(complaint) and "Round 1" in panel.i_progress.content
    said = " ".join(capsys.readouterr().out.split())
    assert complaint in said and '"[bold]snow[/] [/b]" took' in said
    assert trainer.session.instruction.prompt == "[bold]snow[/] [/b]"


@pytest.mark.parametrize("viewer", [False, True])
def test_paused_edits_stay_paused_only_where_somebody_can_let_them_go_on(
    whole: EditRun, tiny_scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], viewer: bool
):
    first = make_trainer(tiny_scene, tmp_path, NegativePrior())
    first._init_viewer_state()
    first.session.paused, first.session.phase = True, "edit"
    first._last_step = 3
    first.save_checkpoint(3)

    def resume(config: EditTrainerConfig) -> None:
        config.load_dir, config.vis = first.checkpoint_dir, "viewer" if viewer else "none"
        config.viewer.websocket_port = None

    capsys.readouterr()
    second = make_trainer(tiny_scene, tmp_path / "again", NegativePrior(), resume)
    said = " ".join(capsys.readouterr().out.split())
    assert second.session.paused == viewer
    assert second.pipeline.csd_edit.g_pause_edits.value == viewer
    assert ('untick "Pause edits" in the viewer' if viewer else "There is no viewer to untick it") in said
    if viewer:
        second.shutdown()


@pytest.mark.parametrize(
    ("vis", "step", "evaluates"), [("none", 500, 0), ("tensorboard", 500, 1), ("tensorboard", 501, 0)]
)
def test_evaluation_costs_nothing_where_nothing_shows_it(
    tiny_scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vis: str, step: int, evaluates: int
):
    trainer = make_trainer(tiny_scene, tmp_path, NegativePrior(), lambda config: setattr(config, "vis", vis))
    calls = []
    undisturbed = EditPipeline.undisturbed
    monkeypatch.setattr(EditPipeline, "undisturbed", lambda self: calls.append(self) or undisturbed(self))
    with own_writers():
        trainer.eval_iteration(step)
    assert len(calls) == evaluates


@pytest.mark.parametrize(("views", "rounds", "said"), [(1, 1, "its single view"), (3, 1, "all 3")])
def test_fewer_views_than_the_batch(
    tmp_path: Path, views: int, rounds: int, said: str, capsys: pytest.CaptureFixture[str]
):
    from tests.conftest import make_tiny_scene

    scene = make_tiny_scene(tmp_path / "scene", views=views)
    run = tiny_run(scene, tmp_path, scene_steps=2, max_num_iterations=2)
    assert (run.rounds, run.edited_views) == (rounds, views)
    assert f"using {said}" in " ".join(capsys.readouterr().out.split())
