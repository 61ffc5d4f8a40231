"""The demo: its scene is the toy world's, and it writes what it promises."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from csd_nerf.commands.demo import _FLAGS, _METHOD, _true_edits, run_demo
from csd_nerf.commands.run_flags import flags_of_command
from csd_nerf.scenes.errors import SceneError
from csd_nerf.scenes.run import EditRun
from csd_nerf.toyworld.demo_data import HELD_OUT, VIEWS, demo_cameras
from csd_nerf.toyworld.render import Renderer
from csd_nerf.toyworld.scene import demo_scene
from tests.conftest import make_tiny_scene
from tests.scenes.edit_fixtures import tiny_run


def test_carried_scene_is_the_toy_worlds_held_out_scene() -> None:
    folder = resources.files("csd_nerf.data") / "demo_scene"
    frames = json.loads((folder / "transforms.json").read_text())
    assert demo_scene().held_out
    assert len(frames["train_filenames"]) == VIEWS >= 24 and len(frames["test_filenames"]) == HELD_OUT
    one = demo_cameras(held_out=True).split()[2]
    assert torch.allclose(
        one.camera_to_world[0], torch.tensor(frames["frames"][VIEWS + 2]["transform_matrix"]), atol=1e-5
    )
    with resources.as_file(folder / frames["test_filenames"][2]) as path:
        stored = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) / 255
    assert (Renderer(one).render(demo_scene())[0] - stored).abs().max() < 2 / 255


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prompt", "answers"),
    [("give it a top hat", 8), ("make it snow", 1), ("turn it into a pencil sketch", 1), ("make it a cathedral", 0)],
)
def test_true_edits_of_the_demo_scene(prompt: str, answers: int) -> None:
    assert len(_true_edits(prompt)) == answers


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of a few steps on a tiny field, with a prior in closed form."""

    def run_edit(data: Path, prompt: str, *, output_dir: Path, **choices: Any) -> EditRun:
        return tiny_run(data, output_dir, prompt=prompt, seed=choices["seed"], timestamp=choices["timestamp"])

    monkeypatch.setattr("csd_nerf.scenes.run_edit", run_edit, raising=False)
    monkeypatch.setattr("csd_nerf.commands.demo._FRAMES", 4)


@pytest.mark.parametrize(("views", "held_out"), [(1, 0), (3, 0), (12, 1)])
def test_a_scene_without_held_out_views_shows_its_training_views(
    tmp_path: Path, quick: None, capsys: pytest.CaptureFixture[str], views: int, held_out: int
) -> None:
    scene = make_tiny_scene(tmp_path / "scene", views=views)
    metrics = run_demo(scene, "make it [red]", tmp_path / "[a]")
    said = " ".join(capsys.readouterr().err.split())
    assert f"{tmp_path}/[a]: before.mp4" in said
    shown = f"keeps no views from training: its {views} training views are shown, with no PSNR"
    assert (shown in said) == (held_out == 0)
    assert metrics["held-out views"] == held_out
    assert (metrics["psnr of the scene before the edit"] is None) == (held_out == 0)
    assert json.loads((tmp_path / "[a]/metrics.json").read_text()) == metrics
    for file in ("before.mp4", "after.mp4", "comparison.png"):
        assert (tmp_path / "[a]" / file).stat().st_size > 500


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("--data x: --datamanager is not --data-x", "--scene x: --datamanager is not --data-x"),
        ("--pipeline.seed -1: give 0 or more", "--seed -1: give 0 or more"),
        (
            "round 2 failed. Try --pipeline.prior-dtype fp32",
            "round 2 failed. Try --pipeline.prior-dtype fp32 (Not a flag of this command: of `ns-train csd-edit-lite`, "
            "which makes the same run.)",
        ),
    ],
)
def test_errors_say_whose_flags_they_name(said: str, heard: str) -> None:
    with pytest.raises(ValueError) as error, flags_of_command(_FLAGS, _METHOD):
        raise SceneError(said)
    assert str(error.value) == heard


@pytest.mark.slow
def test_demo_writes_its_files_and_repeats_itself(tmp_path: Path) -> None:
    """A short run; the pictures of two runs with one seed are the same, to the byte."""
    for name in ("one", "two"):
        run_demo(None, "make it night", tmp_path / name, seed=3, steps=3)
    for file in ("before.mp4", "after.mp4", "comparison.png"):
        assert (tmp_path / "one" / file).stat().st_size > 1000
    one, two = (np.asarray(Image.open(tmp_path / name / "comparison.png")) for name in ("one", "two"))
    assert (one == two).all()
    metrics = json.loads((tmp_path / "one" / "metrics.json").read_text())
    assert metrics["truth"]["nearest true edit"] == "night"
