"""Videos and folders of frames as streams of pictures, with all that is needed to write the same video again.

Frames come upright, one by one, so that memory does not grow with the length. They are R'G'B' in [0, 1] of the video's
own primaries and transfer curve (those of HDR are not brought to sRGB). Transparency is not among them: it is read by
itself, when frames are written to a folder. A video is decoded when it is opened, without keeping its frames:
only that tells how many there are and when each is shown.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.images.frame_range import FrameRange
from csd_nerf.images.picture_files import PICTURES, has_transparency, in_order, picture_size, read_picture, upright
from csd_nerf.images.video_colours import BT709, LIMITED, RGB, Colours, to_rgb
from csd_nerf.images.video_decoding import BrokenVideo, Scan, decoded, is_picture, opened, scan

FOLDER_RATE = Fraction(24)
"""Frames per second of a folder of frames, which says none."""
ALL = FrameRange()
"""Every frame."""


@dataclass(frozen=True)
class VideoSource:
    """Some frames of a video, or of a folder of frames. Each loop over it reads them anew, in order.

    Frames are (3, h, w), float32 in [0, 1] on the CPU. A frame that cannot be read raises `ValueError`.
    """

    path: Path
    """The video, or the folder."""
    height: int
    """In pixels, upright."""
    width: int
    """In pixels, upright."""
    rate: Fraction
    """Selected frames per second: the source's rate over the step where that is constant, else their mean rate."""
    timestamps: tuple[Fraction, ...]
    """When each selected frame is shown, in seconds after the first."""
    duration: Fraction
    """Seconds from the first selected frame to when the frame after the last one would come, or the end."""
    variable_rate: bool
    """Whether the frames come at no constant rate."""
    colours: Colours
    """Range, matrix, primaries and transfer curve, as far as the source says."""
    pixel_aspect: Fraction = Fraction(1)
    """Width of a pixel over its height, upright."""
    orientation: int = 1
    """EXIF orientation of the stored frames, which is applied."""
    has_audio: bool = False
    """Whether there is a soundtrack."""
    start: Fraction = Fraction(0)
    """When the first selected frame is shown, in seconds of the file's clock; for the soundtrack."""
    time_base: Fraction = Fraction(1, 24)
    """The unit in which the file counts time, in seconds."""
    indices: range = range(0)
    """Which frames of the video or folder these are, from 0."""
    files: tuple[Path, ...] = field(default=(), repr=False)
    """The selected frames of a folder; empty for a video."""
    transparent: bool = False
    """Whether any of the frames has an alpha channel. (Of VP9 in WebM, which keeps it apart, FFmpeg shows none.)"""
    soundtracks: int = 0
    """How many there are."""

    @property
    def count(self) -> int:
        """How many frames are selected."""
        return len(self.timestamps)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Float[Tensor, "3 h w"]]:
        return self._from_files() if self.files else self._from_video()

    def alphas(self) -> Iterator[Float[Tensor, "h w"] | None]:
        """How opaque each selected frame is, in [0, 1]; None for those that say nothing of it."""
        if self.files:
            for file in self.files:
                yield read_picture(file).alpha if has_transparency(file) else None
            return
        for frame in self._frames() if self.transparent else ():
            alpha = torch.from_numpy(frame.to_ndarray(format="rgba")[..., 3]).float() / 255
            yield upright(alpha[None], self.orientation)[0].contiguous()
        if not self.transparent:
            yield from itertools.repeat(None, self.count)

    def _from_files(self) -> Iterator[Float[Tensor, "3 h w"]]:
        for file in self.files:
            yield read_picture(file).image

    def _from_video(self) -> Iterator[Float[Tensor, "3 h w"]]:
        colours = None
        for frame in self._frames():
            colours = self.colours.resolved(frame.height) if colours is None else colours
            yield upright(to_rgb(frame, colours), self.orientation).contiguous()

    def _frames(self) -> Iterator[Any]:
        """The selected ones as PyAV decodes them."""
        wanted = iter(self.indices)
        index = next(wanted, None)
        try:
            for number, frame in enumerate(decoded(self.path)):
                if number == index:
                    yield frame
                    index = next(wanted, None)
                if index is None:
                    return
        except BrokenVideo:
            pass
        raise ValueError(f"{self.path} can no longer be read at frame {index}: was it changed meanwhile?")


def open_video(
    path: Path,
    frames: FrameRange = ALL,
    max_frames: int | None = None,
    *,
    folder_rate: Fraction = FOLDER_RATE,
) -> VideoSource:
    """The video at `path`, or the folder of frames (in the order of their names, numbers by value), or some of it.

    Args:
        path: Any file that FFmpeg reads, or a folder of pictures of one size.
        frames: Which frames.
        max_frames: At most the first so many of those.
        folder_rate: Frames per second if it is a folder.

    Raises `ValueError` that names the file, before any frame is kept, if it is missing, empty, no video, damaged in the
    frames asked for, or a folder without pictures or with pictures of several sizes, and if no frame is selected.
    """
    if max_frames is not None and max_frames < 1:
        raise ValueError(f"--max-frames {max_frames}: give at least 1")
    if not path.exists():
        raise ValueError(f"{path} does not exist: give a video, or a folder of frames")
    if path.is_dir():
        return _open_folder(path, frames, max_frames, folder_rate)
    if path.is_file() and path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes): give a video, or a folder of frames")
    return _open_file(path, frames, max_frames)


def _selected(path: Path, frames: FrameRange, max_frames: int | None, number: int, complete: bool = True) -> range:
    indices = frames.indices(number, max_frames)
    if not indices:
        has = f", which has {number} frames, numbered from 0" if complete else ""
        raise ValueError(f"--frames {frames} selects nothing of {path}{has}: give another range")
    return indices


def _open_folder(path: Path, frames: FrameRange, max_frames: int | None, rate: Fraction) -> VideoSource:
    files = in_order([file for file in path.iterdir() if is_picture(file)])
    if not files:
        raise ValueError(f"{path} holds no pictures ({', '.join(PICTURES)}): give a video, or a folder of frames")
    if rate <= 0:
        raise ValueError(f"{path}: a rate of {rate} frames per second: give one above 0")
    indices = _selected(path, frames, max_frames, len(files))
    chosen = [files[index] for index in indices]
    stems: dict[str, Path] = {}
    height, width = picture_size(chosen[0])
    for file in chosen:
        if file.stem in stems:
            raise ValueError(f"{path} holds two frames of one name, {stems[file.stem].name} and {file.name}: keep one")
        stems[file.stem] = file
        size = picture_size(file)
        if size != (height, width):
            raise ValueError(
                f"{path}: {chosen[0].name} has {width} x {height} pixels, {file.name} {size[1]} x {size[0]}: "
                "bring them to one size"
            )
    times = tuple(index / rate for index in range(0, len(chosen) * frames.step, frames.step))
    stop = frames.end(len(files), max_frames)
    # Pictures are sRGB, which videos of the primaries of BT.709 are shown as.
    return VideoSource(
        path,
        height,
        width,
        rate / frames.step,
        times,
        (stop - indices[0]) / rate,
        variable_rate=False,
        colours=Colours(LIMITED, RGB, BT709, BT709),
        time_base=1 / rate,
        indices=indices,
        files=tuple(chosen),
        transparent=any(has_transparency(file) for file in chosen),
    )


def _open_file(path: Path, frames: FrameRange, max_frames: int | None) -> VideoSource:
    with opened(path) as (container, stream):
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        soundtracks = sum(audio.codec_context is not None for audio in container.streams.audio)
    bound = frames.bound(max_frames)
    most = None if bound is None else bound + frames.step  # some more tell when the last one ends
    found = scan(path, most)
    number = len(found.times)
    if found.broken and (bound is None or number < bound):
        raise ValueError(
            f"{path} is damaged or cut short: {number} frames can be read: give --frames 0:{number}, or another copy"
        )
    indices = _selected(path, frames, max_frames, number, number != most)
    times = tuple(found.times[index] - found.times[indices[0]] for index in indices)
    stop = frames.end(number, max_frames)
    end = found.times[stop] if stop < number else found.end
    height, width = found.size
    turned = found.orientation > 4
    return VideoSource(
        path,
        *((width, height) if turned else (height, width)),
        _rate(found, times, frames.step),
        times,
        end - found.times[indices[0]],
        variable_rate=found.variable_rate,
        colours=found.colours,
        pixel_aspect=1 / aspect if turned else aspect,
        orientation=found.orientation,
        has_audio=soundtracks > 0,
        start=found.times[indices[0]],
        time_base=found.time_base,
        indices=indices,
        transparent=found.transparent,
        soundtracks=soundtracks,
    )


def _rate(found: Scan, times: tuple[Fraction, ...], step: int) -> Fraction:
    if found.variable_rate and len(times) > 1:
        return (len(times) - 1) / times[-1]
    return found.rate / step
