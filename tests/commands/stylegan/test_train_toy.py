"""`csd stylegan train-toy`: a training that is stopped and goes on."""

from pathlib import Path

import pytest
import torch

from csd_nerf.cli import main
from csd_nerf.commands import sitting
from csd_nerf.commands.stylegan.evaluate import Evaluate
from csd_nerf.commands.stylegan.train_toy import TrainToy
from csd_nerf.images.stylegan.training import Training
from tests.commands.stopping import stop_after
from tests.commands.stylegan.generators import weights

SMALL = ["--channels", "4", "4", "--style", "5", "--pictures", "6", "--batch-size", "2", "--workers", "0"]
SMALL += ["--backgrounds", "studio"]


def test_the_toy_is_trained_stopped_and_trained_on(tmp_path: Path, monkeypatch, capsys) -> None:
    def run(name: str, steps: int, *more: str) -> int:
        return main(["stylegan", "train-toy", str(tmp_path / name), *SMALL, "--steps", str(steps), *more])

    assert run("whole.safetensors", 4) == 0
    with monkeypatch.context() as patched:
        patched.setattr(sitting, "steps_progress", stop_after(2, "Training"))
        assert run("part.safetensors", 4) == 130
    assert (tmp_path / "part.pictures.safetensors").is_file() and (tmp_path / "part.png").is_file()
    assert run("part.safetensors", 4, "--resume", "--colours", "blue") == 2
    assert "colours 'red' (now 'blue')" in capsys.readouterr().err.replace("\n", " ")
    state = (tmp_path / "part.safetensors.resume").read_bytes()
    assert run("part.safetensors", 4) == 2
    said = capsys.readouterr().err.replace("\n", "")
    assert "part.safetensors.resume is the state of an earlier training" in said and "give --resume" in said
    assert (tmp_path / "part.safetensors.resume").read_bytes() == state
    assert run("part.safetensors", 4, "--resume") == 0
    whole, part = weights(tmp_path / "whole.safetensors"), weights(tmp_path / "part.safetensors")
    assert all(torch.equal(whole[name], part[name]) for name in whole)
    assert run("part.safetensors", 6, "--resume") == 0
    assert not torch.equal(weights(tmp_path / "part.safetensors")["input.input"], part["input.input"])
    assert run("bad.safetensors", 0) == 2 and "--steps 0" in capsys.readouterr().err


def test_all_devices_are_chosen_alike(tmp_path: Path, capsys) -> None:
    command = ["stylegan", "train-toy", str(tmp_path / "a.safetensors"), "--device", "nonsense"]
    assert main(command) == 2
    assert "--device nonsense is no device" in " ".join(capsys.readouterr().err.split())
    assert Evaluate("toy").device == TrainToy(tmp_path).device == "auto"


def test_a_training_that_diverges_leaves_a_generator_that_can_be_read(tmp_path: Path, monkeypatch, capsys) -> None:
    """What it overwrites is replaced by finite weights, or kept where no step was made."""
    output, generated, calls = tmp_path / "a.safetensors", Training._generated, iter(range(100))

    def broken_later(training: Training) -> torch.Tensor:
        return generated(training) * (float("nan") if next(calls) >= 4 else 1.0)

    monkeypatch.setattr(Training, "_generated", broken_later)  # two pictures a step: of the generator, of its critic
    assert main(["stylegan", "train-toy", str(output), *SMALL, "--steps", "5"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "the training of the generator diverged at step 2" in said and "a.safetensors has what was reached" in said
    before = weights(output)
    assert main(["stylegan", "train-toy", str(output), *SMALL, "--steps", "5"]) == 2
    assert "diverged at step 0" in " ".join(capsys.readouterr().err.split())
    assert all(torch.equal(value, before[name]) for name, value in weights(output).items())


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--lr", "nan"], "--lr nan: give a positive learning rate"),
        (["--r1", "-1"], "--r1 -1.0: give a finite weight"),
        (["--path-weight", "nan"], "--path-weight nan: give a finite weight"),
        (["--batch-size", "0"], "--batch-size 0: give at least 1"),
        (["--channels", "0", "4"], "--channels 0 4: give one number of features"),
        (["--mapping-layers", "0"], "--mapping-layers 0: give at least 1"),
        (["--style", "0"], "--style 0: give at least 1"),
        (["--pictures", "0"], "--pictures 0: give at least 1"),
        (["--workers", "-1"], "--workers -1: give 0"),
        (["--seed", "-1"], "--seed -1: give 0 or more"),
        (["--colours", "mauve"], "--colours mauve: choose from red"),
        (["--resume"], "--resume: there is no"),
    ],
)
def test_what_cannot_be_trained_is_said_before_pictures_are_drawn(tmp_path: Path, capsys, flags, said: str) -> None:
    assert main(["stylegan", "train-toy", str(tmp_path / "a.safetensors"), *SMALL, "--steps", "2", *flags]) == 2
    text = " ".join(capsys.readouterr().err.split())
    assert said in text and "=" not in text and not list(tmp_path.iterdir())


def test_damaged_pictures_of_an_earlier_sitting_are_drawn_anew(tmp_path: Path) -> None:
    (tmp_path / "a.pictures.safetensors").write_text("no safetensors")
    assert main(["stylegan", "train-toy", str(tmp_path / "a.safetensors"), *SMALL, "--steps", "1"]) == 0
