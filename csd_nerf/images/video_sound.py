"""The soundtrack of a video, cut to the span of its selected frames: copied where possible, else encoded.

Encoders and containers refuse more than they document: which way works is found out by writing the beginning to memory.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from typing import Any

from csd_nerf.images.video_reading import VideoSource

log = logging.getLogger("csd_nerf.images")
CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""Extensions that are written, with FFmpeg's name of the container."""
COPIED: dict[str, tuple[str, ...] | None] = {
    ".mp4": ("aac", "mp3", "mp3float", "ac3", "eac3", "alac", "opus", "libopus"),
    ".m4v": ("aac", "mp3", "mp3float", "ac3", "eac3", "alac"),
    ".mov": ("aac", "mp3", "mp3float", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s24le", "pcm_s16be", "pcm_s24be"),
    ".mkv": None,
    ".webm": ("opus", "libopus", "vorbis"),
}
"""Codecs whose packets are copied, by extension, as players expect them; None for all."""
_LEAD = Fraction(1, 10)
"""Sound that may come before the first frame of a video, in seconds: what encoders put before the beginning."""


_TRIED = Fraction(1, 2)
"""Seconds that are written to find out whether the rest can be."""
_MOST_RATE, _COMMON_RATE = 96000, 48000


@dataclass(frozen=True)
class SoundWay:
    """How a soundtrack gets into a file."""

    codec: str | None = None
    """Of the encoder; None copies the packets."""
    rate: int = 0
    """Samples per second, where it is encoded."""
    layout: str = ""
    """Channels, by FFmpeg's name, where it is encoded."""
    loses: str = ""
    """What is not as it was, in words; empty where nothing is lost but to the encoder."""


def sound_way(source: VideoSource, suffix: str) -> SoundWay:
    """How the source's soundtrack is written to files of this extension: as much as it was as they can hold.

    Raises `ValueError` if they cannot hold it at all.
    """
    import av

    with av.open(str(source.path), metadata_errors="replace") as container:
        context = _sounding(container).codec_context
        kind = f"{context.name}, {context.sample_rate} Hz, {context.layout.name}"
        ways = list(_ways(context, suffix))
    refused: Exception | None = None
    for way in ways:
        try:
            with (
                av.open(BytesIO(), "w", format=CONTAINERS[suffix]) as output,
                Soundtrack(source, output, way) as sound,
            ):
                output.start_encoding()
                sound.write_until(_TRIED)
            return way
        except (av.FFmpegError, ValueError, OSError, RuntimeError) as error:
            refused = error
    raise ValueError(
        f"the sound of {source.path} ({kind}) cannot be written to {suffix} ({refused}): give .mkv, or a folder, "
        "which has no sound"
    )


def _ways(source: Any, suffix: str) -> Iterator[SoundWay]:
    """From the best one down. Opus has 48 kHz in any case, and here one or two channels."""
    if COPIED[suffix] is None or source.name in (COPIED[suffix] or ()):
        yield SoundWay()
    channels, own = len(source.layout.channels), source.layout.name
    plain = "mono" if channels == 1 else "stereo"
    mixed = f"{channels} channels become 2" if channels > 2 else ""
    if suffix == ".webm":
        yield SoundWay("libopus", 48000, plain, mixed)
        return
    rates = {_COMMON_RATE: f"{source.sample_rate} Hz become {_COMMON_RATE} Hz"}
    if source.sample_rate <= _MOST_RATE:
        rates = {source.sample_rate: ""} | ({} if source.sample_rate == _COMMON_RATE else rates)
    for layout, fewer in ((own, ""), (plain, mixed)):
        for rate, other in rates.items():
            yield SoundWay("aac", rate, layout, ", ".join(filter(None, (fewer, other))))


def _sounding(container: Any) -> Any:
    return next(stream for stream in container.streams.audio if stream.codec_context is not None)


class Soundtrack:
    """The first soundtrack of a source, as packets of an output file, in step with the pictures."""

    def __init__(self, source: VideoSource, output: Any, way: SoundWay) -> None:
        import av

        self.damaged = 0
        """Packets that could not be decoded and were passed over."""
        self._input = av.open(str(source.path), metadata_errors="replace")
        self._stream, self._output = _sounding(self._input), output
        self._from = source.start - (_LEAD if source.indices[0] == 0 else 0)
        self._start, self._end = source.start, source.start + source.duration
        if way.codec is None:
            added = getattr(output, "add_stream_from_template", None)  # before PyAV 14, add_stream did that too
            self._target = added(self._stream) if added else output.add_stream(template=self._stream)
            self._packets = self._copied()
        else:
            bits = 160_000 if way.codec == "libopus" else 96_000 * len(av.AudioLayout(way.layout).channels)
            self._target = output.add_stream(way.codec, rate=way.rate, layout=way.layout, bit_rate=bits)
            self._packets = self._encoded()
        self._next: tuple[Fraction, Any] | None = None

    def __enter__(self) -> "Soundtrack":
        return self

    def __exit__(self, *_: object) -> None:
        self._input.close()

    def write_until(self, time: Fraction | None) -> None:
        """Write what is heard before `time`, in seconds after the first frame; None for all that is left."""
        while True:
            self._next = next(self._packets, None) if self._next is None else self._next
            if self._next is None or (time is not None and self._next[0] >= time):
                return
            self._output.mux(self._next[1])
            self._next = None

    def _copied(self) -> Iterator[tuple[Fraction, Any]]:
        for packet in self._input.demux(self._stream):
            unit = packet.time_base
            if packet.pts is None or packet.dts is None or unit is None:
                continue
            time = packet.pts * unit
            if time >= self._end:
                return
            if time >= self._from:
                shift = round(self._start / unit)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = self._target
                yield time - self._start, packet

    def _encoded(self) -> Iterator[tuple[Fraction, Any]]:
        time = Fraction(0)
        for frame in self._decoded():
            unit = frame.time_base
            if frame.pts is None or unit is None:
                continue
            time = frame.pts * unit
            if time >= self._end:
                break
            if time >= self._start:
                frame.pts -= round(self._start / unit)
                for packet in self._target.encode(frame):
                    yield time - self._start, packet
        for packet in self._target.encode(None):
            yield time - self._start, packet

    def _decoded(self) -> Iterator[Any]:
        """What can be decoded: the rest of the sound is not worth less for a packet that is damaged."""
        import av

        for packet in self._input.demux(self._stream):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                self.damaged += 1
                continue
            yield from frames
