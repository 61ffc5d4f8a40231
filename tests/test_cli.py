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


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--scene", "nowhere"], "--scene nowhere does not exist"),
        (["--prompt", " "], "--prompt is empty"),
        (["--steps", "0"], "--steps 0: give at least 1"),
        (["--seed", "-1"], "--seed -1: give 0 or more"),
        (["--output", "taken"], "cannot write taken/runs"),
    ],
)
def test_demo_names_its_own_flag_before_any_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    complaint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken").write_text("a file")
    assert main(["demo", *flags]) == 2
    text = said(capsys)
    assert complaint in text and "pipeline" not in text and "--output-dir" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


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
