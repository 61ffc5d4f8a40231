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


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--photos", "none"], "--photos none is no folder"),
        (["--style-nets", "none"], "--style-nets none is no folder"),
        (["--autoencoder-minutes", "0"], "--autoencoder-minutes 0.0: give more than 0"),
        (["--denoiser-minutes", "nan"], "--denoiser-minutes nan: give more than 0"),
        (["--denoiser-rate", "-1"], "--denoiser-rate -1.0: give more than 0"),
        (["--start-from", "none"], "--start-from none has no vae"),
        (["--start-from", "a", "--autoencoder-minutes", "1"], "--autoencoder-minutes: with --start-from"),
        (["--device", "gpu7"], "--device gpu7 is no device: give auto, cpu, cuda or cuda:N"),
        (["--device", "cuda:64"], "--device cuda:64: torch sees"),
    ],
)
def test_training_refuses_bad_flags_before_it_makes_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], complaint: str
) -> None:
    assert main(["prior", "train", "--output", str(tmp_path / "out"), *flags]) == 2
    text = said(capsys)
    assert complaint in text and text.count("csd: error:") == 1
    assert not (tmp_path / "out").exists()


def test_brackets_in_an_error_are_printed_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise FloatingPointError("[torch25] /tmp/[a] [/b]")

    monkeypatch.setattr("csd_nerf.commands.demo.run_demo", fail)
    assert main(["demo"]) == 2
    assert said(capsys) == "csd: error: [torch25] /tmp/[a] [/b]"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["demo", "--steps", "abc"], "Error parsing --steps"),
        (["demo", "--sede", "3"], "Unrecognized options: --sede"),
        (["demo", "--prompt"], "Missing value for argument '--prompt'"),
        (["prior", "train", "--size", "huge"], "invalid choice 'huge'"),
        (["nonsense"], "Unrecognized options: nonsense"),
    ],
)
def test_flags_that_do_not_parse_give_one_message(
    capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    captured = capsys.readouterr()
    text = " ".join((captured.err + captured.out).split())
    assert complaint in text and text.count("For full helptext") == 1


def test_demo_takes_a_prompt_for_its_own_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    monkeypatch.setattr("csd_nerf.commands.demo.run_demo", lambda *arguments: given.append(arguments))
    assert main(["demo", "--prompt", "make it snow", "--seed", "3", "--steps", "5", "--output", "o"]) == 0
    assert given == [(None, "make it snow", Path("o"), 3, 5)]
