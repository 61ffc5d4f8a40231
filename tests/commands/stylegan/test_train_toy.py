"""`csd stylegan train-toy`: a training that is stopped and goes on."""

from pathlib import Path

import torch

from csd_nerf.cli import main
from csd_nerf.commands import sitting
from csd_nerf.commands.stylegan.evaluate import Evaluate
from csd_nerf.commands.stylegan.train_toy import TrainToy
from tests.commands.stylegan.generators import stop_any, weights


def test_the_toy_is_trained_stopped_and_trained_on(tmp_path: Path, monkeypatch, capsys) -> None:
    small = ["--channels", "4", "4", "--style", "5", "--pictures", "6", "--batch-size", "2", "--workers", "0"]

    def run(name: str, steps: int, *more: str) -> int:
        command = [
            "stylegan",
            "train-toy",
            str(tmp_path / name),
            *small,
            "--steps",
            str(steps),
            "--backgrounds",
            "studio",
        ]
        return main([*command, *more])

    assert run("whole.safetensors", 4) == 0
    with monkeypatch.context() as patched:
        patched.setattr(sitting, "steps_progress", stop_any(2))
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
