"""`csd synthesize` with the toy prior: what it writes, how it is stopped, what it refuses."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from csd_nerf.cli import main
from csd_nerf.commands import sitting
from csd_nerf.commands.edit_flags import PriorFlags
from csd_nerf.images.synthesis import TOY as own
from csd_nerf.images.synthesis import SynthesisSettings
from csd_nerf.priors.autoencoder import Autoencoder
from csd_nerf.priors.diffusion import DiffusionPrior
from tests.commands.pictures import pixels
from tests.commands.stopping import stop_after

TOY = ["--prior", "toy", "--steps", "4", "--prompt", "a red mushroom on a meadow", "--lambda-fm", "0"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_it_writes_pictures_a_sheet_and_what_was_asked(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "new" / "out"
    assert main(["synthesize", *TOY, "--samples", "2", "--output", str(folder)]) == 0
    assert names(folder) == ["000.png", "001.png", "samples.png", "synthesis.json"]
    first, second = (pixels(folder / f"00{number}.png") for number in range(2))
    assert first.shape == (64, 64, 3) and not np.array_equal(first, second)
    assert np.asarray(pixels(folder / "samples.png")).shape[0] >= 192
    record = json.loads((folder / "synthesis.json").read_text())
    assert record["prompt"] == "a red mushroom on a meadow" and record["steps made"] == 4
    assert record["lambda_feature_matching"] == 0 and record["losses, last tenth"]["all"]["lsd"]["gradient norm"] > 0
    said = capsys.readouterr().err.replace("\n", " ")
    assert "2 pictures of 64 x 64 pixels, 4 steps" in said and "16 network samples" in said and "|gradient| LSD" in said


def test_pictures_of_an_earlier_run_go_and_other_files_stay(tmp_path: Path) -> None:
    folder = tmp_path / "out"

    def run(*more: str) -> None:
        assert main(["synthesize", *TOY, "--steps", "1", "--output", str(folder), *more]) == 0

    run("--samples", "3")
    for name in ("002_retouched.png", "007.png", "notes.txt", "../x.png"):
        (folder / name).write_text("of somebody else")
    own = {"002_retouched.png", "007.png", "notes.txt", "synthesis.json"}
    run("--samples", "1")
    assert set(names(folder)) == {"000.png", "samples.png"} | own
    run("--ablation", "--lambda-fm", "0.1")
    variants = {f"{name}_000.png" for name in ("lsd", "lsd_fm", "lsd_kl", "lsd_fm_kl")}
    assert set(names(folder)) == {"ablation.png"} | variants | own
    (folder / "synthesis.json").write_text(json.dumps({"files": ["ablation.png", "../x.png", "notes.txt", 3]}))
    run()
    assert set(names(folder)) == {"000.png", "samples.png"} | variants | own and (tmp_path / "x.png").exists()


def test_a_stopped_ablation_goes_on_to_the_same_pictures(tmp_path: Path, monkeypatch, capsys) -> None:
    def run(name: str, *more: str) -> int:
        arguments = ["synthesize", *TOY, "--lambda-fm", "0.1", "--steps", "2", "--ablation", *more]
        return main([*arguments, "--output", str(tmp_path / name)])

    assert run("whole") == 0
    with monkeypatch.context() as patched:
        patched.setattr(sitting, "steps_progress", stop_after(3, "Synthesizing"))
        assert run("part") == 130
    assert "Stopped after step 3 of 8" in capsys.readouterr().err.replace("\n", " ")
    begun = ["ablation.png", "ablation.png.resume", "lsd_000.png", "lsd_fm_000.png", "synthesis.json"]
    assert names(tmp_path / "part") == begun
    assert run("part", "--resume", "--seed", "3") == 2
    assert "seed 0 (now 3)" in capsys.readouterr().err.replace("\n", " ")
    assert run("part", "--resume", "--precision", "bf16") == 2
    auto = "fp16" if torch.cuda.is_available() else "fp32"
    assert f"--precision '{auto}' (now 'bf16')" in capsys.readouterr().err.replace("\n", " ")
    assert run("part", "--resume") == 0
    assert names(tmp_path / "part") == names(tmp_path / "whole")
    for path in sorted((tmp_path / "whole").glob("*.png")):
        assert np.array_equal(pixels(path), pixels(tmp_path / "part" / path.name))
    whole, part = (json.loads((tmp_path / name / "synthesis.json").read_text()) for name in ("whole", "part"))
    assert whole == part and set(part["losses, last tenth"]) == {"LSD", "LSD + FM", "LSD + KL", "LSD + FM + KL"}


def test_help_says_what_is_done(capsys) -> None:
    """Defaults in the help against those that the settings have."""
    with pytest.raises(SystemExit):
        main(["synthesize", "--help"])
    said = re.sub(r"[^ -~]+", " ", capsys.readouterr().out)  # borders
    said = re.sub(r"\s+", " ", said)
    plain = SynthesisSettings()
    toy = replace(plain, **own)
    assert f"Optimisation steps; default: the paper's {plain.steps}, with the toy prior {toy.steps}" in said
    assert f"AdamW; default: the paper's {plain.lr:g}; with the toy prior it falls to a tenth" in said
    assert plain.lr_end == 1 and toy.lr_end == 0.1 and toy.lr == plain.lr
    assert f"Text guidance; default: {plain.guidance_scale:g}." in said and toy.guidance_scale == plain.guidance_scale
    assert f"default: {plain.t_min:g}, with the toy prior {toy.t_min:g}." in said
    assert f"Highest noise level; default: {plain.t_max:g}." in said and toy.t_max == plain.t_max


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--prompt", " "], "--prompt is empty"),
        (["--samples", "0"], "--samples 0"),
        (["--steps", "0"], "--steps 0"),
        (["--lr", "-1"], "--lr -1"),
        (["--guidance", "nan"], "--guidance nan"),
        (["--lambda-kl", "-1"], "--lambda-kl -1"),
        (["--lambda-lsd", "0"], "--lambda-lsd 0"),
        (["--ablation"], "--ablation"),
        (["--seed", "-1"], "--seed -1"),
        (["--resume"], "there is no"),
        (["--output", "FILE"], "is a file"),
        (["--prior", "no-such-prior"], "no-such-prior"),
    ],
)
def test_what_cannot_work_is_said_in_one_message(tmp_path: Path, capsys, arguments: list[str], said: str) -> None:
    (tmp_path / "file").write_text("")
    arguments = [str(tmp_path / "file") if one == "FILE" else one for one in arguments]
    assert main(["synthesize", *TOY, "--output", str(tmp_path / "out"), *arguments]) == 2
    assert said in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_what_needs_no_model_is_said_before_one_is_loaded(tmp_path: Path, capsys, monkeypatch) -> None:
    run = ["synthesize", *TOY, "--output", str(tmp_path / "out")]
    with monkeypatch.context() as patched:
        patched.setattr(sitting, "steps_progress", stop_after(1, "Synthesizing"))
        assert main(run) == 130
    monkeypatch.delattr(PriorFlags, "load")
    capsys.readouterr()
    for more, said in ((["--ablation"], "--ablation True: each"), (["--resume", "--seed", "3"], "(now 3)")):
        assert main([*run, *more]) == 2
        assert said in capsys.readouterr().err.replace("\n", " ")


def test_what_makes_no_step_leaves_earlier_pictures(tmp_path: Path, capsys, monkeypatch) -> None:
    run = ["synthesize", *TOY, "--output", str(tmp_path)]
    assert main(run) == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with monkeypatch.context() as patched:
        patched.setattr(DiffusionPrior, "predict_noise", lambda self, x_t, t, condition: x_t * torch.nan)
        assert main(run) == 2
    assert "is not finite at step 0" in (said := capsys.readouterr().err.replace("\n", " "))
    assert "Nothing was written" in said
    monkeypatch.setattr(sitting, "asked_together", lambda stopped: lambda: True)
    assert main([*run, "--seed", "1"]) == 130
    assert "Stopped before the first step: nothing was written" in capsys.readouterr().err.replace("\n", " ")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_pictures_that_cannot_be_decoded_are_not_written_as_black_ones(tmp_path: Path, capsys, monkeypatch) -> None:
    run = ["synthesize", *TOY, "--output", str(tmp_path)]
    with monkeypatch.context() as patched:
        patched.setattr(Autoencoder, "decode", lambda self, v: torch.full_like(self.decode_attached(v), torch.nan))
        assert main(run) == 2
    said = capsys.readouterr().err.replace("\n", " ")
    assert "the decoded picture is not finite" in said and "--resume goes on from it" in said
    assert names(tmp_path) == ["samples.png.resume"]
    assert main([*run, "--resume"]) == 0 and names(tmp_path) == ["000.png", "samples.png", "synthesis.json"]
