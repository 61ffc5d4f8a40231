"""`csd generate`: what it writes, and what it says of bad input before any work."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from csd_nerf.cli import main
from csd_nerf.commands.generate import Generate, write_showcase
from csd_nerf.scenes.generation.run import METHODS
from tests.scenes.generation.fixtures import tiny_run


def test_it_writes_two_videos_and_a_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import av

    monkeypatch.setattr("csd_nerf.commands.generate._SIZE", 32)
    write_showcase(tiny_run(tmp_path / "runs"), tmp_path)
    for name in ("turntable", "depth"):
        with av.open(str(tmp_path / f"{name}.mp4")) as video:
            frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
        assert len(frames) == 72 and frames[0].shape == (32, 32, 3)
    with Image.open(tmp_path / "views.png") as sheet:
        assert sheet.height > 3 * 32


@pytest.mark.parametrize(("method", "expected"), [("latent-fm-lite", 20), ("latent-fm", 28)])
def test_fewer_steps_are_shared_out_as_the_usual_ones(method: str, expected: int):
    config: Any = METHODS[method]()
    Generate("a car", method=method, steps=100)._configure(config)
    assert config.pipeline.refine_steps == expected


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--prompt", " "], 'error: --prompt is empty: say what to make, such as "a red mushroom".'),
        (
            ["--prompt", "a car", "--method", "nerf"],
            "--method nerf is unknown: choose csd-dreamfusion, csd-dreamfusion",
        ),
        (["--prompt", "a car", "--guidance", "inf"], "--guidance inf: give a finite number, 0 or more."),
        (["--prompt", "a car", "--method", "latent-fm-lite", "--kernel", "rbf"], "--kernel rbf: latent-fm scores each"),
        ([], "--prompt is empty: say what to make"),
        (["--prompt", "a car", "--steps", "0"], "--steps 0: give at least 1."),
        (["--prompt", "a car", "--prior", "./nowhere"], "--prior ./nowhere: prior './nowhere' cannot be loaded"),
        (["--prompt", "a car", "--resume", "nowhere"], "--resume nowhere is no folder"),
    ],
)
def test_bad_input_names_the_flag(
    flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["generate", *flags, "--output", str(tmp_path)]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
