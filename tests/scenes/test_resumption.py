"""What a run says and checks when it goes on from another one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from csd_nerf.scenes.edit_trainer import EditTrainerConfig
from csd_nerf.scenes.errors import SceneError
from csd_nerf.scenes.files import remove_leftovers
from csd_nerf.scenes.run import EditRun
from tests.scenes.edit_fixtures import EDIT_STEPS, NegativePrior, make_trainer, tiny_run

MORE = EDIT_STEPS + 4


def words(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_flags_that_differ_are_named_in_one_line(
    whole: EditRun, tiny_scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def change(config: EditTrainerConfig) -> None:
        config.max_num_iterations, config.load_dir = MORE, whole.folder
        config.pipeline.seed, config.pipeline.edit_every, config.pipeline.prompt = 7, 3, "make it [red]"

    make_trainer(tiny_scene, tmp_path, NegativePrior(), change)
    line = (
        "Other than in that run, and used from now on: --pipeline.prompt make it [red] (was make it negative), "
        "--pipeline.edit-every 3 (was 4), --pipeline.seed 7 (was 0)."
    )
    assert line in words(capsys)


def test_nothing_is_said_where_nothing_differs_or_another_edit_begins(
    whole: EditRun, tiny_scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    tiny_run(tiny_scene, tmp_path, load_dir=whole.folder, max_num_iterations=MORE)
    tiny_run(tiny_scene, tmp_path, load_dir=whole.scene_checkpoint.parent, prompt="other", seed=3, timestamp="other")
    assert "Other than" not in words(capsys)


def test_another_view_size_is_refused(whole: EditRun, tiny_scene: Path, tmp_path: Path):
    def shrink(config: EditTrainerConfig) -> None:
        config.pipeline.datamanager.view_size = 8

    with pytest.raises(SceneError, match=r"was edited at 16 x 16 pixels, now it has 8 x 8: give --pipeline.datam"):
        tiny_run(tiny_scene, tmp_path, load_dir=whole.folder, max_num_iterations=MORE, configure=shrink)
    again = tiny_run(tiny_scene, tmp_path, load_dir=whole.scene_checkpoint.parent, configure=shrink)
    assert again.rounds == 2, "the scene itself can be edited at any size"


def test_the_panel_shows_the_last_round(whole: EditRun, tiny_scene: Path, tmp_path: Path):
    def resume(config: EditTrainerConfig) -> None:
        config.max_num_iterations, config.load_dir = MORE, whole.folder

    panel = make_trainer(tiny_scene, tmp_path, NegativePrior(), resume).pipeline.csd_edit
    assert panel.j_contact_sheet.content.startswith("**Round 2**") and "base64" in panel.j_contact_sheet.content


def test_the_time_that_is_left_is_judged_by_this_process(
    whole: EditRun, tiny_scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The run so far may have been made on another machine."""
    state = torch.load(whole.checkpoint, weights_only=True)
    state["pipeline"]["_extra_state"]["session"] |= {"nerf_seconds": 14e6, "edit_seconds": 2e6}
    slow = tmp_path / "slow"
    (slow / "nerfstudio_models").mkdir(parents=True)
    torch.save(state, slow / "nerfstudio_models" / whole.checkpoint.name)
    (slow / "edits").symlink_to(whole.edits)
    run = tiny_run(tiny_scene, tmp_path, load_dir=slow, max_num_iterations=EDIT_STEPS + 12)
    said = words(capsys)
    assert run.nerf_seconds > 14e6 and "with what earlier runs did" in said
    left = [line for line in said.split("About ")[1:] if " left: " in line]
    assert left and not any(" h " in line.split(" left")[0] for line in left)


def test_camera_corrections_that_are_dropped_are_told(
    whole: EditRun, tiny_scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    state = torch.load(whole.scene_checkpoint, weights_only=True)
    del state["pipeline"]["_extra_state"]
    state["pipeline"]["_model.camera_optimizer.pose_adjustment"] = torch.full((11, 6), 0.01)
    (tmp_path / "nerfacto").mkdir()
    torch.save(state, tmp_path / "nerfacto/step-000000005.ckpt")
    capsys.readouterr()

    def resume(mode: str) -> str:
        def configure(config: EditTrainerConfig) -> None:
            config.load_dir = tmp_path / "nerfacto"
            config.pipeline.model.camera_optimizer.mode = mode  # pyright: ignore[reportAttributeAccessIssue]

        make_trainer(tiny_scene, tmp_path / mode, NegativePrior(), configure)
        return words(capsys)

    assert "are not used: the cameras stay as in --data (--pipeline.model.camera-optimizer.mode off)." in resume("off")
    assert "are not used" not in resume("SO3xR3")


def test_what_a_killed_process_left_is_removed(tmp_path: Path):
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    number = int(dead.stdout)
    (tmp_path / "edits/round_0001").mkdir(parents=True)
    leftovers = [
        tmp_path / f".step-000000004.ckpt.{number}.tmp",
        tmp_path / f"edits/.edits.json.{number}.tmp",
        tmp_path / f"edits/round_0001/.view_0001.png.{number}.tmp",
    ]
    kept = [
        tmp_path / f".step-000000004.ckpt.{os.getppid()}.tmp",
        tmp_path / "edits/round_0001/view_0001.png",
        tmp_path / f"notes.{number}.tmp",
    ]
    for path in leftovers + kept:
        path.write_bytes(b"half")
    remove_leftovers(tmp_path)
    assert not any(path.exists() for path in leftovers) and all(path.exists() for path in kept)


@pytest.mark.parametrize("resumed", [True, False])
def test_a_run_cleans_up_where_it_goes_on(whole: EditRun, tiny_scene: Path, tmp_path: Path, resumed: bool):
    run = tmp_path / "tiny/csd-edit-lite/run"
    folder = whole.folder if resumed else run
    folder.mkdir(parents=True, exist_ok=True)
    leftover = folder / ".step-000000004.ckpt.99999999.tmp"
    leftover.write_bytes(b"half")

    def resume(config: EditTrainerConfig) -> None:
        config.max_num_iterations, config.load_dir = MORE, whole.folder if resumed else None

    make_trainer(tiny_scene, tmp_path, NegativePrior(), resume)
    assert not leftover.exists()
