"""`csd panorama` with the toy prior on small pictures: what it writes, how it is stopped, what it refuses."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from csd_nerf.cli import main
from csd_nerf.commands import sitting

TOY = ["--prior", "toy", "--steps", "6", "--batch-size", "2"]


def picture(path: Path, size: tuple[int, int] = (90, 66), mode: str = "RGB") -> Path:
    """A smooth picture; with transparency in its left half, if the mode has any."""
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    channels = [x, y, 0.5 * np.ones_like(x), np.where(x < 0.5, 0.2, 1.0)]
    array = (np.stack(channels[: len(mode)], axis=-1) * 255).round().astype(np.uint8)
    Image.fromarray(array, mode).save(path)
    return path


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        return np.asarray(opened)


def last_frame(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)][-1].astype(int)


@pytest.fixture(autouse=True)
def ctrl_c_interrupts() -> Iterator[None]:
    """Shells start what runs in the background with Ctrl-C ignored; Python then leaves it so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def stop_after(step: int, of: str = "Editing") -> Callable[..., object]:
    """In place of the progress bar: Ctrl-C after so many steps."""

    @contextmanager
    def progress(console: object, label: str, first: int = 0) -> Iterator[Callable[[int, int], None]]:
        def update(done: int, total: int) -> None:
            if label == of and done == step:
                os.kill(os.getpid(), signal.SIGINT)

        yield update

    return progress


def test_it_keeps_size_and_transparency_and_shows_how_it_came_about(tmp_path: Path, capsys) -> None:
    source, output = picture(tmp_path / "in.png", mode="RGBA"), tmp_path / "new" / "out.png"
    assert main(["panorama", str(source), str(output), "--prompt", "make it night", *TOY, "--save-every", "3"]) == 0
    edited = pixels(output)
    assert edited.shape == (66, 90, 4) and np.array_equal(edited[..., 3], pixels(source)[..., 3])
    assert np.abs(edited[..., :3].astype(int) - pixels(source)[..., :3]).mean() > 5
    assert sorted(path.name for path in output.parent.iterdir()) == ["out.mp4", "out.png"]
    said = capsys.readouterr().err.replace("\n", " ")
    assert "90 x 66 pixels" in said and "patches of 64 x 64, 6 steps" in said and "60 network samples" in said


def test_a_stopped_edit_has_a_picture_and_goes_on_to_the_same_end(tmp_path: Path, monkeypatch, capsys) -> None:
    source = picture(tmp_path / "in.png")

    def run(name: str, *more: str) -> int:
        return main(["panorama", str(source), str(tmp_path / name), "--prompt", "make it night", *TOY, *more])

    assert run("whole.png") == 0
    with monkeypatch.context() as patched:
        patched.setattr(sitting, "steps_progress", stop_after(2))
        assert run("part.png", "--save-every", "3") == 130
    first_part = (tmp_path / "part.mp4").read_bytes()
    assert "Stopped after step 2 of 6" in capsys.readouterr().err.replace("\n", " ")
    reached, state = pixels(tmp_path / "part.png"), tmp_path / "part.png.resume"
    assert reached.shape == (66, 90, 3) and state.is_file()
    assert np.abs(last_frame(tmp_path / "part.mp4") - reached).mean() < 3, "though 3 does not divide 2"
    assert not np.array_equal(reached, pixels(tmp_path / "whole.png"))
    assert run("part.png", "--resume", "--guidance", "5") == 2
    assert "--guidance 3.0 (now 5.0)" in capsys.readouterr().err.replace("\n", " ")
    assert run("part.png", "--resume", "--save-every", "5") == 0
    assert np.array_equal(pixels(tmp_path / "part.png"), pixels(tmp_path / "whole.png")) and not state.exists()
    assert (tmp_path / "part.mp4").read_bytes() == first_part and (tmp_path / "part.from2.mp4").is_file()
    assert np.abs(last_frame(tmp_path / "part.from2.mp4") - pixels(tmp_path / "part.png")).mean() < 3
    assert run("part.png", "--resume") == 2
    assert "there is no" in capsys.readouterr().err


def test_an_edit_goes_on_with_the_same_input_alone(tmp_path: Path, monkeypatch, capsys) -> None:
    source = picture(tmp_path / "in.png")

    def run(*more: str) -> int:
        flags = ["--prompt", "make it night", *TOY, "--precision", "fp32", "--stride", "9", *more]
        return main(["panorama", str(source), str(tmp_path / "out.png"), *flags])

    with monkeypatch.context() as patched:
        patched.setattr(sitting, "steps_progress", stop_after(2))
        assert run() == 130
    for other, said in (
        (["--stride", "10"], "--stride 9 (now 10)"),
        (["--precision", "bf16"], "--precision 'fp32' (now 'bf16')"),
    ):
        assert run("--resume", *other) == 2
        assert said in capsys.readouterr().err.replace("\n", " ")
    Image.fromarray(255 - pixels(source)).save(source)
    assert run("--resume") == 2
    assert "picture and regions" in capsys.readouterr().err.replace("\n", " ")


def test_what_could_not_be_written_is_written_with_resume(tmp_path: Path, monkeypatch, capsys) -> None:
    source = picture(tmp_path / "in.png")

    def run(name: str, *more: str, flags: tuple[str, ...] = tuple(TOY)) -> int:
        return main(["panorama", str(source), str(tmp_path / name), "--prompt", "make it night", *flags, *more])

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    sampled = ("--prior", "toy", "--steps", "3", "--editor", "multidiffusion")
    for name, flags in (("csd", tuple(TOY)), ("sampled", sampled)):
        assert run(f"{name}_whole.png", flags=flags) == 0
        with monkeypatch.context() as patched:
            patched.setattr("csd_nerf.images.picture_files.write_picture", full)
            assert run(f"{name}.png", flags=flags) == 2
        said = capsys.readouterr().err.replace("\n", "")
        assert "No space left" in said and f"{name}.png.resume keeps" in said and "--resume goes on" in said
        with monkeypatch.context() as patched:
            patched.setattr(sitting, "steps_progress", stop_after(1, of="Decoding"))
            assert run(f"{name}.png", "--resume", flags=flags) == 130
        assert "--resume goes on" in capsys.readouterr().err.replace("\n", " ")
        assert run(f"{name}.png", "--resume", flags=flags) == 0
        assert np.array_equal(pixels(tmp_path / f"{name}.png"), pixels(tmp_path / f"{name}_whole.png"))
    assert not [path.name for path in tmp_path.iterdir() if path.suffix != ".png" or path.name.startswith(".")]


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


def test_a_preview_shows_some_patches_and_ends(tmp_path: Path, capsys) -> None:
    source = picture(tmp_path / "in.png")
    for asked, shown in ((3, 3), (20, 6)):
        flags = ["--prompt", "make it night", *TOY, "--preview", str(asked)]
        assert main(["panorama", str(source), str(tmp_path / "out.png"), *flags]) == 0
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in.png", "out_preview.png"]
        height, width = pixels(tmp_path / "out_preview.png").shape[:2]
        assert shown * 192 < width < (shown + 1) * 192 and 2 * 192 < height < 3 * 192
        assert f"{shown} patches; leave" in capsys.readouterr().err.replace("\n", " ")


def test_stopped_while_sampling_it_says_that_the_picture_is_the_source(tmp_path: Path, monkeypatch, capsys) -> None:
    source, output = picture(tmp_path / "in.png"), tmp_path / "out.png"
    monkeypatch.setattr(sitting, "steps_progress", stop_after(2))
    flags = ["--prompt", "x", "--prior", "toy", "--steps", "4"]
    assert main(["panorama", str(source), str(output), *flags, "--editor", "multidiffusion"]) == 130
    assert "out.png shows the source" in capsys.readouterr().err.replace("\n", " ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.png", "out.png"]
    assert np.abs(pixels(output).astype(int) - pixels(source)).mean() < 5


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
        (["--prompt", "x", "--editor", "ip2p-patches", "--stride", "9"], "--stride 9 has no meaning for editor"),
        (["--prompt", "x", "--editor", "ip2p-patches", "--wrap"], "--wrap True has no meaning for editor"),
        (["--prompt", "x", "--preset", "released", "--preview", "2"], "--preview 2: --preset released: "),
        (["--prompt", "x", "--seed", "-1"], "--seed -1"),
        (["--prompt", "x", "--steps", "0"], "--steps 0"),
        (["--prompt", "x", "--guidance", "nan"], "--guidance nan"),
    ],
)
def test_what_cannot_work_is_said_in_one_message(tmp_path: Path, capsys, arguments: list[str], said: str) -> None:
    source = picture(tmp_path / "in.png")
    Image.new("L", (50, 40), 255).save(tmp_path / "mask.png")
    Image.new("L", (90, 66), 0).save(tmp_path / "black.png")
    faint = np.zeros((66, 90), np.uint8)
    faint[5, 5] = 1
    Image.fromarray(faint).save(tmp_path / "faint.png")
    arguments = [
        str(tmp_path / f"{one.lower()}.png") if one in ("MASK", "BLACK", "FAINT") else one for one in arguments
    ]
    assert main(["panorama", str(source), str(tmp_path / "out.png"), "--prior", "toy", *arguments]) == 2
    assert said in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("source", "output", "said"),
    [
        ("no.png", "out.png", "no.png"),
        ("in.png", "in.png", "is IN"),
        ("in.png", "out.xyz", "out.xyz"),
        ("in.png", "in.png/out.png", "in.png"),
    ],
)
def test_files_that_cannot_be_read_or_written(tmp_path: Path, capsys, source: str, output: str, said: str) -> None:
    picture(tmp_path / "in.png")
    assert main(["panorama", str(tmp_path / source), str(tmp_path / output), "--prompt", "x", *TOY]) == 2
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
