"""`csd video` with the toy prior on small clips: what it keeps, how it is stopped, what it refuses."""

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from csd_nerf.cli import main
from csd_nerf.commands import sitting
from csd_nerf.images.picture_files import read_picture
from csd_nerf.images.video_reading import open_video
from tests.commands.stopping import stop_after
from tests.images.clips import noise, write_clip

TOY = ["--prior", "toy", "--steps", "4", "--batch-size", "2"]


def frames_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_it_keeps_times_size_and_sound(tmp_path: Path, capsys) -> None:
    stamps = [0, 100, 250, 300, 480]
    source = write_clip(tmp_path / "in.mkv", noise(5, 34, 50), stamps=stamps, unit=Fraction(1, 1000), audio="aac")
    output = tmp_path / "new" / "out.mkv"
    assert main(["video", str(source), str(output), "--prompt", "make it night", *TOY]) == 0
    before, after = open_video(source), open_video(output)
    assert after.timestamps == before.timestamps and after.variable_rate and after.has_audio
    assert (after.width, after.height, after.count) == (50, 34, 5)
    assert frames_of(output).mean() < 0.9 * frames_of(source).mean()
    assert [path.name for path in output.parent.iterdir()] == ["out.mkv"]
    said = capsys.readouterr().err.replace("\n", " ")
    assert "5 frames of 50 x 34 pixels, edited at" in said and "40 network samples" in said


def test_latents_on_disk_give_the_same_video_and_are_removed(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", noise(4))

    def run(name: str, *more: str) -> bytes:
        output = tmp_path / name
        assert main(["video", str(source), str(output), "--prompt", "make it night", *TOY, *more]) == 0
        return output.read_bytes()

    assert run("a.mp4") == run("b.mp4", "--latents", "disk")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4", "in.mp4"]
    assert run("a.mp4") != run("c.mp4", "--temporal", "0.05")


@pytest.mark.parametrize("suffix", [".mp4", ""])
def test_a_stopped_edit_has_a_video_and_goes_on_to_the_same_end(tmp_path: Path, monkeypatch, capsys, suffix) -> None:
    source = write_clip(tmp_path / "in.mp4", noise(4))

    def run(name: str, *more: str) -> int:
        arguments = ["--prompt", "make it night", *TOY, *more]
        return main(["video", str(source), str(tmp_path / f"{name}{suffix}"), *arguments])

    def content(name: str) -> list[bytes]:
        path = tmp_path / f"{name}{suffix}"
        return [file.read_bytes() for file in (sorted(path.iterdir()) if path.is_dir() else [path])]

    assert run("whole") == 0
    with monkeypatch.context() as patched:
        patched.setattr(sitting, "steps_progress", stop_after(2))
        assert run("part") == 130
    assert "Stopped after step 2 of 4" in capsys.readouterr().err.replace("\n", " ")
    reached = content("part")
    assert len(reached) == len(content("whole")) and reached != content("whole")
    assert run("part", "--resume", "--prompt", "make it snow") == 2
    assert "'make it night' (now 'make it snow')" in capsys.readouterr().err.replace("\n", " ")
    assert run("part", "--resume") == 0
    assert content("part") == content("whole") and not (tmp_path / f"part{suffix}.resume").exists()


def test_another_video_of_the_same_name_and_size_is_not_gone_on_with(tmp_path: Path, monkeypatch, capsys) -> None:
    source = write_clip(tmp_path / "in.mp4", noise(4))
    arguments = ["video", str(source), str(tmp_path / "out.mp4"), "--prompt", "make it night", *TOY]
    with monkeypatch.context() as patched:
        patched.setattr(sitting, "steps_progress", stop_after(2))
        assert main(arguments) == 130
    write_clip(source, [255 - frame for frame in noise(4)])
    assert main([*arguments, "--resume"]) == 2
    assert "was begun with frames '4 of 48 x 32 from in.mp4, " in capsys.readouterr().err.replace("\n", " ")


def test_somebodys_folder_beside_the_output_stays(tmp_path: Path, capsys) -> None:
    source, folder = write_clip(tmp_path / "in.mp4", noise(2)), tmp_path / "out.mp4.latents"
    folder.mkdir()
    (folder / "precious").write_text("mine")
    arguments = ["video", str(source), str(tmp_path / "out.mp4"), "--prompt", "make it night", *TOY]
    assert main([*arguments, "--latents", "disk"]) == 2
    assert "out.mp4.latents for itself, which is there already with precious in it" in capsys.readouterr().err
    assert main(arguments) == 0 and (folder / "precious").read_text() == "mine"
    (folder / "precious").unlink()
    (folder / "source.f32").write_bytes(b"left by a process that was killed")
    assert main([*arguments, "--latents", "disk"]) == 0 and not folder.exists()


TERMINATED = """
import os, signal, sys
from contextlib import contextmanager
from csd_nerf.cli import main
from csd_nerf.commands import sitting

@contextmanager
def progress(console, label, first=0):
    def update(done, total):
        if label == LABEL and done >= min(2, total):
            os.kill(os.getpid(), signal.SIGTERM)
    yield update

LABEL = sys.argv[1]
sitting.steps_progress = progress
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(("label", "left"), [
    ("Reading", []), ("Editing", ["out.mkv", "out.mkv.resume"]), ("Writing", ["out.mkv.resume"]),
])  # fmt: skip
def test_a_process_that_is_terminated_leaves_what_is_of_use(tmp_path: Path, label: str, left: list[str]) -> None:
    source = write_clip(tmp_path / "in.mkv", noise(4))
    flags = ["--prompt", "make it night", *TOY, "--latents", "disk"]
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    done = subprocess.run(
        [sys.executable, "-c", TERMINATED, label, "video", str(source), str(tmp_path / "out.mkv"), *flags],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 130, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv", *left]


def test_a_finished_edit_outlives_a_video_that_cannot_be_written(tmp_path: Path, monkeypatch, capsys) -> None:
    source = write_clip(tmp_path / "in.mp4", noise(4))

    def run(name: str, flags: list[str], *more: str) -> int:
        return main(["video", str(source), str(tmp_path / name), "--prompt", "make it night", *flags, *more])

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    sampled = ["--prior", "toy", "--steps", "3", "--editor", "ip2p"]
    for name, flags in (("csd", TOY), ("sampled", sampled)):
        assert run(f"{name}_whole.mp4", flags) == 0
        with monkeypatch.context() as patched:
            patched.setattr("csd_nerf.images.video_writing.write_video_like", full)
            assert run(f"{name}.mp4", flags) == 2
        said = capsys.readouterr().err.replace("\n", "")
        assert "No space left" in said and f"{name}.mp4.resume keeps" in said and "--resume goes on" in said
        assert run(f"{name}.mp4", flags, "--resume") == 0
        assert (tmp_path / f"{name}.mp4").read_bytes() == (tmp_path / f"{name}_whole.mp4").read_bytes()
        assert not (tmp_path / f"{name}.mp4.resume").exists()


def test_a_folder_of_frames_some_of_them_each_by_itself(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for index, pixels in enumerate(noise(6)):
        Image.fromarray(pixels).save(folder / f"frame{index}.png")
    output = tmp_path / "out"
    arguments = ["--prompt", "make it night", "--editor", "ip2p", "--prior", "toy", "--steps", "3"]
    assert main(["video", str(folder), str(output), *arguments, "--frames", "1::2", "--max-frames", "2"]) == 0
    assert sorted(path.name for path in output.iterdir()) == ["frame1.png", "frame3.png"]
    assert read_picture(output / "frame1.png").image.shape == (3, 32, 48)


def test_stopped_while_sampling_it_says_which_frames_are_sampled(tmp_path: Path, monkeypatch, capsys) -> None:
    source = write_clip(tmp_path / "in.mp4", noise(12))
    monkeypatch.setattr(sitting, "steps_progress", stop_after(3))  # of 4: the first 8 frames are done after 2
    flags = ["--prompt", "x", "--prior", "toy", "--steps", "4", "--editor", "ip2p"]
    assert main(["video", str(source), str(tmp_path / "out.mp4"), *flags]) == 130
    assert "out.mp4 has 8 sampled frames and 4 of the source" in capsys.readouterr().err.replace("\n", " ")
    change = np.abs(frames_of(tmp_path / "out.mp4").astype(int) - frames_of(source)).mean(axis=(1, 2, 3))
    assert change[:8].min() > 2 * change[8:].max()


def test_a_preview_shows_some_frames_and_ends(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", noise(6))
    assert main(["video", str(source), str(tmp_path / "out.mp4"), "--prompt", "make it night", *TOY,
                 "--preview", "2"]) == 0  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out_preview.png"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--prompt", " "], "prompt is empty"),
        (["--prompt", "x", "--frames", "9:"], "--frames"),
        (["--prompt", "x", "--frames", "a:b"], "--frames"),
        (["--prompt", "x", "--max-frames", "0"], "--max-frames 0"),
        (["--prompt", "x", "--preview", "0"], "--preview 0"),
        (["--prompt", "x", "--temporal", "0"], "--temporal 0"),
        (["--prompt", "x", "--temporal", "1", "--editor", "no-svgd"], "no-svgd"),
        (["--prompt", "x", "--editor", "ip2p", "--resume"], "leave --resume out"),
        (["--prompt", "x", "--editor", "dds"], "--source-prompt"),
        (["--prompt", "x", "--preset", "released", "--max-frames", "2"], "--preset released: "),
        (["--prompt", "x", "--preset", "released", "--preview", "2"], "--preview 2: --preset released: "),
        (["--prompt", "x", "--resume"], "leave --resume out to start from the beginning"),
        (["--prompt", "x", "--preview", "2", "--latents", "disk"], "--latents disk has no meaning with --preview 2"),
        (["--prompt", "x", "--editor", "ip2p", "--t-max", "0.5"], "--t-max 0.5 has no meaning for --editor ip2p"),
        (["--prompt", "x", "--lr", "-1"], "--lr -1"),
    ],
)
def test_what_cannot_work_is_said_in_one_message(tmp_path: Path, capsys, arguments: list[str], said: str) -> None:
    source = write_clip(tmp_path / "in.mp4", noise(3))  # the prior, which is nowhere, is not looked for
    assert main(["video", str(source), str(tmp_path / "out.mp4"), "--prior", "no/where", *arguments]) == 2
    assert said in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "out.mp4").exists()


def test_a_preview_does_not_join_the_frames_of_its_source(tmp_path: Path, capsys) -> None:
    (tmp_path / "frames").mkdir()
    for index, frame in enumerate(noise(3)):
        Image.fromarray(frame).save(tmp_path / f"frames/{index}.png")
    output = tmp_path / "frames/edited"
    assert main(["video", str(tmp_path / "frames"), str(output), "--prompt", "x", *TOY, "--preview", "2"]) == 2
    assert "among the frames of IN" in capsys.readouterr().err.replace("\n", " ")
    assert len(list((tmp_path / "frames").iterdir())) == 3


def test_frames_that_the_encoder_refuses_are_refused_before_the_work(tmp_path: Path, capsys) -> None:
    (tmp_path / "frames").mkdir()
    for index in range(2):
        Image.new("RGB", (17000, 16)).save(tmp_path / f"frames/{index}.png")
    flags = ["--prompt", "x", "--prior", "no/where"]
    assert main(["video", str(tmp_path / "frames"), str(tmp_path / "out.mp4"), *flags]) == 2
    said = capsys.readouterr().err.replace("\n", " ")
    assert "out.mp4: frames of 17000 x 16 pixels cannot be encoded there" in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("source", "output", "said"),
    [
        ("no.mp4", "out.mp4", "no.mp4"),
        ("empty.mp4", "out.mp4", "empty.mp4"),
        ("text.mp4", "out.mp4", "text.mp4"),
        ("in.mp4", "in.mp4", "in.mp4"),
        ("in.mp4", "out.xyz", "out.xyz"),
    ],
)
def test_files_that_cannot_be_read_or_written(tmp_path: Path, capsys, source: str, output: str, said: str) -> None:
    write_clip(tmp_path / "in.mp4", noise(3))
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("no video")
    assert main(["video", str(tmp_path / source), str(tmp_path / output), "--prompt", "x", *TOY]) == 2
    assert said in capsys.readouterr().err.replace("\n", "")
