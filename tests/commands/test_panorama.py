"""`csd panorama` with the toy prior on small pictures: what it writes, how it is stopped, what it refuses."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from csd_nerf.cli import main
from csd_nerf.images.picture_files import read_picture, write_picture
from tests.commands.pictures import TOY, picture, pixels


def test_it_keeps_size_and_transparency_and_shows_how_it_came_about(tmp_path: Path, capsys) -> None:
    source, output = picture(tmp_path / "in.png", mode="RGBA"), tmp_path / "new" / "out.png"
    assert main(["panorama", str(source), str(output), "--prompt", "make it night", *TOY, "--save-every", "3"]) == 0
    edited = pixels(output)
    assert edited.shape == (66, 90, 4) and np.array_equal(edited[..., 3], pixels(source)[..., 3])
    assert np.abs(edited[..., :3].astype(int) - pixels(source)[..., :3]).mean() > 5
    assert sorted(path.name for path in output.parent.iterdir()) == ["out.mp4", "out.png"]
    said = capsys.readouterr().err.replace("\n", " ")
    assert "90 x 66 pixels" in said and "patches of 64 x 64, 6 steps" in said and "60 network samples" in said


def test_regions_and_masks_edit_only_their_part(tmp_path: Path) -> None:
    source = picture(tmp_path / "in.png", (192, 64))
    mask = np.zeros((64, 192), np.uint8)
    mask[:, :40] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")

    def run(name: str, *more: str) -> np.ndarray:
        assert main(["panorama", str(source), str(tmp_path / name), *TOY, *more]) == 0
        return pixels(tmp_path / name).astype(int)

    box = run("box.png", "--region", "0,0,40,64", "make it night")
    masked = run("mask.png.png", "--mask", str(tmp_path / "mask.png"), "make it night")
    assert np.array_equal(box, masked)
    change = np.abs(box - pixels(source)).mean(axis=(0, 2))
    # Patches of 64 pixels that see the box reach to pixel 96 + 8; beyond, only the codec has passed.
    assert change[:40].mean() > 3 * change[120:].mean()


def test_where_the_instruction_has_no_guidance_of_its_own_a_patch_takes_four_samples(tmp_path: Path, capsys) -> None:
    source, levels = picture(tmp_path / "in.png"), ["--t-min", "0.3", "--t-max", "0.5", "--text-t-min", "0.6"]
    command = ["panorama", str(source), str(tmp_path / "out.png"), "--prompt", "make it night", *TOY, *levels]
    assert main(command) == 0
    assert "48 network samples" in capsys.readouterr().err.replace("\n", " ")


def test_a_preview_shows_some_patches_and_ends(tmp_path: Path, capsys) -> None:
    source = picture(tmp_path / "in.png")
    for asked, shown in ((3, 3), (20, 6)):
        flags = ["--prompt", "make it night", *TOY, "--preview", str(asked)]
        assert main(["panorama", str(source), str(tmp_path / "out.png"), *flags]) == 0
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in.png", "out_preview.png"]
        height, width = pixels(tmp_path / "out_preview.png").shape[:2]
        assert shown * 192 < width < (shown + 1) * 192 and 2 * 192 < height < 3 * 192
        assert f"{shown} patches; leave" in capsys.readouterr().err.replace("\n", " ")


def test_a_picture_of_any_width_closes_its_circle(tmp_path: Path) -> None:
    source, angle = tmp_path / "in.png", np.arange(130) / 130 * 2 * np.pi  # 130 is no multiple of 4 pixels
    waves = [np.sin(angle * k + k) * np.cos(np.linspace(0, 3, 64))[:, None] for k in (2, 3, 5)]
    Image.fromarray(((0.5 + 0.3 * np.stack(waves, -1)) * 255).astype(np.uint8)).save(source)
    for flags, closed in (([], False), (["--wrap"], True)):
        arguments = [str(source), str(tmp_path / "out.png"), "--prompt", "turn it into an oil painting", *TOY, *flags]
        assert main(["panorama", *arguments]) == 0
        edited = pixels(tmp_path / "out.png").astype(float)
        steps = np.abs(edited - np.roll(edited, 1, axis=1)).mean(axis=(0, 2))
        assert edited.shape == (64, 130, 3) and (steps[0] < np.quantile(steps[1:], 0.9)) == closed


def test_a_preview_replaces_no_source(tmp_path: Path, capsys) -> None:
    source = picture(tmp_path / "a_preview.png")
    before = source.read_bytes()
    assert main(["panorama", str(source), str(tmp_path / "a.png"), "--prompt", "x", *TOY, "--preview", "2"]) == 2
    assert "a_preview.png, which is IN" in capsys.readouterr().err.replace("\n", "") and source.read_bytes() == before


def test_sixteen_bits_stay_sixteen_in_a_png(tmp_path: Path, capsys) -> None:
    ramp = np.arange(66 * 90, dtype=np.uint16).reshape(66, 90) * 11
    write_picture(tmp_path / "in.png", torch.from_numpy(np.stack([ramp] * 3) / 65535.0), bits=16)
    flags = ["--prompt", "x", *TOY, "--steps", "1"]
    assert main(["panorama", str(tmp_path / "in.png"), str(tmp_path / "out.png"), *flags]) == 0
    assert read_picture(tmp_path / "out.png").bits == 16 and "8 bits" not in capsys.readouterr().err
    assert main(["panorama", str(tmp_path / "in.png"), str(tmp_path / "out.tif"), *flags]) == 0
    assert "has 8 bits a channel; as .png" in " ".join(capsys.readouterr().err.split())


def test_patches_of_a_call_do_not_change_what_a_baseline_samples(tmp_path: Path) -> None:
    source = picture(tmp_path / "in.png")
    flags = ["--prompt", "make it night", "--prior", "toy", "--precision", "fp32", "--steps", "2"]
    found = []
    for batch in ("1", "5"):
        output = tmp_path / f"{batch}.png"
        more = ["--editor", "multidiffusion", "--batch-size", batch]
        assert main(["panorama", str(source), str(output), *flags, *more]) == 0
        found.append(pixels(output).astype(int))
    assert np.abs(found[0] - found[1]).max() <= 1


def test_an_alpha_channel_that_is_opaque_is_no_obstacle_to_a_jpeg(tmp_path: Path, capsys) -> None:
    opaque = np.dstack([pixels(picture(tmp_path / "rgb.png")), np.full((66, 90), 255, np.uint8)])
    Image.fromarray(opaque).save(tmp_path / "in.png")
    flags = ["--prompt", "x", "--prior", "toy", "--steps", "1", "--editor", "multidiffusion"]
    assert main(["panorama", str(tmp_path / "in.png"), str(tmp_path / "out.jpg"), *flags]) == 0
    opaque[0, 0, 3] = 254
    Image.fromarray(opaque).save(tmp_path / "in.png")
    assert main(["panorama", str(tmp_path / "in.png"), str(tmp_path / "new.jpg"), *flags]) == 2
    assert "new.jpg" in capsys.readouterr().err.replace("\n", "")


@pytest.mark.parametrize("editor", ["ip2p-patches", "multidiffusion"])
def test_the_baselines_write_pictures_too(tmp_path: Path, editor: str) -> None:
    source = picture(tmp_path / "in.png")
    arguments = ["panorama", str(source), str(tmp_path / "out.jpg"), "--prompt", "make it night", "--editor", editor]
    assert main([*arguments, "--prior", "toy", "--steps", "3"]) == 0
    assert pixels(tmp_path / "out.jpg").shape == (66, 90, 3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--prompt is empty"),
        (["--prompt", "x", "--keep-detail", "-1"], "--keep-detail -1.0: give a difference of colours"),
        (["--prompt", "x", "--text-t-min", "0.6", "--text-t-max", "0.4"], "--text-t-min 0.6 is above --text-t-max 0.4"),
        (["--prompt", "x", "--save-every", "0"], "--save-every 0"),
        (["--prompt", "x", "--preview", "0"], "--preview 0"),
        (["--region", "1,2,3", "x"], "--region '1,2,3' is no box"),
        (["--region", "200,0,300,50", "x"], "lies outside the picture of 90 x 66"),
        (["--mask", "MASK", "x"], "90 x 66"),
        (["--mask", "BLACK", "x"], "black.png' of 'x' is empty"),
        (["--mask", "FAINT", "x"], "faint.png' of 'x' covers less than a millionth"),
        (["--prompt", "x", "--editor", "multidiffusion", "--noise", "canvas"], "--noise has no meaning"),
        (["--prompt", "x", "--editor", "ip2p-patches", "--resume"], "leave the flag out"),
        (["--prompt", "x", "--stride", "17"], "--stride 17"),
        (["--prompt", "x", "--editor", "ip2p-patches", "--stride", "9"], "--stride 9 has no meaning for --editor"),
        (["--prompt", "x", "--editor", "ip2p-patches", "--wrap"], "--wrap True has no meaning for --editor"),
        (["--prompt", "x", "--preset", "released", "--preview", "2"], "--preview 2: --preset released: "),
        (["--prompt", "x", "--seed", "-1"], "--seed -1"),
        (["--prompt", "x", "--steps", "0"], "--steps 0"),
        (["--prompt", "x", "--guidance", "nan"], "--guidance nan"),
        (["--prompt", "x", "--seed", str(2**63)], f"--seed {2**63}: give 0 or more, and less than 2^63"),
        (["--prompt", "x", "--t-min", "0.9"], "--t-min 0.9 is above --t-max 0.5, the highest noise level"),
        (["--prompt", "x", "--editor", "multidiffusion", "--t-min", "0.1"], "--t-min 0.1 has no meaning for --editor"),
        (["--prompt", "x", "--editor", "multidiffusion", "--lr", "1"], "--lr 1.0 has no meaning for --editor multidif"),
        (["--prompt", "x", "--editor", "multidiffusion", "--batch-size", "0"], "--batch-size 0"),
        (["--prompt", "x", "--source-bank-gigabytes", "2"], "--source-bank-gigabytes is for --source-bank"),
        (["--prompt", "x", "--preview", "2", "--save-every", "2"], "--save-every has no meaning with --preview 2"),
        (["--prompt", "x", "--lr", "-1"], "--lr -1"),
        (["--prompt", "x", "--editor", "dds"], "--source-prompt"),
    ],
)
def test_what_cannot_work_is_said_in_one_message(tmp_path: Path, capsys, arguments: list[str], said: str) -> None:
    source = picture(tmp_path / "in.png")
    Image.new("L", (50, 40), 255).save(tmp_path / "mask.png")
    Image.new("L", (90, 66), 0).save(tmp_path / "black.png")
    faint = np.zeros((66, 90), np.uint8)
    faint[5, 5] = 1
    Image.fromarray(faint).save(tmp_path / "faint.png")
    given = arguments
    arguments = [
        str(tmp_path / f"{one.lower()}.png") if one in ("MASK", "BLACK", "FAINT") else one for one in arguments
    ]
    needs_its_size = ("--stride", "FAINT", "--wrap")  # of the prior: all else is said before that is loaded
    prior = "toy" if set(needs_its_size) & set(given) or "--preset" in arguments else "no/where"
    assert main(["panorama", str(source), str(tmp_path / "out.png"), "--prior", prior, *arguments]) == 2
    assert said in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("source", "output", "said"),
    [
        ("no.png", "out.png", "no.png"),
        ("in.png", "in.png", "is IN"),
        ("in.png", "out.xyz", "out.xyz"),
        ("in.png", "in.png/out.png", "in.png"),
        ("wide.png", "out.webp", "holds at most 16383 pixels"),
    ],
)
def test_files_that_cannot_be_read_or_written(tmp_path: Path, capsys, source: str, output: str, said: str) -> None:
    picture(tmp_path / "in.png")
    picture(tmp_path / "wide.png", (16390, 8))
    flags = ["--prompt", "x", *TOY, "--prior", "no/where"]  # which is not looked for
    assert main(["panorama", str(tmp_path / source), str(tmp_path / output), *flags]) == 2
    assert said in capsys.readouterr().err.replace("\n", "")


def test_a_second_edit_takes_what_the_model_says_of_the_source_from_the_bank(tmp_path: Path, capsys) -> None:
    source, bank = picture(tmp_path / "in.png"), ["--source-bank", str(tmp_path / "bank")]
    exact = ["--precision", "fp32"]
    spent = []
    for prompt, flags in (("make it night", bank), ("make it snow", bank), ("make it snow", [])):
        output = tmp_path / f"{len(spent)}.png"
        assert main(["panorama", str(source), str(output), "--prompt", prompt, *TOY, *exact, *flags]) == 0
        spent.append(capsys.readouterr().err.split(" network samples")[0].rsplit("(", 1)[1])
    assert spent == ["60", "36", "60"]
    assert np.abs(pixels(tmp_path / "1.png").astype(int) - pixels(tmp_path / "2.png")).max() <= 1


def test_editors_that_ask_nothing_about_the_source_have_no_bank(tmp_path: Path, capsys) -> None:
    flags = ["--prompt", "make it night", *TOY, "--editor", "random-noise", "--source-bank", str(tmp_path / "bank")]
    assert main(["panorama", str(picture(tmp_path / "in.png")), str(tmp_path / "out.png"), *flags]) == 2
    assert "--editor random-noise asks nothing about the source" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_two_processes_started_by_torchrun_edit_as_one(tmp_path: Path) -> None:
    source = picture(tmp_path / "in.png")
    command = ["panorama", str(source), "OUT", "--prompt", "make it night", *TOY, "--precision", "fp32"]
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    runs = {"one": ["-m"], "two": ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]}
    for name, start in runs.items():
        flags = [str(tmp_path / name / "out.png") if flag == "OUT" else flag for flag in command]
        done = subprocess.run(
            [sys.executable, *start, "csd_nerf.cli", *flags],
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("60 network samples") == 1 and done.stderr.count("6 steps") == 1
        assert [path.name for path in (tmp_path / name).iterdir()] == ["out.png"]
    one, two = (pixels(tmp_path / name / "out.png").astype(int) for name in runs)
    assert np.abs(one - two).max() <= 1
