"""Frames and their times out of a video file: what opens it, which frames it has, where it breaks off."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from csd_nerf.images.picture_files import PICTURES
from csd_nerf.images.video_colours import Colours, colours_of

_TURNS = {
    (1, 0, 0, 1): 1,
    (-1, 0, 0, 1): 2,
    (-1, 0, 0, -1): 3,
    (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5,
    (0, 1, -1, 0): 6,
    (0, -1, -1, 0): 7,
    (0, -1, 1, 0): 8,
}
"""EXIF orientation by the signs of a display matrix `(a, b, c, d)`: x to (a, b), y (down) to (c, d)."""
_ATTACHED_PICTURE = 0x400
"""FFmpeg's disposition of a cover."""
_TEXT = ("tty", "ass", "srt", "webvtt")
"""What FFmpeg shows as a video, or opens, and is text."""


class BrokenVideo(Exception):
    """The video breaks off, or is damaged, after the frames that were read."""


@dataclass(frozen=True)
class Scan:
    """What decoding tells of a video."""

    times: tuple[Fraction, ...]
    """When each frame that was decoded is shown, in seconds of the file's own clock."""
    end: Fraction
    """When the last of them ends."""
    time_base: Fraction
    """Unit of the times in the file, in seconds."""
    rate: Fraction
    """Frames per second: exact for a constant rate, else the mean."""
    variable_rate: bool
    """Whether the times differ from a constant rate by more than the file's unit."""
    size: tuple[int, int]
    """Height and width as stored."""
    colours: Colours
    """As the first frame says."""
    orientation: int
    """EXIF orientation of the stored frames."""
    broken: bool
    """Whether the file breaks off after these frames."""
    transparent: bool
    """Whether the frames have an alpha channel."""


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """PyAV's container and its video stream. Raises `ValueError` that names the file and what is wrong with it."""
    import av

    try:
        container = av.open(str(path), metadata_errors="replace")
    except (av.FFmpegError, ValueError, OSError) as error:
        raise ValueError(
            f"{path} cannot be opened as a video ({_reason(error)}): it is of another kind, damaged or cut short: "
            "give an MP4, MOV, MKV, WebM, AVI or GIF, or a folder of frames"
        ) from error
    with container:
        streams = [stream for stream in container.streams.video if not _is_cover(stream)]
        if not streams or container.format.name in _TEXT:
            what = "only sound" if container.streams.audio else "no pictures"
            raise ValueError(f"{path} holds {what}: give a video, or a folder of frames")
        if container.format.name.startswith("image2") or container.format.name.endswith("_pipe"):
            raise ValueError(f"{path} is one picture: give a video, or the folder with the frames")
        if streams[0].codec_context is None:
            raise ValueError(f"{path} has a codec that is not known here: convert it to H.264")
        yield container, streams[0]


def decoded(path: Path) -> Iterator[Any]:
    """The video's frames one by one, as PyAV decodes them.

    Raises `BrokenVideo` where it breaks off. What cannot be decoded before the first frame is passed over: a recording
    may begin amid a group of pictures.
    """
    import av

    with opened(path) as (container, stream):
        stream.thread_type = "AUTO"
        started, packets = False, container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                # The last packet of a file that was cut is short, and decoders fill up such a frame with guesses.
                frames = stream.decode(None) if packet.is_corrupt else stream.decode(packet)
            except av.FFmpegError as error:
                if started:
                    raise BrokenVideo from error
                continue
            for frame in frames:
                started = True
                yield frame
            if packet.is_corrupt:
                raise BrokenVideo
        if _breaks_off(path, container, stream):
            raise BrokenVideo


def scan(path: Path, most: int | None) -> Scan:
    """Decode all frames, or the first `most`.

    Raises `ValueError` for a video without a frame, with one that is read in part, and with colours that are not known.
    """
    stamps: list[int | None] = []
    first, last, broken = None, None, False
    try:
        for frame in decoded(path):
            first = frame if first is None else first
            if (frame.height, frame.width) != (first.height, first.width):
                raise ValueError(
                    f"{path} changes its size at frame {len(stamps)}, from {first.width} x {first.height} to "
                    f"{frame.width} x {frame.height} pixels: give --frames 0:{len(stamps)}, or convert it to one size"
                )
            stamps.append(frame.pts)
            last = frame
            if len(stamps) == most:
                break
    except BrokenVideo:
        broken = True
    if first is None:
        raise ValueError(f"{path} has no frame that can be read: give another video")
    with opened(path) as (_, stream):
        colours, time_base = colours_of(first, stream.codec_context), stream.time_base
        times, end, rate, variable = _clock(stamps, last, stream)
    if not colours.known:
        raise ValueError(
            f"{path} has colours of matrix {colours.matrix} (ITU-T H.273), not known here: convert it to BT.709"
        )
    size = (first.height, first.width)
    transparent = any(component.is_alpha for component in first.format.components)
    return Scan(times, end, time_base, rate, variable, size, colours, _orientation(first), broken, transparent)


def _clock(stamps: list[int | None], last: Any, stream: Any) -> tuple[tuple[Fraction, ...], Fraction, Fraction, bool]:
    """Times, the end of the last frame, the rate, and whether it varies."""
    said = [rate for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate) if rate]
    unit = last.time_base or stream.time_base
    known = [stamp for stamp in stamps if stamp is not None]
    if len(known) < len(stamps) or any(b <= a for a, b in zip(known, known[1:], strict=False)):
        # Bare streams have no times, and some AVI have none for all frames: they are shown at the rate of the header.
        rate = said[0] if said else Fraction(25)
        times = tuple(index / Fraction(rate) for index in range(len(stamps)))
        return times, times[-1] + 1 / Fraction(rate), Fraction(rate), False
    times = tuple(stamp * unit for stamp in known)
    steps = {b - a for a, b in zip(known, known[1:], strict=False)}
    rates = [1 / (steps.pop() * unit)] if len(steps) == 1 else [Fraction(rate) for rate in said]
    span = times[-1] - times[0]
    for rate in rates:
        if all(abs(time - times[0] - index / rate) <= unit for index, time in enumerate(times)):
            return times, times[-1] + 1 / rate, rate, False
    rate = (len(times) - 1) / span if span else Fraction(25)
    duration = (getattr(last, "duration", 0) or 0) * unit
    return times, times[-1] + (duration or 1 / rate), rate, True


def _orientation(frame: Any) -> int:
    """EXIF orientation that the frame's display matrix asks for; 1 for none, and for one that is no quarter turn."""
    import numpy as np

    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = np.sign(np.frombuffer(data, np.int32)[:5]).tolist()
            return _TURNS.get((a, b, c, d), 1)
    return 1


def _is_cover(stream: Any) -> bool:
    """A still picture that belongs to a piece of music."""
    disposition = getattr(stream, "disposition", 0)  # PyAV has it since 14.1, and as a number since 15
    return bool(getattr(disposition, "value", disposition) & _ATTACHED_PICTURE)


def _breaks_off(path: Path, container: Any, stream: Any) -> bool:
    """Whether the file is shorter than its own headers say; not every kind tells."""
    size = path.stat().st_size
    if "matroska" in container.format.name:
        return _matroska_size(path) > size
    if container.format.name == "avi":
        with path.open("rb") as file:
            return int.from_bytes(file.read(8)[4:], "little") + 8 > size  # the length of the first RIFF chunk
    entries = getattr(stream, "index_entries", ())
    return "mov" in container.format.name and any(entry.pos + entry.size > size for entry in entries)


def _matroska_size(path: Path) -> int:
    """Bytes of a Matroska or WebM file by its headers: EBML elements of identity, length, content; 0 if not said."""

    def number(content: bytes, at: int, keep_marker: bool) -> tuple[int, int]:
        length = 9 - content[at].bit_length()
        value = int.from_bytes(content[at : at + length], "big")
        mask = (1 << 7 * length) - 1
        return (value if keep_marker else -1 if value & mask == mask else value & mask), at + length

    with path.open("rb") as file:
        content = file.read(4096)
    at, size = 0, 0
    with contextlib.suppress(IndexError):
        while True:
            identity, at = number(content, at, True)
            length, at = number(content, at, False)
            if identity == 0x18538067:  # the segment, which holds all but the header
                return at + length if length >= 0 else size
            at += length
    return size


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error).split("\n")[0]


def is_picture(path: Path) -> bool:
    """Whether the name is that of a frame in a folder."""
    return path.suffix.lower() in PICTURES and not path.name.startswith(".")
