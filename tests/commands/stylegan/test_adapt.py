"""`csd stylegan adapt` on small generators with the toy prior: what it writes, how it is stopped, what it refuses."""

import pickle
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from csd_nerf import priors
from csd_nerf.cli import main
from csd_nerf.commands import sitting
from csd_nerf.images.checkpoint import Checkpoint, checkpoint_path, save_checkpoint
from tests.commands.stopping import stop_after
from tests.commands.stylegan.generators import ADAPT, weights


def test_adapting_writes_generator_grid_and_walk(small: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    output, bars = tmp_path / "new" / "blue.safetensors", {"Adapting": [], "Walking": []}

    @contextmanager
    def bar(console: object, label: str, first: int = 0):
        yield lambda done, total: bars[label].append((done, total))

    monkeypatch.setattr(sitting, "steps_progress", bar)
    assert main(["stylegan", "adapt", str(small), str(output), *ADAPT]) == 0
    assert sorted(path.name for path in output.parent.iterdir()) == ["blue.mp4", "blue.png", "blue.safetensors"]
    before, after = weights(small), weights(output)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all(name.startswith("convs.") and not name.endswith("bias") for name in moved)
    said = capsys.readouterr().err.replace("\n", " ")
    assert "learning rate 0.002 x 4 / 5 = 0.0016" in said and "|grad FM| / |grad LSD|" in said
    assert "16 network samples" in said
    assert bars["Adapting"][-1] == (4, 4)
    assert bars["Walking"] == [(done, 288) for done in range(16, 289, 16)], "after each part that was made at once"


def test_a_stopped_adaptation_goes_on_to_the_same_generator(small: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    def run(name: str, *more: str) -> int:
        return main(["stylegan", "adapt", str(small), str(tmp_path / name), *ADAPT, "--lambda-fm", "0", *more])

    assert run("whole.safetensors") == 0
    with monkeypatch.context() as patched:
        patched.setattr(sitting, "steps_progress", stop_after(2, "Adapting"))
        assert run("part.safetensors") == 130
    assert "Stopped after step 2 of 4" in capsys.readouterr().err.replace("\n", " ")
    assert run("part.safetensors", "--resume", "--guidance", "3") == 2
    assert "--guidance 7.5 (now 3.0)" in capsys.readouterr().err.replace("\n", " ")
    assert run("part.safetensors", "--resume", "--train", "all", "--lambda-fm", "1", "--precision", "bf16") == 2
    said = capsys.readouterr().err.replace("\n", " ")
    assert "--train 'fusion' (now 'all')" in said and "--lambda-fm 0.0 (now 1.0)" in said
    assert "--precision 'auto' (now 'bf16')" in said
    assert run("part.safetensors", "--resume") == 0
    whole, part = weights(tmp_path / "whole.safetensors"), weights(tmp_path / "part.safetensors")
    assert all(torch.equal(whole[name], part[name]) for name in whole)
    assert not (tmp_path / "part.safetensors.resume").exists()


def test_a_walk_that_is_interrupted_is_made_later(small: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    output = tmp_path / "new" / "a.safetensors"
    grid, video, kept = output.with_suffix(".png"), output.with_suffix(".mp4"), checkpoint_path(output)
    command = ["stylegan", "adapt", str(small), str(output), *ADAPT]
    with monkeypatch.context() as patched:
        patched.setattr(sitting, "steps_progress", stop_after(16, "Walking"))
        assert main(command) == 130
    said = capsys.readouterr().err
    assert f"{output} and {grid} are written, but {video} was not written; the same command with --resume" in said
    assert not video.exists() and kept.exists()
    before = weights(output)
    assert main([*command, "--resume"]) == 0
    assert video.exists() and not kept.exists()
    assert all(torch.equal(value, before[name]) for name, value in weights(output).items())


def test_the_walk_can_be_left_out(small: Path, tmp_path: Path, capsys) -> None:
    output = tmp_path / "new" / "a.safetensors"
    assert main(["stylegan", "adapt", str(small), str(output), *ADAPT, "--steps", "1", "--no-walk"]) == 0
    assert sorted(path.name for path in output.parent.iterdir()) == ["a.png", "a.safetensors"]
    said = " ".join(capsys.readouterr().err.split())
    assert f"{output}, {output.with_suffix('.png')} (" in said and ".mp4" not in said


def test_an_adaptation_that_fails_at_once_leaves_out_as_it_is(small: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "a.safetensors").write_text("an earlier one")
    assert main(["stylegan", "adapt", str(small), str(tmp_path / "a.safetensors"), *ADAPT, "--guidance", "1e39"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "is not finite at step 0" in said and "what was reached" not in said
    assert (tmp_path / "a.safetensors").read_text() == "an earlier one" and len(list(tmp_path.iterdir())) == 2


def test_what_cannot_work_is_said_at_once(small: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "ffhq.pkl").write_bytes(pickle.dumps({"G_ema": 1}))
    cases = {
        (str(small), "out.pt", "x"): "name it out.safetensors",
        (str(small), "out.safetensors", " "): "--prompt is empty",
        (str(tmp_path / "ffhq.pkl"), "out.safetensors", "x"): "csd stylegan convert",
        (str(tmp_path / "none.pt"), "out.safetensors", "x"): "there is no file",
    }
    for (source, output, prompt), said in cases.items():
        output = str(tmp_path / output)
        assert main(["stylegan", "adapt", source, output, "--prior", "toy", "--prompt", prompt]) == 2
        assert said in capsys.readouterr().err.replace("\n", " "), said
    assert main(["stylegan", "adapt", str(small), str(tmp_path / "a.safetensors"), *ADAPT, "--lr", "0"]) == 2
    assert "--lr 0.0: give a positive" in capsys.readouterr().err.replace("\n", " ")
    assert main(["stylegan", "adapt", str(small), str(tmp_path / "a.safetensors"), *ADAPT, "--resume"]) == 2
    assert "--resume: there is no" in capsys.readouterr().err.replace("\n", " ")


def test_everything_else_is_checked_before_the_prior_is_loaded(
    small: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    def run(source: Path, output: Path, *more: str) -> str:
        assert main(["stylegan", "adapt", str(source), str(output), *ADAPT, *more]) == 2
        return " ".join(capsys.readouterr().err.split())

    output = tmp_path / "a.safetensors"
    state = Checkpoint(1, torch.empty(0), torch.Generator().get_state())
    save_checkpoint(checkpoint_path(output), state, {"guidance_scale": 7.5})
    monkeypatch.setattr(priors, "load_prior", None)
    torch.save({"g_ema": {"what": torch.ones(1)}}, tmp_path / "unknown.pt")
    assert "there is no file" in run(tmp_path / "none.pt", output)
    assert "It has what" in run(tmp_path / "unknown.pt", output)
    assert "--guidance 7.5 (now 3.0)" in run(small, output, "--resume", "--guidance", "3")
    (tmp_path / "folder.safetensors").mkdir()
    assert "folder.safetensors is a folder: give the name of a file" in run(small, tmp_path / "folder.safetensors")
    assert "is not a folder: give another place" in run(small, small / "a.safetensors")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--lambda-fm", "-1"], "--lambda-fm -1.0: give a finite weight, 0 or more"),
        (["--lambda-kl", "nan"], "--lambda-kl nan: give a finite weight"),
        (["--lambda-lsd", "inf"], "--lambda-lsd inf: give a finite weight"),
        (["--lambda-lsd", "0", "--lambda-fm", "0"], "--lambda-lsd 0.0, --lambda-fm 0.0: give one of them a weight"),
        (["--clamp", "-1"], "--clamp -1.0: give a positive bound"),
        (["--clamp", "nan"], "--clamp nan: give"),
        (["--directional", "-0.5"], "--directional -0.5: give 0 or more"),
        (["--percentile", "0"], "--percentile 0.0: give one above 0, at most 100"),
        (["--percentile", "101"], "--percentile 101.0: give"),
        (["--steps", "0"], "--steps 0: give at least 1"),
        (["--samples", "0"], "--samples 0: give at least 1"),
        (["--guidance", "-1"], "--guidance -1.0: give 0 or more"),
        (["--t-min", "0.9"], "--t-min 0.9, --t-max 0.8: give two"),
        (["--seed", "-1"], "--seed -1: give 0 or more"),
        (["--seed", str(2**63)], f"--seed {2**63}: give 0 or more, and less than 2^63"),
        (["--truncation", "nan"], "--truncation nan: give a number"),
    ],
)
def test_values_that_cannot_work_are_said_as_flags(small: Path, tmp_path: Path, capsys, flags, said: str) -> None:
    assert main(["stylegan", "adapt", str(small), str(tmp_path / "a.safetensors"), *ADAPT, *flags]) == 2
    text = " ".join(capsys.readouterr().err.split())
    assert said in text and "=" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["small.safetensors"]


@pytest.mark.parametrize("named", ["small.safetensors", "link.safetensors", "sub/../small.safetensors"])
def test_a_source_is_not_written_over(small: Path, tmp_path: Path, capsys, named: str) -> None:
    (tmp_path / "link.safetensors").symlink_to(small)
    (tmp_path / "sub").mkdir()
    source, output, before = str(small), str(tmp_path / named), small.read_bytes()
    for command in (["adapt", source, output, *ADAPT], ["convert", source, output, "--half"]):
        assert main(["stylegan", *command]) == 2
        said = capsys.readouterr().err.replace("\n", " ")
        assert f"IN {source} and OUT {output} are one file" in said
    assert small.read_bytes() == before and not small.with_suffix(".png").exists()
