"""Videos are read with their true times and colours, upright, and what is wrong with one is said at once."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from av.video.stream import VideoStream
from PIL import Image

from csd_nerf.images.frame_range import FrameRange
from csd_nerf.images.video_colours import Colours
from csd_nerf.images.video_reading import open_video
from tests.images.clips import codes_frame, noise, write_clip, write_sound

BREAK = Path(__file__).resolve().parents[3] / "shared/data/break"
WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


def expected(codes: tuple[float, float, float], bits: int, full: bool, matrix: int) -> torch.Tensor:
    """R'G'B' of a colour by the matrix of ITU-R BT.601, 709 or 2020, inverted as a whole."""
    k_r, k_b = WEIGHTS[matrix]
    k_g, scale = 1 - k_r - k_b, 2 ** (bits - 8)
    forward = np.array(
        [
            [k_r, k_g, k_b],
            [-k_r / (2 - 2 * k_b), -k_g / (2 - 2 * k_b), 0.5],
            [0.5, -k_g / (2 - 2 * k_r), -k_b / (2 - 2 * k_r)],
        ]
    )
    offset = np.array([0 if full else 16, 128, 128]) * scale
    span = np.full(3, 2**bits - 1) if full else np.array([219, 224, 224]) * scale
    return torch.from_numpy(np.linalg.solve(forward, (np.array(codes) - offset) / span)).clamp(0, 1).float()


def folder_of(path: Path, frames: list[np.ndarray], names: list[str]) -> Path:
    path.mkdir()
    for frame, name in zip(frames, names, strict=True):
        Image.fromarray(frame).save(path / name)
    return path


@pytest.mark.parametrize("codes", [(120, 100, 150), (60, 140, 120), (200, 128, 128)])
@pytest.mark.parametrize(
    ("layout", "tags"),
    [
        ("yuv420p", (1, 1, 1, 1)),
        ("yuv420p", (1, 6, 6, 6)),
        ("yuv420p", (2, 1, 1, 13)),
        ("yuv420p", (2, 6, 6, 6)),
        ("yuv444p", (1, 5, 5, 6)),
        ("yuv422p", (1, 9, 9, 14)),
        ("yuv420p10le", (1, 1, 1, 1)),
        ("yuv444p10le", (2, 9, 9, 14)),
    ],
)
def test_colours_follow_the_matrix_and_range(
    tmp_path: Path, codes: tuple[int, int, int], layout: str, tags: tuple[int, int, int, int]
) -> None:
    bits = 10 if "10" in layout else 8
    y, u, v = (code * 2 ** (bits - 8) + (bits > 8) for code in codes)
    scaled = (y, u, v)
    path = write_clip(tmp_path / "a.mp4", [codes_frame(scaled, layout)] * 2, layout=layout, tags=tags)
    source = open_video(path)
    assert source.colours == Colours(*tags)
    for frame in source:
        shown = expected(scaled, bits, tags[0] == 2, tags[1])
        assert (frame - shown[:, None, None]).abs().max() < 1e-5


@pytest.mark.parametrize("layout", ["nv12", "yuyv422", "yuv410p"])
def test_other_layouts_hold_the_same_colours(tmp_path: Path, layout: str) -> None:
    codes = (120, 100, 150)
    path = write_clip(tmp_path / "a.nut", [codes_frame(codes)] * 2, codec="rawvideo", layout=layout)
    frame = next(iter(open_video(path)))
    assert (frame - expected(codes, 8, False, 6)[:, None, None]).abs().max() < 1e-5


def test_chroma_is_interpolated_between_its_samples(tmp_path: Path) -> None:
    """On a ramp of Cr alone, red rises evenly: samples lie in the middle of their two pixels."""
    frame = codes_frame((100, 128, 128))
    plane = frame.planes[2]
    plane.update(np.tile(np.arange(plane.line_size) * 4 + 80, (plane.height, 1)).astype(np.uint8).tobytes())
    (shown,) = open_video(write_clip(tmp_path / "a.mp4", [frame], tags=(1, 1, 1, 1)))
    for column in range(1, 47):
        assert (shown[:, 5, column] - expected((100, 128, 79 + 2 * column), 8, False, 1)).abs().max() < 1e-5


@pytest.mark.parametrize(("height", "matrix"), [(718, 6), (720, 1)])
def test_unsaid_colours_are_those_that_players_guess(tmp_path: Path, height: int, matrix: int) -> None:
    codes = (120, 100, 150)
    path = write_clip(tmp_path / "a.mp4", [codes_frame(codes, height=height, width=16)])
    (frame,) = open_video(path)
    assert (frame - expected(codes, 8, False, matrix)[:, None, None]).abs().max() < 1e-5


def test_grey_and_palette_videos(tmp_path: Path) -> None:
    grey = write_clip(tmp_path / "g.mkv", [codes_frame([77], "gray")] * 2, codec="ffv1", layout="gray")
    assert (next(iter(open_video(grey))) - 77 / 255).abs().max() < 1e-6
    deep = write_clip(tmp_path / "d.mkv", [codes_frame([30001], "gray16le")] * 2, codec="ffv1", layout="gray16le")
    assert (next(iter(open_video(deep))) - 30001 / 65535).abs().max() < 1e-6
    frames = [np.full((8, 10, 3), shade, np.uint8) for shade in ((255, 0, 0), (0, 0, 255), (0, 255, 0))]
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=[100, 300, 200])
    source = open_video(tmp_path / "a.gif")
    assert source.timestamps == (0, Fraction(1, 10), Fraction(2, 5)) and source.duration == Fraction(3, 5)
    assert source.variable_rate and source.count == 3
    for frame, pixels in zip(source, frames, strict=True):
        assert (frame - torch.from_numpy(pixels).permute(2, 0, 1) / 255).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.mp4", "libx264", Fraction(30000, 1001)),
        ("a.mkv", "libx264", Fraction(24000, 1001)),
        ("a.webm", "libvpx-vp9", 25),
        ("a.avi", "mpeg4", 12),
        ("a.mov", "libx264", 60),
    ],
)
def test_a_constant_rate(tmp_path: Path, name: str, codec: str, rate: Fraction) -> None:
    source = open_video(write_clip(tmp_path / name, noise(9), codec=codec, rate=rate))
    assert (source.width, source.height, source.count, source.rate) == (48, 32, 9, rate)
    assert not source.variable_rate and not source.has_audio
    tick = Fraction(1, 1000)  # of MKV and WebM
    assert all(abs(time - index / Fraction(rate)) <= tick for index, time in enumerate(source.timestamps))
    assert abs(source.duration - 9 / Fraction(rate)) <= tick


def test_frames_are_those_of_the_file_every_time(tmp_path: Path) -> None:
    frames = noise(9)
    path = write_clip(tmp_path / "a.mp4", frames, codec="libx264rgb", layout="rgb24")
    source = open_video(path, FrameRange(1, 8, 3))
    assert source.count == len(source) == 3 and list(source.indices) == [1, 4, 7]
    for _ in range(2):
        shown = list(source)
        for frame, index in zip(shown, (1, 4, 7), strict=True):
            assert (frame * 255 - torch.from_numpy(frames[index]).permute(2, 0, 1)).abs().max() < 0.01


def test_a_varying_rate(tmp_path: Path) -> None:
    stamps = [0, 40, 100, 900, 933, 1500]
    for name in ("a.mkv", "a.mp4"):
        path = write_clip(tmp_path / name, noise(6), stamps=stamps, unit=Fraction(1, 1000))
        source = open_video(path)
        assert source.variable_rate and source.timestamps == tuple(Fraction(stamp, 1000) for stamp in stamps)
        assert source.rate == 5 / Fraction(3, 2)
        part = open_video(path, FrameRange(1, 5, 2))
        assert part.timestamps == (0, Fraction(860, 1000)) and part.duration == Fraction(1460, 1000)


def test_a_thinned_span_is_no_shorter(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", noise(11))
    cases = [("", None, 11, 11), ("0:9:4", None, 3, 9), ("::4", 2, 2, 8), ("1::4", 9, 3, 10), ("8:", 1, 1, 1),
             ("::20", None, 1, 11), ("-3:", None, 3, 3)]  # fmt: skip
    for text, most, count, tenths in cases:
        source = open_video(path, FrameRange.parse(text) if text else FrameRange(), most)
        assert (source.count, source.duration) == (count, Fraction(tenths, 10))
        assert source.rate == Fraction(10, source.indices.step)


@pytest.mark.skipif(not hasattr(VideoStream, "set_display_rotation"), reason="this PyAV cannot write a rotation")
@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_frames_are_upright(tmp_path: Path, degrees: int) -> None:
    stored = noise(2, 16, 24)
    options = {"rotation": degrees, "aspect": Fraction(4, 3)}
    source = open_video(write_clip(tmp_path / "a.mp4", stored, codec="libx264rgb", layout="rgb24", **options))
    turned = degrees != 180
    assert (source.height, source.width) == ((24, 16) if turned else (16, 24))
    assert source.pixel_aspect == (Fraction(3, 4) if turned else Fraction(4, 3))
    for frame, pixels in zip(source, stored, strict=True):
        upright = torch.from_numpy(np.rot90(pixels, degrees // 90).copy()).permute(2, 0, 1)  # both counter-clockwise
        assert (frame * 255 - upright).abs().max() < 0.01


def test_a_folder_of_frames(tmp_path: Path) -> None:
    frames = noise(4, 17, 33)
    folder = folder_of(tmp_path / "f", frames, ["frame10.png", "frame2.png", "frame1.png", "frame20.bmp"])
    (folder / "notes.txt").write_text("no frame")
    source = open_video(folder, FrameRange(step=2), folder_rate=Fraction(30))
    assert [file.name for file in source.files] == ["frame1.png", "frame10.png"]
    assert (source.width, source.height, source.rate, source.duration) == (33, 17, 15, Fraction(4, 30))
    assert source.timestamps == (0, Fraction(1, 15))
    for _ in range(2):
        for frame, index in zip(source, (2, 0), strict=True):
            assert torch.equal((frame * 255).round().byte(), torch.from_numpy(frames[index]).permute(2, 0, 1))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm", "a.avi"])
def test_a_file_cut_short_says_what_can_be_read(tmp_path: Path, name: str) -> None:
    codec = {"a.webm": "libvpx-vp9", "a.avi": "mpeg4"}.get(name, "libx264")
    options = {"movflags": "faststart"} if name == "a.mp4" else {}
    whole = write_clip(tmp_path / name, noise(20), codec=codec, options=options).read_bytes()
    cut = tmp_path / f"cut{name}"
    cut.write_bytes(whole[: len(whole) * 9 // 10])
    with pytest.raises(ValueError, match=r"(\d+) frames can be read: give --frames 0:\1") as raised:
        open_video(cut)
    assert str(cut) in str(raised.value)
    readable = int(str(raised.value).split("--frames 0:")[1].split(",")[0])
    assert 1 < readable < 20
    source = open_video(cut, FrameRange(0, readable))
    reference = list(open_video(tmp_path / name, FrameRange(0, readable)))
    assert all(torch.equal(a, b) for a, b in zip(source, reference, strict=True))
    with pytest.raises(ValueError, match="cut short"):
        open_video(cut, FrameRange(0, readable + 1))


def test_what_is_no_video_is_named_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "zero.mp4").touch()
    (tmp_path / "text.mp4").write_text("This is not a video. " * 50)
    (tmp_path / "notes.txt").write_text("This is not a video. " * 50)
    write_sound(tmp_path / "song.mp4")
    write_clip(tmp_path / "late.mp4", noise(3))
    (tmp_path / "late.mp4").write_bytes((tmp_path / "late.mp4").read_bytes()[:-900])  # its index is at the end
    Image.fromarray(noise(1)[0]).save(tmp_path / "picture.png")
    (tmp_path / "none").mkdir()
    folder_of(tmp_path / "mixed", [noise(1)[0], noise(1, 16, 16)[0]], ["a.png", "b.png"])
    folder_of(tmp_path / "twice", noise(2), ["a.png", "a.bmp"])
    cases = {"missing.mp4": "does not exist", "zero.mp4": "0 bytes", "text.mp4": "cannot be opened as a video",
             "notes.txt": "give a", "song.mp4": "only sound", "late.mp4": "cut short", "picture.png": "one picture",
             "none": "holds no pictures", "mixed": "a.png has 48 x 32 pixels, b.png 16 x 16",
             "twice": "two frames of one name"}  # fmt: skip
    for name, said in cases.items():
        with pytest.raises(ValueError, match=said) as raised:
            open_video(tmp_path / name)
        assert str(tmp_path / name) in str(raised.value)


def test_ranges_that_select_nothing(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", noise(5))
    for text, said in (("5:", "has 5 frames"), ("3:2", "selects nothing of"), (":0", "selects nothing of")):
        with pytest.raises(ValueError, match=said) as raised:
            open_video(path, FrameRange.parse(text))
        assert f"--frames {text}" in str(raised.value)
    with pytest.raises(ValueError, match="--max-frames 0"):
        open_video(path, max_frames=0)


@pytest.mark.skipif(not BREAK.is_dir(), reason="the shared video frames are not here")
def test_a_real_folder() -> None:
    source = open_video(BREAK, FrameRange(0, None, 8))
    assert (source.width, source.height, source.count) == (854, 480, 3)
    assert [file.stem for file in source.files] == ["00000", "00008", "00016"]
    assert 0.05 < float(next(iter(source)).mean()) < 0.95
