"""A written video is as its source was, but for the frames: times, size, colours and sound."""

import weakref
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.video.stream import VideoStream
from PIL import Image

from csd_nerf.images.frame_range import FrameRange
from csd_nerf.images.picture_files import read_picture
from csd_nerf.images.video_colours import Colours
from csd_nerf.images.video_reading import VideoSource, open_video
from csd_nerf.images.video_writing import check_video_output, write_video_like
from tests.images.clips import codes_frame, noise, packets, sound, write_clip

SHADES = torch.tensor([[0.8, 0.2, 0.1], [0.1, 0.5, 0.9], [0.5, 0.5, 0.5], [0.0, 1.0, 0.0], [1, 1, 1]])


def flat(source: VideoSource) -> Iterator[torch.Tensor]:
    """One colour per frame, made when it is asked for."""
    for index in range(source.count):
        yield SHADES[index % len(SHADES)][:, None, None].expand(3, source.height, source.width)


def seen(path: Path, source: VideoSource) -> VideoSource:
    """What was written, whose frames are those of `flat`, within 2/255."""
    written = open_video(path)
    for frame, wanted in zip(written, flat(source), strict=True):
        assert (frame - wanted).abs().max() <= 2.01 / 255
    assert (written.height, written.width, written.count) == (source.height, source.width, source.count)
    return written


@pytest.mark.parametrize("name", ["b.mp4", "b.mov", "b.mkv", "b.m4v", "b.webm"])
@pytest.mark.parametrize("tags", [(1, 1, 1, 1), (1, 6, 6, 6), (2, 1, 1, 13), (2, 6, 6, 6), (1, 9, 9, 14), None])
def test_colours_and_their_tags_stay(tmp_path: Path, name: str, tags: tuple[int, int, int, int] | None) -> None:
    source = open_video(write_clip(tmp_path / "a.mp4", [codes_frame((90, 110, 140))] * 5, tags=tags))
    write_video_like(tmp_path / name, source, flat(source))
    written = seen(tmp_path / name, source)
    said = source.colours if name != "b.webm" or tags else Colours(1)  # VP9 always says the range
    assert written.colours == said


@pytest.mark.parametrize(("name", "layout"), [("b.mp4", "yuv444p"), ("b.mkv", "yuv444p"), ("b.webm", "yuv420p")])
def test_odd_sizes_stay(tmp_path: Path, name: str, layout: str) -> None:
    source = open_video(write_clip(tmp_path / "a.mp4", noise(5, 17, 33), layout="yuv444p"))
    write_video_like(tmp_path / name, source, flat(source))
    written = seen(tmp_path / name, source)
    assert (written.width, written.height) == (33, 17)
    with av.open(str(tmp_path / name)) as container:
        assert container.streams.video[0].codec_context.pix_fmt == layout


def test_detail_stays_where_it_was(tmp_path: Path) -> None:
    """Chroma does not creep: ten rounds of reading and writing leave smooth frames in their place."""
    ramp = torch.linspace(0.2, 0.8, 64).expand(48, 64)
    frame = torch.stack([ramp, 1 - ramp, torch.linspace(0.8, 0.2, 48)[:, None].expand(48, 64)])
    source = open_video(write_clip(tmp_path / "0.mp4", noise(1, 48, 64), tags=(1, 1, 1, 1)))
    write_video_like(tmp_path / "1.mp4", source, [frame])
    for index in range(1, 10):
        source = open_video(tmp_path / f"{index}.mp4")
        write_video_like(tmp_path / f"{index + 1}.mp4", source, source)
    (last,) = open_video(tmp_path / "10.mp4")
    assert (last - frame)[:, 2:-2, 2:-2].abs().max() < 6 / 255


@pytest.mark.parametrize("name", ["b.mp4", "b.mov", "b.mkv", "b.webm"])
def test_a_varying_rate_stays(tmp_path: Path, name: str) -> None:
    stamps = [0, 40, 100, 900, 933, 1500, 1501]
    source = open_video(write_clip(tmp_path / "a.mkv", noise(7), stamps=stamps, unit=Fraction(1, 1000)))
    write_video_like(tmp_path / name, source, flat(source))
    written = seen(tmp_path / name, source)
    assert written.timestamps == source.timestamps and written.variable_rate
    assert written.duration == source.duration


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(24), Fraction(25, 2)])
@pytest.mark.parametrize("text", [":", "1:8:3"])
def test_a_constant_rate_stays_and_steps_keep_the_playing_time(tmp_path: Path, rate: Fraction, text: str) -> None:
    path = write_clip(tmp_path / "a.mp4", noise(10), rate=rate)
    source = open_video(path, FrameRange.parse(text))
    write_video_like(tmp_path / "b.mp4", source, flat(source))
    written = seen(tmp_path / "b.mp4", source)
    assert written.timestamps == source.timestamps
    assert (written.rate, written.variable_rate) == (rate / source.indices.step, False)
    with av.open(str(tmp_path / "b.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.duration or 0) * (stream.time_base or 0) == (10 if text == ":" else 7) / rate


def test_the_shape_of_pixels_stays(tmp_path: Path) -> None:
    source = open_video(write_clip(tmp_path / "a.mp4", noise(2), aspect=Fraction(4, 3)))
    for name in ("b.mp4", "b.mkv", "b.mov"):
        write_video_like(tmp_path / name, source, flat(source))
        assert seen(tmp_path / name, source).pixel_aspect == Fraction(4, 3)
    with pytest.raises(ValueError, match="WebM does not keep"):
        check_video_output(tmp_path / "b.webm", source)


@pytest.mark.skipif(not hasattr(VideoStream, "set_display_rotation"), reason="this PyAV cannot write a rotation")
def test_turned_frames_are_written_upright_once(tmp_path: Path) -> None:
    source = open_video(write_clip(tmp_path / "a.mp4", noise(2, 16, 24), rotation=90))
    write_video_like(tmp_path / "b.mp4", source, flat(source))
    written = seen(tmp_path / "b.mp4", source)
    assert (written.width, written.height, written.orientation) == (16, 24, 1)
    assert written.colours.matrix == 6


def first_time(path: Path) -> float:
    """When the first frame is shown."""
    with av.open(str(path)) as container:
        return next(container.decode(video=0)).time


def delay(path: Path, reference: Path, offset: float) -> float:
    """By how many seconds the sound of `path` is late against `reference`, heard from `offset` seconds on."""
    (cut, begun), (whole, start) = sound(path), sound(reference)
    begun -= first_time(path)
    piece = cut[4800:14400]
    scores = np.correlate(whole, piece, "valid")
    place = int(scores.argmax()) / 48000 + start - first_time(reference)
    return begun + 0.1 - (place - offset)


def test_sound_is_copied_packet_by_packet(tmp_path: Path) -> None:
    cases = [("a.mp4", "aac", "b.mp4"), ("a.mp4", "aac", "b.mkv"), ("a.mp4", "aac", "b.mov"),
             ("a.webm", "libopus", "b.webm"), ("a.webm", "libopus", "b.mp4")]  # fmt: skip
    for name, codec, output in cases:
        kind = "libvpx-vp9" if name == "a.webm" else "libx264"
        source = open_video(write_clip(tmp_path / name, noise(12), codec=kind, audio=codec))
        assert source.has_audio
        write_video_like(tmp_path / output, source, flat(source))
        seen(tmp_path / output, source)
        before, after = packets(tmp_path / name), packets(tmp_path / output)
        assert [content for _, content in before] == [content for _, content in after]
        assert abs(delay(tmp_path / output, tmp_path / name, 0)) < 0.002, (name, output)


@pytest.mark.parametrize("output", ["b.mp4", "b.mkv", "b.webm"])
@pytest.mark.parametrize("text", ["4:12", "3:12:2"])
def test_cut_sound_stays_in_step(tmp_path: Path, output: str, text: str) -> None:
    path = write_clip(tmp_path / "a.mp4", noise(16), audio="aac")
    source = open_video(path, FrameRange.parse(text))
    write_video_like(tmp_path / output, source, flat(source))
    seen(tmp_path / output, source)
    assert abs(delay(tmp_path / output, path, source.indices[0] / 10)) < 0.002
    samples, begun = sound(tmp_path / output)
    begun -= first_time(tmp_path / output)
    assert -0.03 < begun < 0.03
    assert abs(begun + len(samples) / 48000 - float(source.duration)) < 0.05
    with av.open(str(tmp_path / output)) as container:
        codec = container.streams.audio[0].codec_context.name
    assert codec == ("opus" if output == "b.webm" else "aac")


def test_sound_that_a_file_cannot_hold_is_encoded(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", noise(12), audio="flac")
    source = open_video(path)
    for output, codec in (("b.mp4", "aac"), ("b.webm", "opus"), ("b.mkv", "flac")):
        write_video_like(tmp_path / output, source, flat(source))
        with av.open(str(tmp_path / output)) as container:
            assert container.streams.audio[0].codec_context.name == codec
        assert abs(delay(tmp_path / output, path, 0)) < 0.002


def test_the_same_frames_make_the_same_file(tmp_path: Path) -> None:
    source = open_video(write_clip(tmp_path / "a.mp4", noise(12), audio="aac"))
    for name in ("mp4", "mkv", "webm"):
        made = set()
        for index in range(3):
            write_video_like(tmp_path / f"{index}.{name}", source, source)
            made.add((tmp_path / f"{index}.{name}").read_bytes())
        assert len(made) == 1


def test_frames_are_asked_for_as_they_are_written(tmp_path: Path) -> None:
    """No frame is kept once the next one is made, however long the video is."""
    source = open_video(write_clip(tmp_path / "a.mp4", noise(9)))
    alive: list[weakref.ref] = []

    def watched() -> Iterator[torch.Tensor]:
        for _ in range(source.count):
            frame = torch.rand(3, source.height, source.width)
            alive.append(weakref.ref(frame))
            yield frame
            del frame
            assert sum(reference() is not None for reference in alive) <= 1

    for name in ("b.mp4", "folder"):
        alive.clear()
        write_video_like(tmp_path / name, source, watched())
        assert len(alive) == source.count


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    source = open_video(write_clip(tmp_path / "a.mp4", noise(6), audio="aac"))

    def broken() -> Iterator[torch.Tensor]:
        yield from list(flat(source))[:3]
        raise RuntimeError("the network went away")

    out = tmp_path / "out"
    out.mkdir()
    (out / "old.mp4").write_bytes(b"old")
    for name in ("old.mp4", "b.webm", "b.mkv", "folder"):
        with pytest.raises(RuntimeError, match="went away"):
            write_video_like(out / name, source, broken())
    assert [file.name for file in out.iterdir()] == ["old.mp4"] and (out / "old.mp4").read_bytes() == b"old"
    shown = list(flat(source))
    cases = [(shown[:4], "only 4"), ([*shown, shown[0]], "more"), ([frame[:, 1:] for frame in shown], "48 x 31")]
    for frames, said in cases:
        for name in ("b.mp4", "folder"):
            with pytest.raises(ValueError, match=said):
                write_video_like(out / name, source, frames)
    assert len(list(out.iterdir())) == 1


def test_folders_get_numbered_frames_or_the_names_of_the_source(tmp_path: Path) -> None:
    source = open_video(write_clip(tmp_path / "a.mp4", noise(3), audio="aac"))
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "notes.txt").write_text("kept")
    for name in ("new/folder", "there"):
        write_video_like(tmp_path / name, source, flat(source))
        files = sorted(tmp_path.glob(f"{name}/*.png"))
        assert [file.name for file in files] == ["00000.png", "00001.png", "00002.png"]
        folder = open_video(tmp_path / name)
        for frame, wanted in zip(folder, flat(folder), strict=True):
            assert (frame - wanted).abs().max() < 0.51 / 255
    assert (tmp_path / "there" / "notes.txt").exists() and not list(tmp_path.glob(".*"))
    (tmp_path / "named").mkdir()
    for name in ("shot2.jpg", "shot10.jpg"):
        Image.fromarray(noise(1)[0]).save(tmp_path / "named" / name)
    source = open_video(tmp_path / "named")
    write_video_like(tmp_path / "edited", source, flat(source))
    assert sorted(file.name for file in (tmp_path / "edited").iterdir()) == ["shot10.png", "shot2.png"]
    write_video_like(tmp_path / "c.mp4", source, flat(source))
    written = seen(tmp_path / "c.mp4", source)
    assert written.rate == 24 and written.colours == Colours(1, 6, 1, 1)


def test_frames_of_a_folder_keep_their_transparency_in_a_folder(tmp_path: Path, caplog) -> None:
    folder, opacity = tmp_path / "in", np.arange(32 * 48, dtype=np.uint32).reshape(32, 48).astype(np.uint8)
    folder.mkdir()
    for index, (pixels, alpha) in enumerate(zip(noise(2), (opacity, None), strict=True)):
        Image.fromarray(pixels if alpha is None else np.dstack([pixels, alpha])).save(folder / f"{index}.png")
    source = open_video(folder)
    check_video_output(tmp_path / "out", source)
    assert not caplog.messages
    write_video_like(tmp_path / "out", source, flat(source))
    first, second = (read_picture(tmp_path / "out" / f"{index}.png") for index in (0, 1))
    assert first.alpha is not None and torch.equal((first.alpha * 255).round().byte(), torch.from_numpy(opacity))
    assert second.alpha is None
    check_video_output(tmp_path / "out.mp4", source)
    assert [message for message in caplog.messages if "transparent, which only a folder" in message]


def test_outputs_are_refused_before_the_work(tmp_path: Path) -> None:
    source = open_video(write_clip(tmp_path / "a.mp4", noise(2)))
    (tmp_path / "full").mkdir()
    Image.fromarray(noise(1)[0]).save(tmp_path / "full" / "00000.png")
    (tmp_path / "file").touch()
    cases = {"b.gif": r"\.mp4, \.m4v", "b.txt": "not written as .txt", "file": "without extension",
             "file/b.mp4": "file is not a folder", "file/folder": "file is not a folder",
             "full": "holds pictures already", "a.mp4": "source itself", "run.2": "must exist"}  # fmt: skip
    for name, said in cases.items():
        with pytest.raises(ValueError, match=said) as raised:
            check_video_output(tmp_path / name, source)
        assert str(tmp_path / name) in str(raised.value)
    for name in ("new/b.MP4", "new/folder"):
        check_video_output(tmp_path / name, source)
    assert not (tmp_path / "new").exists()
