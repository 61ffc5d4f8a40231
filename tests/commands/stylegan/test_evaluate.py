"""`csd stylegan evaluate`: what is measured, what cannot be, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from csd_nerf.cli import main
from csd_nerf.commands.picture_sets import read_pictures
from csd_nerf.images.stylegan import showing
from csd_nerf.images.stylegan.files import load_generator, save_generator
from csd_nerf.images.stylegan.generator import Generator, GeneratorShape
from csd_nerf.images.stylegan.showing import sample
from csd_nerf.metrics import diversity, fid, load_inception, load_perceptual_distance, text_similarity
from csd_nerf.metrics.levels import unit
from csd_nerf.metrics.openclip import OpenClip
from tests.metrics.tiny_clip import NAME, make_tiny_clip
from tests.metrics.tiny_inception import save_mean_colours


def test_evaluating_measures_what_it_can_and_says_what_it_cannot(
    small: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    (tmp_path / "real").mkdir()
    for i in range(3):
        Image.fromarray(np.full((32, 32, 3), 80 * i, np.uint8)).save(tmp_path / "real" / f"{i}.png")
    network = tmp_path / "network.pt"
    save_mean_colours(network)
    command = ["stylegan", "evaluate", str(small), "--samples", "6", "--pairs-of", "4", "--lpips", "st-lpips"]
    more = [
        "--references",
        str(tmp_path / "real"),
        "--inception",
        str(network),
        "--json",
        str(tmp_path / "a.json"),
        "--device",
        "auto",
    ]
    missing = ["--prompt", "a cube", "--clip-weights", str(network), "--clip-tag", "openai"]
    assert main([*command, *more, *missing, "--save", str(tmp_path / "shown")]) == 0
    found = json.loads((tmp_path / "a.json").read_text())
    assert set(found["scores"]) == {"ST-LPIPS diversity", "FID"} and set(found["missing"]) == {"CLIP score"}
    lines = capsys.readouterr().out.splitlines()
    assert found["scores"]["ST-LPIPS diversity"]["mean"] > 0 and lines[0].endswith("all pairs of 4 pictures)")
    assert len(lines) == 2, "one line for each score, however long its note is"
    assert len(list((tmp_path / "shown").iterdir())) == 6
    assert main(["stylegan", "evaluate", str(small), "--samples", "1"]) == 2


def test_parts_score_as_all_pictures_together_do(small: Path, tmp_path: Path) -> None:
    """Every metric on the 40 pictures at once, CLIP with a small model of open_clip and random weights."""
    weights, truth = make_tiny_clip(tmp_path), tmp_path / "truth"
    truth.mkdir()
    for i in range(19):
        Image.fromarray(np.full((32, 32, 3), 13 * i, np.uint8)).save(truth / f"{i}.png")
    save_mean_colours(tmp_path / "network.pt")
    command = ["stylegan", "evaluate", str(small), "--samples", "40", "--pairs-of", "20", "--lpips", "st-lpips"]
    command += ["--prompt", "a cube", "--clip", NAME, "--clip-weights", str(weights), "--seed", "3"]
    command += ["--references", str(truth), "--inception", str(tmp_path / "network.pt")]
    assert main([*command, "--json", str(tmp_path / "a.json"), "--save", str(tmp_path / "shown")]) == 0
    found = json.loads((tmp_path / "a.json").read_text())
    images = sample(load_generator(small), 40, seed=3)
    encoder = OpenClip(NAME, weights)
    expected = [
        diversity(load_perceptual_distance("st-lpips"), images[:20]),
        text_similarity(encoder, images, "a cube"),
        fid(images, read_pictures(truth, "truth").images, load_inception(tmp_path / "network.pt")),
    ]
    assert found["missing"] == {}
    assert found["scores"] == {score.name: {"mean": score.mean, "note": score.note} for score in expected}
    similarity = encoder.encode_images(images) @ encoder.encode_texts(["a cube"])[0]
    assert expected[1].mean == pytest.approx(float(similarity.mean()), abs=1e-6)
    shown = unit(read_pictures(tmp_path / "shown", "shown").images)
    torch.testing.assert_close(shown, images, rtol=0, atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--save", "taken"], "--save: taken is a file, where a folder would have to be"),
        (["--json", "taken/scores.json"], "--json: taken is a file"),
        (["--json", "."], "--json . is a folder: give a file"),
        (["--device", "nonsense"], "--device nonsense is no device: give auto, cpu, cuda or cuda:N"),
        (["--device", "cuda:99"], "--device cuda:99: torch sees"),
        (["--references", "none"], "--references none does not exist"),
        (["--truncation", "nan"], "--truncation nan: give a number"),
        (["--seed", "-1"], "--seed -1: give 0 or more"),
        (["--clip-tag", "openai"], "--clip-tag has no effect without --prompt"),
        (["--clip", "ViT-L-14"], "--clip has no effect without --prompt: add that, or leave --clip out"),
        (["--clip-weights", "taken"], "--clip-weights has no effect without --prompt"),
        (["--inception", "taken"], "--inception has no effect without --references"),
        (["--inception", "none.pt", "--references", "real"], "--inception none.pt does not exist"),
        (["--inception", "net.pt", "--references", "real"], "--references real is one picture: FID compares two sets"),
        (["--prompt", " "], "--prompt is empty"),
        (["--save", "real"], "--save real holds pictures already, with which these would mix"),
        (
            ["--prompt", "a", "--clip-weights", "taken"],
            "--clip-weights taken: weights of ViT-B-32 differ in activation",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_said_before_pictures_are_made(
    small: Path, tmp_path: Path, monkeypatch, capsys, flags: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(showing, "sampled", None)
    Path("taken").write_text("a file")
    Path("real").mkdir()
    Image.new("RGB", (32, 32)).save("real/0.png")
    save_mean_colours(Path("net.pt"))
    assert main(["stylegan", "evaluate", str(small), "--samples", "4", *flags]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.pt", "real", "small.safetensors", "taken"]


def test_pictures_too_small_for_lpips_are_measured_otherwise(tmp_path: Path, capsys) -> None:
    save_generator(tmp_path / "a.safetensors", Generator(GeneratorShape((4, 4), 5, 1)), "rosinality")
    for i in range(2):
        (tmp_path / "real").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (90 * i, 0, 0)).save(tmp_path / "real" / f"{i}.png")
    command = ["stylegan", "evaluate", str(tmp_path / "a.safetensors"), "--samples", "3", "--lpips", "st-lpips"]
    command += ["--references", str(tmp_path / "real"), "--inception", str(save_mean_colours(tmp_path / "net.pt"))]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "FID: " in said.out
    assert "LPIPS diversity was not measured: it needs pictures of 32" in " ".join(said.err.split())
