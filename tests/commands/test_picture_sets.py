"""What is read of pictures, folders and videos that are compared, which of it, and whether it fits into memory."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import psutil
import pytest
import torch
from av import VideoStream
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from csd_nerf.cli import main
from csd_nerf.commands.picture_sets import check_memory, read_in_parts, read_pictures
from csd_nerf.images.frame_range import FrameRange
from csd_nerf.images.writing import to_pil, write_video
from tests.images.clips import noise, write_clip
from tests.metrics.fake_encoder import plain


def save(folder: Path, images: Float[Tensor, "n 3 h w"], names: list[str] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        to_pil(image).save(folder / (names[i] if names else f"{i}.png"))
    return folder


def grey(*levels: float, size: int = 4) -> Float[Tensor, "n 3 h w"]:
    return plain(*((level, level, level) for level in levels), size=size)


def test_a_folder_in_the_order_of_its_numbers(tmp_path: Path):
    folder = save(tmp_path / "a", grey(0.2, 0.4, 0.6), ["v10.png", "v2.png", "w1.png"])
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_text("no picture")
    read = read_pictures(folder, "BEFORE")
    assert read.names == ("v2", "v10", "w1") and read.kind == "pictures" and read.size == (4, 4)
    assert read.images[:, 0, 0, 0].tolist() == [102, 51, 153] and read.images.dtype == torch.uint8


def test_a_single_picture_and_its_transparency(tmp_path: Path):
    pixels = np.zeros((2, 3, 4), np.uint8)
    pixels[:, :, 3] = [0, 255, 51]
    Image.fromarray(pixels).save(tmp_path / "a.png")
    read = read_pictures(tmp_path / "a.png", "BEFORE")
    assert read.size == (2, 3) and len(read) == 1
    assert read.images[0, :, 0].tolist() == 3 * [[255, 0, 204]], "on white"


def test_a_photo_is_turned_as_its_camera_says(tmp_path: Path):
    image = Image.new("RGB", (6, 4))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    assert read_pictures(tmp_path / "a.jpg", "BEFORE").size == (6, 4)


def test_a_video(tmp_path: Path):
    write_video(tmp_path / "a.mp4", list(grey(0.2, 0.5, 0.8, size=32)))
    read = read_pictures(tmp_path / "a.mp4", "AFTER")
    assert read.kind == "video" and read.names == ("0", "1", "2") and read.size == (32, 32)
    assert read.images.float().mean(dim=(1, 2, 3)).tolist() == pytest.approx([51, 127, 204], abs=4)


@pytest.mark.skipif(not hasattr(VideoStream, "set_display_rotation"), reason="this PyAV cannot write a rotation")
def test_a_video_is_turned_as_its_camera_says(tmp_path: Path):
    stored = noise(2, 32, 48)
    flat = read_pictures(write_clip(tmp_path / "flat.mp4", stored, codec="libx264rgb", layout="rgb24"), "AFTER")
    turned = read_pictures(
        write_clip(tmp_path / "turned.mp4", stored, codec="libx264rgb", layout="rgb24", rotation=90), "AFTER"
    )
    assert flat.size == (32, 48) and turned.size == (48, 32) and turned.images.shape == (2, 3, 48, 32)
    assert torch.equal(turned.images, flat.images.rot90(1, (2, 3))), "counter-clockwise, as FFmpeg shows it"
    parts = torch.cat(list(read_in_parts(tmp_path / "turned.mp4", "AFTER")))
    assert torch.equal(parts, turned.images)


def test_transparent_frames_are_on_white(tmp_path: Path):
    pixels = np.zeros((16, 24, 4), np.uint8)
    pixels[:, 12:, 3] = 255
    frames = [av.VideoFrame.from_ndarray(pixels, "rgba").reformat(format="argb")] * 2
    read = read_pictures(write_clip(tmp_path / "a.mov", frames, codec="qtrle", layout="argb"), "AFTER")
    assert read.images[:, :, :, 2].min() == 255 and read.images[:, :, :, 20].max() == 0


@pytest.mark.parametrize("kind", ["folder", "video"])
def test_some_of_the_frames(tmp_path: Path, kind: str):
    """Numbered as they are in the whole."""
    images, path = grey(*(i / 10 for i in range(10)), size=32), tmp_path / "a.mp4"
    if kind == "folder":
        path = save(tmp_path / "a", images)
    else:
        write_video(path, list(images))
    some = read_pictures(path, "AFTER", FrameRange.parse("2:9:3"))
    assert some.names == ("2", "5", "8")
    assert some.images.float().mean(dim=(1, 2, 3)).tolist() == pytest.approx([51, 127.5, 204], abs=4)
    assert torch.equal(some.images, read_pictures(path, "AFTER").images[2:9:3])
    with pytest.raises(
        ValueError, match=rf"--frames 20: selects nothing of .*{path.name}, which has 10 (frames|pictures)"
    ):
        read_pictures(path, "AFTER", FrameRange.parse("20:"))


def test_what_would_not_fit_into_memory_is_said_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Two sets of three pictures of 1000 x 1000 take 18 MB, 6 MB one of each; reading the last is an error."""
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b"):
        save(tmp_path / folder, grey(0.1, 0.2, 0.3, size=1000))
    Image.fromarray(np.zeros((1000, 1000), np.uint16)).save(tmp_path / "b/2.png")

    def have(free: int) -> None:
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free))

    sets = [read_pictures(tmp_path / folder, "AFTER") for folder in ("a", "b")]
    have(18_000_000)
    check_memory(sets)
    have(18_000_000 - 1)
    command = ["metrics", "a", "b", "--metrics", "lpips", "--lpips", "st-lpips"]
    assert main(command) == 2
    text = " ".join(capsys.readouterr().err.split())
    assert "BEFORE a, AFTER b take 0.0 GB of memory, and 0.0 GB are free: choose some of them with --frames" in text
    have(6_000_000)
    assert main([*command, "--frames", ":1"]) == 0
    have(18_000_000)
    assert main(command) == 2 and "AFTER b/2.png has more than 8 bits" in " ".join(capsys.readouterr().err.split())


def test_frames_are_of_all_sides_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    before, after = grey(*5 * [0.2], size=32), grey(0.2, 0.4, 0.2, 0.6, 0.2, size=32)
    save(tmp_path / "a", before)
    save(tmp_path / "b", after)
    save(tmp_path / "c", before)
    command = ["metrics", "a", "b", "--truth", "c", "--metrics", "psnr", "--frames", "1::2", "--json", "o.json"]
    assert main(command) == 0
    content = json.loads(Path("o.json").read_text())
    assert content["before"]["pictures"] == content["after"]["pictures"] == content["truth"]["pictures"] == 2
    found = content["scores"][0]["values"]
    assert found == pytest.approx([-20 * math.log10(0.2), -20 * math.log10(0.4)], abs=1e-3)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["a", "a", "--frames", "3"], "--frames 3: give START:STOP or START:STOP:STEP"),
        (["a", "a", "--frames", "7:"], "--frames 7: selects nothing of a, which has 2 pictures"),
        (["a/0.png", "a/0.png", "--frames", ":1"], "BEFORE a/0.png is one picture: leave out --frames :1"),
        (["--load-config", "c.yml", "--frames", ":1"], "--frames is for pictures in files: leave it out with --load"),
    ],
)
def test_frames_that_cannot_be_chosen(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    complaint: str,
):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "a", grey(0.1, 0.2))
    assert main(["metrics", *flags]) == 2
    assert complaint in " ".join(capsys.readouterr().err.split())


def test_what_cannot_be_read_is_named(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.png").write_text("no picture")
    (tmp_path / "a.mp4").write_text("no video")
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
    save(tmp_path / "mixed", grey(0.5))
    save(tmp_path / "mixed", grey(0.5, size=6), ["z.png"])
    for name, complaint in (
        ("none", "--truth .*none does not exist: give a picture, a folder of pictures or a video"),
        ("empty", "--truth .*empty holds no pictures"),
        ("a.png", "--truth .*a.png cannot be read as a picture"),
        ("a.mp4", "--truth .*a.mp4 cannot be opened as a video"),
        ("deep.png", "has more than 8 bits a channel"),
        ("mixed", "--truth .*mixed: 0.png has 4 x 4 pixels, z.png 6 x 6 pixels: bring them to one size"),
    ):
        with pytest.raises(ValueError, match=complaint):
            _ = read_pictures(tmp_path / name, "--truth").images
        with pytest.raises(ValueError, match=complaint):
            list(read_in_parts(tmp_path / name, "--truth"))


def test_parts_are_the_pictures_in_their_order(tmp_path: Path):
    folder = save(tmp_path / "a", grey(*(i / 10 for i in range(10))))
    parts = list(read_in_parts(folder, "BEFORE", 4))
    assert [len(part) for part in parts] == [4, 4, 2]
    assert torch.equal(torch.cat(parts), read_pictures(folder, "BEFORE").images)
    (folder / "5.png").write_text("no picture")
    first = read_in_parts(folder, "BEFORE", 4)
    assert torch.equal(next(first), parts[0]), "what is not asked for is not read"
