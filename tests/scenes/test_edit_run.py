import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from csd_nerf.scenes import edit_trainer
from csd_nerf.scenes.checkpoints import write_checkpoint
from csd_nerf.scenes.edit_trainer import EditTrainerConfig
from csd_nerf.scenes.errors import SceneError, writing_to
from csd_nerf.scenes.files import read_picture
from csd_nerf.scenes.run import EditRun
from tests.scenes.edit_fixtures import (
    EDIT_STEPS,
    GUIDANCE,
    PROMPT,
    SCENE_STEPS,
    same_edits,
    same_weights,
    tiny_run,
)


def test_a_run_trains_the_scene_then_edits_every_view(whole: EditRun):
    assert whole.rounds == 2 and whole.edited_views == 11
    index = json.loads((whole.edits / "edits.json").read_text())
    assert [len(entry["views"]) for entry in index["rounds"]] == [6, 5]
    assert sorted(int(view) for entry in index["rounds"] for view in entry["views"]) == list(range(11))
    assert {entry["prompt"] for entry in index["rounds"]} == {PROMPT}
    assert [entry["step"] for entry in index["rounds"]] == [SCENE_STEPS - 1, SCENE_STEPS + 3]
    assert index["rounds"][0]["settings"]["guidance_scale"] == GUIDANCE
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


def in_its_own_scene_folder(run: EditRun) -> bool:
    return run.scene_checkpoint.parent == run.folder / "scene" and run.scene_checkpoint.is_file()


def same_file(one: Path, other: Path) -> bool:
    return one.read_bytes() == other.read_bytes()


def test_resuming_into_another_folder_takes_the_edits_along(whole: EditRun, tiny_scene: Path, tmp_path: Path):
    longer = tiny_run(tiny_scene, tmp_path, load_dir=whole.folder, max_num_iterations=EDIT_STEPS + 4)
    assert longer.rounds == 3 and longer.folder != whole.folder
    assert in_its_own_scene_folder(longer) and same_file(longer.scene_checkpoint, whole.scene_checkpoint)
    straight = tiny_run(tiny_scene, tmp_path / "straight", max_num_iterations=EDIT_STEPS + 4)
    assert same_weights(longer, straight) and same_edits(longer, straight)


def test_editing_from_the_kept_scene_is_what_the_run_itself_did(whole: EditRun, tiny_scene: Path, tmp_path: Path):
    again = tiny_run(tiny_scene, tmp_path, load_dir=whole.scene_checkpoint.parent)
    assert same_weights(whole, again) and same_edits(whole, again)
    assert in_its_own_scene_folder(again) and same_file(again.scene_checkpoint, whole.scene_checkpoint)


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
    assert in_its_own_scene_folder(run) and same_file(run.scene_checkpoint, scene / "step-000029999.ckpt")


@pytest.mark.parametrize("linkable", [True, False])
def test_the_scene_before_the_edit_outlives_the_runs_it_came_through(
    whole: EditRun, tiny_scene: Path, tmp_path: Path, linkable: bool, monkeypatch: pytest.MonkeyPatch
):
    if not linkable:

        def refuse(self: Path, target: Path) -> None:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

        monkeypatch.setattr(Path, "hardlink_to", refuse)
    scene = as_plain_nerfacto(whole.scene_checkpoint, tmp_path / "nerfacto/nerfstudio_models")
    first = tiny_run(tiny_scene, tmp_path, load_dir=scene, timestamp="first")
    content = first.scene_checkpoint.read_bytes()
    shutil.rmtree(scene.parent)
    second = tiny_run(
        tiny_scene, tmp_path, load_dir=first.folder, timestamp="second", max_num_iterations=EDIT_STEPS + 1
    )
    shutil.rmtree(first.folder)
    assert in_its_own_scene_folder(second) and second.scene_checkpoint.read_bytes() == content
    assert not [path for path in second.folder.iterdir() if path.suffix == ".tmp"]
    again = tiny_run(tiny_scene, tmp_path, load_dir=second.folder / "scene", timestamp="third")
    assert in_its_own_scene_folder(again) and again.rounds == 2


def test_a_disk_that_is_full_when_the_scene_is_trained_loses_nothing_saved(
    whole: EditRun, tiny_scene: Path, tmp_path: Path
):
    def fill(path: Path, *arguments: Any) -> None:
        if path.parent.name == "scene":
            path.parent.mkdir(parents=True)
            with writing_to(path):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_checkpoint(path, *arguments)

    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(SceneError, match="no space left.*resume with --load-dir"),
    ):
        patch.setattr(edit_trainer, "write_checkpoint", fill)
        tiny_run(tiny_scene, tmp_path, configure=lambda config: setattr(config, "steps_per_save", 4))
    run = tmp_path / "tiny/csd-edit-lite/run"
    assert list((run / "scene").iterdir()) == [], "made, but nothing in it"
    assert [path.name for path in (run / "nerfstudio_models").iterdir()] == ["step-000000004.ckpt"]
    resumed = tiny_run(tiny_scene, tmp_path, load_dir=run / "nerfstudio_models")
    assert in_its_own_scene_folder(resumed)
    assert same_weights(whole, resumed) and same_edits(whole, resumed)


def test_resuming_with_another_prompt_takes_the_new_one(whole: EditRun, tiny_scene: Path, tmp_path: Path):
    run = tiny_run(tiny_scene, tmp_path, load_dir=whole.folder, prompt="new", max_num_iterations=EDIT_STEPS + 4)
    prompts = [entry["prompt"] for entry in json.loads((run.edits / "edits.json").read_text())["rounds"]]
    assert prompts == [PROMPT, PROMPT, "new"]


def test_the_configuration_keeps_the_total(whole: EditRun):
    text = whole.config_path.read_text()
    assert f"max_num_iterations: {EDIT_STEPS}" in text and "implementation: torch" in text
    assert replace(EditTrainerConfig()).max_num_iterations == 30000
