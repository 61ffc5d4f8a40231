import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from csd_nerf.scenes.edit_config import lite_config
from csd_nerf.scenes.edit_trainer import EditTrainer, EditTrainerConfig
from csd_nerf.scenes.errors import SceneError
from csd_nerf.scenes.files import read_picture
from csd_nerf.scenes.run import EditRun
from tests.scenes.edit_fixtures import EDIT_STEPS, PROMPT, SCENE_STEPS, NegativePrior, tiny_run, weights


@pytest.fixture(scope="module")
def whole(tiny_scene: Path, tmp_path_factory: pytest.TempPathFactory) -> EditRun:
    """A run that nobody interrupted: six steps on the photos, two rounds, eight steps on the edits."""
    return tiny_run(tiny_scene, tmp_path_factory.mktemp("whole"))


def same_edits(one: EditRun, other: EditRun) -> bool:
    indices = [json.loads((run.edits / "edits.json").read_text()) for run in (one, other)]
    entries = [[{k: v for k, v in e.items() if k != "seconds"} for e in index["rounds"]] for index in indices]
    files = [file for entry in entries[0] for file in entry["views"].values()]
    return entries[0] == entries[1] and all(
        torch.equal(read_picture(one.edits / file), read_picture(other.edits / file)) for file in files
    )


def same_weights(one: EditRun, other: EditRun) -> bool:
    first, second = weights(one.checkpoint), weights(other.checkpoint)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_a_run_trains_the_scene_then_edits_every_view(whole: EditRun):
    assert whole.rounds == 2 and whole.edited_views == 11
    index = json.loads((whole.edits / "edits.json").read_text())
    assert [len(entry["views"]) for entry in index["rounds"]] == [6, 5]
    assert sorted(int(view) for entry in index["rounds"] for view in entry["views"]) == list(range(11))
    assert {entry["prompt"] for entry in index["rounds"]} == {PROMPT}
    assert [entry["step"] for entry in index["rounds"]] == [SCENE_STEPS - 1, SCENE_STEPS + 3]
    assert index["rounds"][0]["settings"]["guidance_scale"] == lite_config().pipeline.guidance_scale
    assert all((whole.edits / f"round_{number:04d}/contact_sheet.png").is_file() for number in (1, 2))
    assert whole.checkpoint.name == f"step-{SCENE_STEPS + EDIT_STEPS - 1:09d}.ckpt"
    assert whole.scene_checkpoint.name == f"step-{SCENE_STEPS - 1:09d}.ckpt"
    assert not [path for path in whole.folder.rglob("*.tmp")]


def test_edited_views_follow_the_prompt(whole: EditRun, tiny_scene: Path):
    index = json.loads((whole.edits / "edits.json").read_text())
    for entry in index["rounds"]:
        for view, file in entry["views"].items():
            photo = read_picture(tiny_scene / "images" / index["view_names"][int(view)]).float()
            photo = torch.nn.functional.avg_pool2d(photo.permute(2, 0, 1), 2).permute(1, 2, 0) - 127.5
            edit = read_picture(whole.edits / file).float() - 127.5
            assert (photo * edit).mean() < 0, "nearer to the negative than to the photo"


def test_checkpoints_hold_the_scene_and_plain_state_but_no_prior(whole: EditRun):
    state = torch.load(whole.checkpoint, weights_only=True)
    assert {key.split(".")[0] for key in state["pipeline"]} == {"_model", "_extra_state"}
    assert whole.checkpoint.stat().st_size < 400_000


def test_the_same_seed_gives_the_same_run_and_another_one_does_not(whole: EditRun, tiny_scene: Path, tmp_path: Path):
    again = tiny_run(tiny_scene, tmp_path / "again")
    assert same_weights(whole, again) and same_edits(whole, again)
    other = tiny_run(tiny_scene, tmp_path / "other", seed=1)
    assert not same_weights(whole, other)


KILLED = """
import os, signal, sys, torch
from pathlib import Path
torch.set_num_threads(int(sys.argv[3]))
from tests.scenes.edit_fixtures import NegativePrior, tiny_run

def kill_in_round_two(call):
    if call == 8:  # five steps of round 1, then the third of round 2
        os.kill(os.getpid(), signal.SIGKILL)
    return 1.0

prior = NegativePrior(on_call=kill_in_round_two)
tiny_run(Path(sys.argv[1]), Path(sys.argv[2]), prior=prior, configure=lambda c: setattr(c, "steps_per_save", 4))
"""


def test_a_run_killed_in_mid_round_resumes_exactly(whole: EditRun, tiny_scene: Path, tmp_path: Path):
    arguments = [str(tiny_scene), str(tmp_path), str(torch.get_num_threads())]
    root = Path(__file__).parents[2]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments], cwd=root, capture_output=True, text=True, check=False
    )
    assert killed.returncode == -9, killed.stderr
    run = tmp_path / "tiny/csd-edit-lite/run"
    checkpoints = list((run / "nerfstudio_models").iterdir())
    assert [path.name for path in checkpoints] == ["step-000000008.ckpt"], "three steps after round 1"
    assert json.loads((run / "edits/edits.json").read_text())["rounds"][-1]["round"] == 1
    stale = run / "edits/round_0002/view_0099.png"  # as if it had died while writing round 2
    stale.parent.mkdir()
    stale.write_bytes(b"half a picture")
    resumed = tiny_run(tiny_scene, tmp_path, load_dir=run / "nerfstudio_models")
    assert resumed.folder == run
    assert same_weights(whole, resumed) and same_edits(whole, resumed)
    assert not stale.exists()


def test_resuming_into_another_folder_takes_the_edits_along(whole: EditRun, tiny_scene: Path, tmp_path: Path):
    longer = tiny_run(tiny_scene, tmp_path, load_dir=whole.folder, max_num_iterations=EDIT_STEPS + 4)
    assert longer.rounds == 3 and longer.folder != whole.folder
    assert longer.scene_checkpoint == whole.scene_checkpoint
    straight = tiny_run(tiny_scene, tmp_path / "straight", max_num_iterations=EDIT_STEPS + 4)
    assert same_weights(longer, straight) and same_edits(longer, straight)


def test_editing_from_the_kept_scene_is_what_the_run_itself_did(whole: EditRun, tiny_scene: Path, tmp_path: Path):
    again = tiny_run(tiny_scene, tmp_path, load_dir=whole.scene_checkpoint.parent)
    assert same_weights(whole, again) and same_edits(whole, again)
    assert again.scene_checkpoint == whole.scene_checkpoint


def test_a_finished_run_says_that_nothing_is_left(whole: EditRun, tiny_scene: Path, tmp_path: Path):
    with pytest.raises(SceneError, match=f"all {EDIT_STEPS} edit steps of this run are done: raise --max-num-iterat"):
        tiny_run(tiny_scene, tmp_path, load_dir=whole.folder)


def as_plain_nerfacto(checkpoint: Path, folder: Path) -> Path:
    """The scene as plain nerfacto saves it: LPIPS weights, camera corrections, no state of ours."""
    state = torch.load(checkpoint, weights_only=True)
    del state["pipeline"]["_extra_state"]
    state["pipeline"]["_model.lpips.net.weight"] = torch.zeros(3)
    state["pipeline"]["_model.camera_optimizer.pose_adjustment"] = torch.zeros(11, 6)
    state["pipeline"]["datamanager.train_ray_generator.image_coords"] = torch.zeros(3)
    state["optimizers"] = {"fields": {"state": {}, "param_groups": []}}
    state["step"] = 29999
    folder.mkdir(parents=True)
    torch.save(state, folder / "step-000029999.ckpt")
    return folder


def test_a_plain_nerfacto_checkpoint_is_edited_at_once(whole: EditRun, tiny_scene: Path, tmp_path: Path):
    scene = as_plain_nerfacto(whole.scene_checkpoint, tmp_path / "nerfacto/nerfstudio_models")
    run = tiny_run(tiny_scene, tmp_path, load_dir=scene)
    index = json.loads((run.edits / "edits.json").read_text())
    assert [entry["step"] for entry in index["rounds"]] == [29999, 29999 + 4]
    assert run.checkpoint.name == f"step-{29999 + EDIT_STEPS:09d}.ckpt"
    assert run.scene_checkpoint == scene / "step-000029999.ckpt"


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
    assert "Round 3" in trainer.pipeline.csd_edit.i_progress.content
    assert "data:image/jpeg;base64," in trainer.pipeline.csd_edit.j_contact_sheet.content


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


def test_resuming_with_another_prompt_takes_the_new_one(whole: EditRun, tiny_scene: Path, tmp_path: Path):
    run = tiny_run(tiny_scene, tmp_path, load_dir=whole.folder, prompt="new", max_num_iterations=EDIT_STEPS + 4)
    prompts = [entry["prompt"] for entry in json.loads((run.edits / "edits.json").read_text())["rounds"]]
    assert prompts == [PROMPT, PROMPT, "new"]


def test_the_configuration_keeps_the_total(whole: EditRun):
    text = whole.config_path.read_text()
    assert f"max_num_iterations: {EDIT_STEPS}" in text and "implementation: torch" in text
    assert replace(EditTrainerConfig()).max_num_iterations == 30000
