"""Videos and folders of frames, written as the source that they were made of: time, size, colours and sound stay.

H.264 in MP4, MOV and MKV, VP9 in WebM; numbered PNG in a folder, as transparent as the frames were.
Everything is written beside its place and moved there when it is complete.
"""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.images.picture_files import check_place, write_picture
from csd_nerf.images.video_colours import RGB, Colours, to_frame
from csd_nerf.images.video_decoding import is_picture
from csd_nerf.images.video_reading import VideoSource
from csd_nerf.images.video_sound import CONTAINERS, Soundtrack, log, sound_way
from csd_nerf.whole_files import write_atomically

# x264's macroblock tree, and several threads, now and then make another file of the same frames.
_H264 = {"crf": "16", "preset": "medium", "x264-params": "no-mbtree=1"}
_VP9 = {"crf": "20", "deadline": "good", "cpu-used": "3", "threads": "1"}


def check_video_output(path: Path, source: VideoSource | None = None) -> None:
    """Raise `ValueError` that names `path` if no video can be written there; called before any long work.

    A path without extension, or a folder that there is, gets numbered PNG; it must not hold pictures, with which
    they would mix. With `source`, for its own place and for what the format cannot keep of it too, among which are
    frames of a size that the encoder refuses; for sound that is kept with fewer channels or at another rate, further
    soundtracks, and transparency, which are not kept, a warning is logged.
    """
    _check(path, source)
    suffix = path.suffix.lower()
    if source is not None and source.has_audio and not path.is_dir() and suffix:
        way = sound_way(source, suffix)
        if way.loses:
            log.warning("%s: of the sound of %s, %s", path, source.path, way.loses)
        if source.soundtracks > 1:
            log.warning("%s: of the %d soundtracks of %s the first is kept", path, source.soundtracks, source.path)
    if source is not None and not path.is_dir() and suffix in CONTAINERS:
        if source.transparent:
            log.warning("%s: the frames of %s are transparent, which only a folder as OUT keeps", path, source.path)
        _try_encoder(path, source)


def _try_encoder(path: Path, source: VideoSource) -> None:
    """Encode one frame of the source's size to memory: encoders refuse more than they document."""
    import av

    stored, tags = _colours(source)
    try:
        with av.open(BytesIO(), "w", format=CONTAINERS[path.suffix.lower()]) as container:
            stream = _video_stream(container, source, tags, _ticks(source)[0], path.suffix.lower())
            frame = to_frame(torch.zeros(3, source.height, source.width), stored, stream.pix_fmt)
            frame.pts, frame.time_base = 0, _ticks(source)[0]
            frame.color_range, frame.colorspace = tags.range, tags.matrix
            container.mux([*stream.encode(frame), *stream.encode(None)])
    except av.FFmpegError as error:
        raise ValueError(
            f"{path}: frames of {source.width} x {source.height} pixels cannot be encoded there ({error}): give "
            "another kind of file, a folder, or smaller frames"
        ) from error


def _check(path: Path, source: VideoSource | None) -> None:
    suffix = path.suffix.lower()
    if source is not None and path.resolve() == source.path.resolve():
        raise ValueError(f"{path} is the source itself: give another place")
    if path.is_dir() or (not suffix and not path.exists()):
        if path.is_dir() and any(is_picture(file) for file in path.iterdir()):
            raise ValueError(f"{path} holds pictures already: give a new or an empty folder")
        check_place(path / "00000.png" if path.is_dir() else path)
        return
    if suffix not in CONTAINERS:
        kind = suffix or "files without extension"
        raise ValueError(
            f"{path}: videos are not written as {kind}: give one of {', '.join(CONTAINERS)}, or a folder (which must "
            "exist if there is a dot in its name)"
        )
    check_place(path)
    _check_codecs(path)
    if source is not None and suffix == ".webm" and source.pixel_aspect != 1:
        raise ValueError(
            f"{path}: the pixels of {source.path} are {source.pixel_aspect} times as wide as high, which WebM does not "
            "keep: give .mp4, .mov or .mkv"
        )


def write_video_like(path: Path, source: VideoSource, frames: Iterable[Float[Tensor, "3 h w"]]) -> None:
    """Write `frames`, one for each of `source`'s and of its size, to a video or folder; they are taken one by one.

    Kept are times (a varying rate as exactly as the container counts: MKV and WebM in milliseconds), size, shape of
    pixels, range, matrix, primaries and transfer curve (said for R'G'B' sources and frames that were turned), and the
    first soundtrack, cut at whole packets to the span of the selected frames: copied where the container takes it, else
    as AAC (MP4, MOV) or Opus (WebM), where that must be with fewer channels or another rate. Damaged packets of it are
    passed over, and a warning is logged. Frames have 8 bits, and colour at half resolution (yuv420p); H.264 of an odd
    side needs yuv444p, which browsers and some players do not show: give even sides, or WebM, for those.

    The same frames make the same file. If `frames` raises, or anything else does, nothing is left behind.

    Args:
        path: As `check_video_output` allows, or `ValueError`.
        source: What the frames were made of.
        frames: (3, h, w) in [0, 1]; another number or size than the source's raises `ValueError`.
    """
    import av

    _check(path, source)
    checked = _checked(frames, source)
    if path.is_dir() or not path.suffix:
        _write_folder(path, source, checked)
        return
    try:
        write_atomically(path, lambda temporary: _write_file(temporary, source, checked))
    except av.FFmpegError as error:
        if isinstance(error, OSError):  # such as a full disk, which says it by itself
            raise
        raise ValueError(f"{path} could not be encoded ({error}): give another kind of file, or a folder") from error


def _checked(frames: Iterable[Float[Tensor, "3 h w"]], source: VideoSource) -> Iterator[Float[Tensor, "3 h w"]]:
    number = 0
    for number, frame in enumerate(frames, 1):
        height, width = frame.shape[-2:]
        if number > source.count:
            break
        if (height, width) != (source.height, source.width):
            raise ValueError(
                f"frame {number - 1} has {width} x {height} pixels, those of {source.path} {source.width} x "
                f"{source.height}: bring it to that size"
            )
        yield frame
    if number != source.count:
        other = "more" if number > source.count else f"only {number}"
        raise ValueError(
            f"{source.count} frames are selected of {source.path}, {other} are to be written: give as many"
        )


def _write_folder(path: Path, source: VideoSource, frames: Iterator[Float[Tensor, "3 h w"]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    try:
        alphas = source.alphas()
        for number, frame in enumerate(frames):
            file, alpha = source.files[number] if source.files else None, next(alphas)
            write_picture(temporary / f"{f'{number:05d}' if file is None else file.stem}.png", frame, alpha)
        temporary.chmod(0o755)  # mkdtemp makes folders that only their owner reads
        if path.is_dir():
            for file in sorted(temporary.iterdir()):
                os.replace(file, path / file.name)
        else:
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_file(path: Path, source: VideoSource, frames: Iterator[Float[Tensor, "3 h w"]]) -> None:
    import av

    suffix = path.suffix.lower()
    stored, tags = _colours(source)
    unit, stamps, durations = _ticks(source)
    # Without bitexact, Matroska gives every file an identity drawn at random.
    options = {"fflags": "+bitexact", "movflags": "+faststart"}
    options = options if suffix in (".mp4", ".m4v", ".mov") else {"fflags": "+bitexact"}
    with ExitStack() as stack:
        container = stack.enter_context(av.open(str(path), "w", format=CONTAINERS[suffix], options=options))
        stream = _video_stream(container, source, tags, unit, suffix)
        sound = None
        if source.has_audio:
            sound = stack.enter_context(Soundtrack(source, container, sound_way(source, suffix)))
        for frame, stamp, time in zip(frames, stamps, source.timestamps, strict=True):
            encoded = to_frame(frame, stored, stream.pix_fmt)
            encoded.pts, encoded.time_base = stamp, unit
            encoded.color_range, encoded.colorspace = tags.range, tags.matrix
            _mux(container, stream.encode(encoded), durations)
            if sound is not None:
                sound.write_until(time)
        _mux(container, stream.encode(None), durations)
        if sound is not None:
            sound.write_until(None)
            if sound.damaged:
                log.warning("%s: damaged packets of its sound that were passed over: %d", source.path, sound.damaged)


def _mux(container: Any, packets: list[Any], durations: dict[int, int]) -> None:
    for packet in packets:
        packet.duration = durations[packet.pts]  # the encoder does not know for how long the last frame stays
        container.mux(packet)


def _video_stream(container: Any, source: VideoSource, tags: Colours, unit: Fraction, suffix: str) -> Any:
    vp9 = suffix == ".webm"
    rate = source.rate.limit_denominator(100_000)
    stream = container.add_stream("libvpx-vp9" if vp9 else "libx264", rate=rate, options=dict(_VP9 if vp9 else _H264))
    even = source.width % 2 == 0 and source.height % 2 == 0
    stream.width, stream.height = source.width, source.height
    stream.pix_fmt = "yuv420p" if even or vp9 else "yuv444p"
    context = stream.codec_context
    context.thread_count = 1
    context.time_base = stream.time_base = unit
    context.sample_aspect_ratio = source.pixel_aspect
    context.color_range, context.colorspace = tags.range, tags.matrix
    context.color_primaries, context.color_trc = tags.primaries, tags.transfer
    return stream


def _colours(source: VideoSource) -> tuple[Colours, Colours]:
    """What frames are stored as, and what the file says of it: as much as the source did, where that means the same."""
    turned = source.orientation > 4
    stored = source.colours.resolved(source.width if turned else source.height)
    return stored, stored if turned or source.colours.matrix == RGB else source.colours


def _ticks(source: VideoSource) -> tuple[Fraction, list[int], dict[int, int]]:
    """Unit of time in seconds, the frames' times in it, and by time for how long each stays."""
    unit = source.time_base if source.variable_rate else 1 / (source.rate * source.indices.step)
    stamps = [round(time / unit) for time in source.timestamps]
    end = max(round(source.duration / unit), stamps[-1] + 1)
    return unit, stamps, {a: b - a for a, b in zip(stamps, [*stamps[1:], end], strict=True)}


def _check_codecs(path: Path) -> None:
    import av

    codec = "libvpx-vp9" if path.suffix.lower() == ".webm" else "libx264"
    if codec not in av.codecs_available:
        raise ValueError(
            f"{path}: this PyAV has no encoder {codec}: give a folder, or install the wheel of `av` from PyPI"
        )
