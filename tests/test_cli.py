"""The command line: one clear line for what a user can mend."""

from pathlib import Path

import pytest

from csd_nerf.cli import main


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def test_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "demo" in text and "prior" in text


def test_demo_of_a_missing_scene_names_the_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["demo", "--scene", str(tmp_path / "nowhere"), "--output", str(tmp_path / "out")])
    assert code == 2
    assert "--scene" in said(capsys)
    assert not (tmp_path / "out").exists()


def test_demo_without_a_prompt_says_so_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--prompt", " ", "--output", str(tmp_path)]) == 2
    assert "prompt is empty" in said(capsys)


def test_unknown_prior_names_the_three_ways(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prior", "info", "nonsense"]) == 2
    text = said(capsys)
    assert "toy" in text and "diffusers layout" in text and "hub id" in text


def test_embedded_prior_describes_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prior", "info", "toy"]) == 0
    assert "64 x 64" in capsys.readouterr().out


def test_training_refuses_a_missing_photo_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prior", "train", "--output", str(tmp_path), "--photos", str(tmp_path / "none")]) == 2
    assert "--photos" in said(capsys)
