"""`csd stylegan` on small generators with the toy prior: what it writes, how it is stopped, what it refuses."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from csd_nerf.cli import main
from csd_nerf.commands import sitting
from csd_nerf.images.stylegan.files import load_generator, save_generator
from csd_nerf.images.stylegan.generator import Generator, GeneratorShape
from csd_nerf.images.stylegan.layouts import write_generator
from tests.commands.test_panorama import stop_after

ADAPT = ["--prior", "toy", "--steps", "4", "--samples", "2", "--prompt", "a blue mushroom"]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A random generator of 32 x 32 pixels."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = Generator(GeneratorShape((8, 6, 5, 4), style=6, mapping_layers=2))
    generator.measure_mean_w(torch.Generator().manual_seed(0))
    save_generator(tmp_path / "small.safetensors", generator, "nvidia")
    return tmp_path / "small.safetensors"


def weights(path: Path) -> dict[str, torch.Tensor]:
    return write_generator(load_generator(path), "rosinality")


def test_adapting_writes_generator_grid_and_walk(small: Path, tmp_path: Path, capsys) -> None:
    output = tmp_path / "new" / "blue.safetensors"
    assert main(["stylegan", "adapt", str(small), str(output), *ADAPT]) == 0
    assert sorted(path.name for path in output.parent.iterdir()) == ["blue.mp4", "blue.png", "blue.safetensors"]
    before, after = weights(small), weights(output)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all(name.startswith("convs.") and not name.endswith("bias") for name in moved)
    said = capsys.readouterr().err.replace("\n", " ")
    assert "learning rate 0.002 x 4 / 5 = 0.0016" in said and "|grad FM| / |grad LSD|" in said
    assert "16 network samples" in said


def test_a_stopped_adaptation_goes_on_to_the_same_generator(small: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    def run(name: str, *more: str) -> int:
        return main(["stylegan", "adapt", str(small), str(tmp_path / name), *ADAPT, "--lambda-fm", "0", *more])

    assert run("whole.safetensors") == 0
    with monkeypatch.context() as patched:
        patched.setattr(sitting, "steps_progress", _stop_any(2))
        assert run("part.safetensors") == 130
    assert "Stopped after step 2 of 4" in capsys.readouterr().err.replace("\n", " ")
    assert run("part.safetensors", "--resume", "--guidance", "3") == 2
    assert "--guidance 7.5 (now 3.0)" in capsys.readouterr().err.replace("\n", " ")
    assert run("part.safetensors", "--resume") == 0
    whole, part = weights(tmp_path / "whole.safetensors"), weights(tmp_path / "part.safetensors")
    assert all(torch.equal(whole[name], part[name]) for name in whole)
    assert not (tmp_path / "part.safetensors.resume").exists()


def _stop_any(step: int):
    """`stop_after`, whatever is being done."""
    made = stop_after(step)
    return lambda console, label, first=0: made(console, "Editing", first)


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


def test_converting_changes_the_names_and_not_the_pictures(small: Path, tmp_path: Path, capsys) -> None:
    output = tmp_path / "b.safetensors"
    assert main(["stylegan", "convert", str(small), str(output), "--layout", "rosinality"]) == 0
    z = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(load_generator(output)(z), load_generator(small)(z))
    assert "32 x 32 pixels, 2 mapping layers, rosinality layout" in capsys.readouterr().err.replace("\n", " ")
    torch.save({"g_ema": {"what": torch.ones(1)}}, tmp_path / "c.pt")
    assert main(["stylegan", "convert", str(tmp_path / "c.pt"), str(output)]) == 2
    assert "It has what" in capsys.readouterr().err.replace("\n", " ")


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
        patched.setattr(sitting, "steps_progress", _stop_any(2))
        assert run("part.safetensors", 4) == 130
    assert (tmp_path / "part.pictures.safetensors").is_file() and (tmp_path / "part.png").is_file()
    assert run("part.safetensors", 4, "--resume", "--colours", "blue") == 2
    assert "colours 'red' (now 'blue')" in capsys.readouterr().err.replace("\n", " ")
    assert run("part.safetensors", 4, "--resume") == 0
    whole, part = weights(tmp_path / "whole.safetensors"), weights(tmp_path / "part.safetensors")
    assert all(torch.equal(whole[name], part[name]) for name in whole)
    assert run("part.safetensors", 6, "--resume") == 0
    assert not torch.equal(weights(tmp_path / "part.safetensors")["input.input"], part["input.input"])
    assert run("bad.safetensors", 0) == 2 and "--steps 0" in capsys.readouterr().err


def test_evaluating_measures_what_it_can_and_says_what_it_cannot(small: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "real").mkdir()
    for i in range(3):
        Image.fromarray(np.full((32, 32, 3), 80 * i, np.uint8)).save(tmp_path / "real" / f"{i}.png")
    network = tmp_path / "network.pt"
    torch.jit.script(_Means()).save(str(network))
    command = ["stylegan", "evaluate", str(small), "--samples", "6", "--pairs-of", "4", "--lpips", "st-lpips"]
    more = ["--references", str(tmp_path / "real"), "--inception", str(network), "--json", str(tmp_path / "a.json")]
    missing = ["--prompt", "a cube", "--clip-weights", str(network)]
    assert main([*command, *more, *missing, "--save", str(tmp_path / "shown")]) == 0
    found = json.loads((tmp_path / "a.json").read_text())
    assert set(found["scores"]) == {"ST-LPIPS diversity", "FID"} and set(found["missing"]) == {"CLIP score"}
    assert found["scores"]["ST-LPIPS diversity"]["mean"] > 0 and "all pairs of 4" in capsys.readouterr().out
    assert len(list((tmp_path / "shown").iterdir())) == 6
    assert main(["stylegan", "evaluate", str(small), "--samples", "1"]) == 2


class _Means(torch.nn.Module):
    """Mean colours in the place of Inception's features."""

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures.float().mean(dim=[2, 3])
