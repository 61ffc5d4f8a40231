"""`csd panorama` with the toy prior on small pictures: what it writes, how it is stopped, what it refuses."""

from pathlib import Path

import numpy as np
from PIL import Image

from csd_nerf.cli import main
from csd_nerf.commands import sitting
from tests.commands.pictures import TOY, last_frame, picture, pixels
from tests.commands.stopping import stop_after


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


def test_stopped_while_sampling_it_says_that_the_picture_is_the_source(tmp_path: Path, monkeypatch, capsys) -> None:
    source, output = picture(tmp_path / "in.png"), tmp_path / "out.png"
    monkeypatch.setattr(sitting, "steps_progress", stop_after(2))
    flags = ["--prompt", "x", "--prior", "toy", "--steps", "4"]
    assert main(["panorama", str(source), str(output), *flags, "--editor", "multidiffusion"]) == 130
    assert "out.png shows the source" in capsys.readouterr().err.replace("\n", " ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.png", "out.png"]
    assert np.abs(pixels(output).astype(int) - pixels(source)).mean() < 5
