"""What happens in and around a round: conditions, the viewer's wishes, failures."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from csd_nerf.scenes.edit_trainer import EditTrainer, EditTrainerConfig
from csd_nerf.scenes.errors import SceneError
from csd_nerf.scenes.files import read_picture
from csd_nerf.scenes.run import EditRun
from tests.scenes.edit_fixtures import (
    EDIT_STEPS,
    PROMPT,
    SCENE_STEPS,
    NegativePrior,
    same_edits,
    same_weights,
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


def make_trainer(
    data: Path, output: Path, prior: NegativePrior, configure: Callable[[EditTrainerConfig], Any] | None = None
) -> EditTrainer:
    """A trainer that is set up and has not begun."""
    made: list[EditTrainerConfig] = []

    def keep(config: EditTrainerConfig) -> None:
        if configure is not None:
            configure(config)
        made.append(config)
        raise StopIteration

    with pytest.raises(StopIteration):
        tiny_run(data, output, prior=prior, configure=keep)
    config = made[0]
    config.save_config()
    torch.manual_seed(0)
    trainer = EditTrainer(config, prior=prior)
    trainer.setup()
    return trainer


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


def test_ending_the_scene_phase_early_does_not_lengthen_the_run(tiny_scene: Path, tmp_path: Path):
    trainer = make_trainer(tiny_scene, tmp_path, NegativePrior(), lambda c: setattr(c.pipeline, "scene_steps", 100))
    panel = trainer.pipeline.csd_edit
    panel.f_edit_now.cb_hook(panel.f_edit_now)
    trainer.train()
    assert (trainer.session.scene_done, trainer.session.edit_done) == (1, EDIT_STEPS)
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


def test_a_network_that_fails_stops_the_run_and_loses_nothing(tiny_scene: Path, tmp_path: Path):
    prior = NegativePrior(on_call=lambda call: float("nan") if call == 8 else 1.0)
    with pytest.raises(SceneError, match=r"round 2 failed: .*not finite.*keep what they showed before") as error:
        tiny_run(tiny_scene, tmp_path, prior=prior)
    run = tmp_path / "tiny/csd-edit-lite/run"
    said = re.search(r"reached is in (\S+)\.", str(error.value))
    assert said is not None
    partial = Path(said[1])
    assert partial == run / "edits/round_0002_partial" and len(list(partial.glob("view_*.png"))) == 5
    checkpoint = run / "nerfstudio_models" / f"step-{SCENE_STEPS + 3:09d}.ckpt"
    state = torch.load(checkpoint, weights_only=True)["pipeline"]["_extra_state"]["session"]
    assert sorted(set(state["edited_in"])) == [0, 1], "the views of round 2 keep their photos"
    index = json.loads((run / "edits/edits.json").read_text())
    assert len(index["rounds"]) == 1 and index["events"][0]["event"] == "round failed"
    resumed = tiny_run(tiny_scene, tmp_path, load_dir=run / "nerfstudio_models")
    assert resumed.rounds == 2


def test_a_round_that_does_not_fit_into_memory_says_so(whole: EditRun, tiny_scene: Path, tmp_path: Path):
    def fail(call: int) -> float:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(SceneError, match=r"round 1 does not fit .*smaller --pipeline.prior-batch-size"):
        tiny_run(tiny_scene, tmp_path, prior=NegativePrior(on_call=fail), load_dir=whole.scene_checkpoint.parent)
    models = tmp_path / "tiny/csd-edit-lite/run/nerfstudio_models"
    resumed = tiny_run(tiny_scene, tmp_path, load_dir=models)
    assert same_weights(whole, resumed) and same_edits(whole, resumed)


@pytest.mark.parametrize(("views", "rounds", "said"), [(1, 1, "its single view"), (3, 1, "all 3")])
def test_fewer_views_than_the_batch(
    tmp_path: Path, views: int, rounds: int, said: str, capsys: pytest.CaptureFixture[str]
):
    from tests.conftest import make_tiny_scene

    scene = make_tiny_scene(tmp_path / "scene", views=views)
    run = tiny_run(scene, tmp_path, scene_steps=2, max_num_iterations=2)
    assert (run.rounds, run.edited_views) == (rounds, views)
    assert f"using {said}" in " ".join(capsys.readouterr().out.split())
