"""`csd layers` with the toy prior on small pictures: what it writes, how it is stopped, what it refuses."""

import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from csd_nerf.cli import main
from csd_nerf.commands import sitting
from csd_nerf.commands.edit_flags import PriorFlags
from csd_nerf.images.layers import LayerSettings, toy_settings
from csd_nerf.images.picture_files import read_picture
from csd_nerf.priors.autoencoder import Autoencoder
from tests.commands.pictures import picture, pixels
from tests.commands.stopping import stop_after

TOY = ["--prior", "toy", "--steps", "3", "--prompt", "a red mushroom on a meadow", "--lambda-fm", "0"]
FILES = ["alpha.png", "composite.png", "layer.png"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def white_left(path: Path, size: tuple[int, int] = (90, 66)) -> Path:
    mask = np.zeros(size[::-1], np.uint8)
    mask[:, : size[0] // 2] = 255
    Image.fromarray(mask).save(path)
    return path


def test_it_writes_three_pictures_of_the_sources_size(tmp_path: Path, capsys) -> None:
    source, output = picture(tmp_path / "in.png"), tmp_path / "new" / "out"
    mask = white_left(tmp_path / "mask.png")
    assert main(["layers", str(source), str(output), *TOY, "--mask", str(mask)]) == 0
    assert names(output) == FILES
    assert pixels(output / "composite.png").shape == (66, 90, 3) and pixels(output / "layer.png").shape == (66, 90, 4)
    layer = read_picture(output / "layer.png")
    assert layer.alpha is not None
    over = layer.alpha * layer.image + (1 - layer.alpha) * read_picture(source).image
    assert (over - read_picture(output / "composite.png").image).abs().max() < 1.6 / 255
    said = capsys.readouterr().err.replace("\n", " ")
    assert "90 x 66 pixels, worked on at" in said and "12 network samples" in said and "the layer covers" in said


def test_sixteen_bits_stay_sixteen_bits(tmp_path: Path) -> None:
    y, x = np.mgrid[0:70, 0:70]
    deep = np.dstack([x * 900, y * 900, x * 0 + 30001]).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "in.png"), deep)
    assert main(["layers", str(tmp_path / "in.png"), str(tmp_path / "out"), *TOY]) == 0
    for name, channels in (("composite", 3), ("layer", 4)):
        stored = cv2.imread(str(tmp_path / "out" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        assert stored.dtype == np.uint16 and stored.shape == (70, 70, channels)
    assert len(np.unique(cv2.imread(str(tmp_path / "out" / "alpha.png"), cv2.IMREAD_UNCHANGED) % 257)) > 20


def test_a_stopped_edit_goes_on_to_the_same_pictures(tmp_path: Path, monkeypatch, capsys) -> None:
    source = picture(tmp_path / "in.png")

    def run(name: str, *more: str) -> int:
        return main(["layers", str(source), str(tmp_path / name), *TOY, "--lambda-fm", "0.1", *more])

    assert run("whole") == 0
    with monkeypatch.context() as patched:
        patched.setattr(sitting, "steps_progress", stop_after(2))
        assert run("part") == 130
    assert "Stopped after step 2 of 3" in capsys.readouterr().err.replace("\n", " ")
    assert names(tmp_path / "part") == sorted([*FILES, "composite.png.resume"])
    assert run("part", "--resume", "--guidance", "5") == 2
    assert "now 5.0" in capsys.readouterr().err.replace("\n", " ")
    assert run("part", "--resume") == 0 and names(tmp_path / "part") == FILES
    for name in FILES:
        assert np.array_equal(pixels(tmp_path / "part" / name), pixels(tmp_path / "whole" / name))


def test_instructions_and_captions_of_before_and_after(tmp_path: Path) -> None:
    source = picture(tmp_path / "in.png")
    for editor, more in (("csd-edit", ["--image-guidance", "1.2"]), ("dds", ["--source-prompt", "a blue mushroom"])):
        output = tmp_path / editor
        assert main(["layers", str(source), str(output), *TOY, "--editor", editor, *more]) == 0
        assert names(output) == FILES


def test_help_says_what_is_done(capsys) -> None:
    """Defaults in the help against those that the settings have."""
    with pytest.raises(SystemExit):
        main(["layers", "--help"])
    said = re.sub(r"[^ -~]+", " ", capsys.readouterr().out)  # borders
    said = re.sub(r"\s+", " ", said)
    plain = LayerSettings()
    toy, own = (replace(plain, **toy_settings(editor)) for editor in ("lsd", "csd-edit"))
    assert own == replace(plain, **toy_settings("dds"), editor=plain.editor)
    assert f"steps; default: {plain.steps} (the paper states none), with the toy prior {toy.steps}" in said
    falls = "with the toy prior it falls to a tenth"
    assert f"Adam for the layer's generator; default: {plain.lr:g}, Text2LIVE's first; {falls}" in said
    assert "AdamW" not in said and plain.lr_end == 1 and toy.lr_end == own.lr_end == 0.1
    assert f"Adam for the residual latent; 0 leaves it out; default: {plain.latent_lr:g}" in said
    assert toy.lr == own.lr == plain.lr and toy.latent_lr == plain.latent_lr
    assert toy.guidance_scale == plain.guidance_scale and toy.t_max == plain.t_max and toy.t_min == own.t_min
    others = "with the toy prior and csd-edit, no-svgd or dds"
    assert f"Text guidance; default: {plain.guidance_scale:g}, {others} {own.guidance_scale:g}" in said
    assert f"Highest noise level; default: {plain.t_max:g}, {others} {own.t_max:g}" in said
    assert f"schedule; default: {plain.t_min:g}, with the toy prior {toy.t_min:g}" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--prompt", " "], "--prompt is empty"),
        (["--mask", "SMALL"], "has 50 x 40 pixels, but the picture has 90 x 66"),
        (["--mask", "BLACK"], "black.png is empty"),
        (["--mask", "missing.png"], "missing.png"),
        (["--mask", "SMALL", "--mask-object", "bear"], "--mask and --mask-object"),
        (["--mask-object", "unicorn"], "--mask-object unicorn is none that Mask R-CNN knows"),
        (["--mask-object", "bear", "--mask-weights", "missing.pth"], "--mask-weights missing.pth does not exist"),
        (["--mask-weights", "missing.pth"], "--mask-weights is for --mask-object"),
        (["--lambda-mask", "3"], "--lambda-mask 3.0 has no mask"),
        (["--mask", "SMALL", "--lambda-sparsity", "3"], "--lambda-sparsity 3.0 is for layers without a mask"),
        (["--lambda-sparsity", "-1"], "--lambda-sparsity -1"),
        (["--image-guidance", "2"], "--image-guidance has no meaning"),
        (["--editor", "csd", "--guide", "latent"], "--guide latent leaves one particle, so that --editor csd"),
        (["--editor", "dds"], "--source-prompt"),
        (["--source-prompt", "a cube"], "--source-prompt"),
        (["--steps", "0"], "--steps 0"),
        (["--latent-lr", "-1"], "--latent-lr -1"),
        (["--resume"], "there is no"),
    ],
)
def test_what_cannot_work_is_said_in_one_message(tmp_path: Path, capsys, arguments: list[str], said: str) -> None:
    source = picture(tmp_path / "in.png")
    Image.new("L", (50, 40), 255).save(tmp_path / "small.png")
    Image.new("L", (90, 66), 0).save(tmp_path / "black.png")
    files = {"SMALL": tmp_path / "small.png", "BLACK": tmp_path / "black.png"}
    arguments = [str(files.get(one, one)) for one in arguments]
    assert main(["layers", str(source), str(tmp_path / "out"), *TOY, *arguments]) == 2
    assert said in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("source", "output", "said"),
    [
        ("no.png", "out", "no.png"),
        ("in.png", "in.png", "is a file"),
        ("tiny.png", "out", "40 x 40 pixels, less than the 64 x 64"),
        ("folder/composite.png", "folder", "holds IN as composite.png"),
        ("folder/alpha.png", "folder", "holds IN as alpha.png"),
        ("in.png", "taken", "layer.png is a folder"),
    ],
)
def test_files_that_cannot_be_read_or_written(tmp_path: Path, capsys, source: str, output: str, said: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "taken" / "layer.png").mkdir(parents=True)
    for name, size in (("in.png", (90, 66)), ("tiny.png", (40, 40)), ("folder/composite.png", (90, 66))):
        picture(tmp_path / name, size)
    picture(tmp_path / "folder" / "alpha.png")
    assert main(["layers", str(tmp_path / source), str(tmp_path / output), *TOY]) == 2
    assert said in capsys.readouterr().err.replace("\n", " ")


def test_a_mask_among_the_results_is_not_overwritten(tmp_path: Path, capsys) -> None:
    """The opacity of an earlier run, retouched, is a natural mask; written over, it could not be resumed with."""
    source = picture(tmp_path / "in.png")
    (tmp_path / "out").mkdir()
    mask = white_left(tmp_path / "out" / "alpha.png")
    assert main(["layers", str(source), str(tmp_path / "out"), *TOY, "--mask", str(mask)]) == 2
    assert "holds --mask as alpha.png" in capsys.readouterr().err.replace("\n", " ")
    assert names(tmp_path / "out") == ["alpha.png"]


def test_what_needs_no_model_is_said_before_one_is_loaded(tmp_path: Path, capsys, monkeypatch) -> None:
    source, output = picture(tmp_path / "in.png"), tmp_path / "out"
    Image.new("L", (90, 66), 0).save(tmp_path / "black.png")
    run = ["layers", str(source), str(output), *TOY]
    with monkeypatch.context() as patched:
        patched.setattr(sitting, "steps_progress", stop_after(1))
        assert main(run) == 130
    monkeypatch.delattr(PriorFlags, "load")
    capsys.readouterr()
    mask = white_left(tmp_path / "mask.png")
    for more, said in (
        (["--mask", str(tmp_path / "black.png")], f"--mask {tmp_path / 'black.png'} is empty"),
        (["--resume", "--guidance", "5"], "now 5.0"),
        (["--resume", "--mask", str(mask)], "--mask None (now"),
    ):
        assert main([*run, *more]) == 2
        assert said in capsys.readouterr().err.replace("\n", " ")


def test_what_makes_no_step_leaves_an_earlier_result(tmp_path: Path, capsys, monkeypatch) -> None:
    source, output = picture(tmp_path / "in.png"), tmp_path / "out"
    assert main(["layers", str(source), str(output), *TOY]) == 0
    before = {path: path.read_bytes() for path in output.iterdir()}
    assert main(["layers", str(source), str(output), *TOY, "--guidance", "1e38"]) == 2
    assert "is not finite at step 0" in (said := capsys.readouterr().err.replace("\n", " "))
    assert "Nothing was written" in said
    monkeypatch.setattr(sitting, "asked_together", lambda stopped: lambda: True)
    assert main(["layers", str(source), str(output), *TOY, "--seed", "1"]) == 130
    assert "Stopped before the first step: nothing was written" in capsys.readouterr().err.replace("\n", " ")
    assert {path: path.read_bytes() for path in output.iterdir()} == before


def test_a_result_that_cannot_be_decoded_is_kept_as_it_is(tmp_path: Path, capsys, monkeypatch) -> None:
    source, output = picture(tmp_path / "in.png"), tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(Autoencoder, "decode", lambda self, v: torch.full_like(self.decode_attached(v), torch.nan))
        assert main(["layers", str(source), str(output), *TOY]) == 2
    said = capsys.readouterr().err.replace("\n", " ")
    assert "the decoded layer is not finite" in said and "--resume goes on from it" in said
    assert names(output) == ["composite.png.resume"]
    assert main(["layers", str(source), str(output), *TOY, "--resume"]) == 0 and names(output) == FILES
