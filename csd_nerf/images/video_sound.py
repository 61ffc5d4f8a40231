"""The soundtrack of a video, cut to the span of its selected frames: copied where possible, else encoded."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from csd_nerf.images.video_reading import VideoSource

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


class Soundtrack:
    """The first soundtrack of a source, as packets of an output file, in step with the pictures."""

    def __init__(self, source: VideoSource, output: Any, suffix: str) -> None:
        import av

        self._input = av.open(str(source.path), metadata_errors="replace")
        self._stream = next(s for s in self._input.streams.audio if s.codec_context is not None)
        self._output = output
        self._from = source.start - (_LEAD if source.indices[0] == 0 else 0)
        self._start, self._end = source.start, source.start + source.duration
        copied = COPIED[suffix]
        if copied is None or self._stream.codec_context.name in copied:
            added = getattr(output, "add_stream_from_template", None)  # before PyAV 14, add_stream did that too
            self._target = added(self._stream) if added else output.add_stream(template=self._stream)
            self._packets = self._copied()
        else:
            self._target = _encoder(output, self._stream.codec_context, suffix)
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
        for frame in self._input.decode(self._stream):
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


def _encoder(output: Any, source: Any, suffix: str) -> Any:
    """AAC as many channels as there were; Opus knows few rates and layouts, and gets 48 kHz, one or two channels."""
    channels = len(source.layout.channels)
    if suffix == ".webm":
        layout = "mono" if channels == 1 else "stereo"
        return output.add_stream("libopus", rate=48000, layout=layout, bit_rate=160_000)
    rate = source.sample_rate if source.sample_rate <= 96000 else 48000
    return output.add_stream("aac", rate=rate, layout=source.layout.name, bit_rate=96_000 * channels)
