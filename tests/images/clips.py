"""Small videos made with PyAV for the tests of reading and writing."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

KINDS = {"libx264": {"crf": "0"}, "libx264rgb": {"crf": "0"}, "libvpx-vp9": {"lossless": "1", "cpu-used": "8"}}


def noise(count: int, height: int = 32, width: int = 48) -> list[np.ndarray]:
    """Frames that all differ, smooth enough for half the colour resolution."""
    small = torch.rand((count, 3, 3, 4), generator=torch.Generator().manual_seed(0))
    frames = torch.nn.functional.interpolate(small, size=(height, width), mode="bicubic").clamp(0, 1) * 255
    return [frame.byte().permute(1, 2, 0).contiguous().numpy() for frame in frames]


def codes_frame(codes: Sequence[int], layout: str = "yuv420p", height: int = 32, width: int = 48) -> av.VideoFrame:
    """One colour, by its codes."""
    frame = av.VideoFrame(width, height, layout)
    depth = np.uint8 if frame.format.components[0].bits == 8 else np.uint16
    for plane, code in zip(frame.planes, codes, strict=True):
        plane.update(np.full(plane.buffer_size // depth().itemsize, code, depth).tobytes())
    return frame


def write_clip(
    path: Path,
    frames: Sequence[np.ndarray | av.VideoFrame],
    *,
    codec: str = "libx264",
    layout: str = "yuv420p",
    rate: Fraction | int = 10,
    stamps: Sequence[int] | None = None,
    unit: Fraction | None = None,
    audio: str | None = None,
    rotation: int = 0,
    aspect: Fraction | None = None,
    tags: tuple[int, int, int, int] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Frames at `rate`, or at `stamps` in units of `unit` seconds, with a rising tone of the same length as `audio`."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream: Any = container.add_stream(codec, rate=rate, options=dict(KINDS.get(codec, {})))
        first = frames[0]
        size = first.shape[:2] if isinstance(first, np.ndarray) else (first.height, first.width)
        stream.height, stream.width, stream.pix_fmt = *size, layout
        unit = unit or 1 / Fraction(rate)
        stream.codec_context.time_base = stream.time_base = unit
        context = stream.codec_context
        if aspect:
            context.sample_aspect_ratio = aspect
        if rotation:
            stream.set_display_rotation(rotation)
        if tags:
            context.color_range, context.colorspace, context.color_primaries, context.color_trc = tags
        sound = container.add_stream(audio, rate=48000) if audio else None
        stamps = range(len(frames)) if stamps is None else stamps
        if sound:
            _write_tone(container, sound, float((stamps[-1] + 1) * unit))
        for stamp, pixels in zip(stamps, frames, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24") if isinstance(pixels, np.ndarray) else pixels
            frame = frame if frame.format.name == layout else frame.reformat(format=layout)
            frame.pts, frame.time_base = stamp, unit
            if tags:
                frame.color_range, frame.colorspace = tags[:2]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_sound(path: Path, codec: str = "aac", seconds: float = 0.5) -> Path:
    """A file that holds only a tone."""
    with av.open(str(path), "w") as container:
        _write_tone(container, container.add_stream(codec, rate=48000), seconds)
    return path


def _write_tone(container: Any, stream: Any, seconds: float) -> None:
    times = np.arange(int(48000 * seconds)) / 48000
    tone = (0.5 * np.sin(2 * np.pi * (400 + 300 * times) * times)).astype(np.float32)
    for start in range(0, len(tone), 960):
        frame = av.AudioFrame.from_ndarray(np.stack([tone[start : start + 960]] * 2), "fltp", "stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def packets(path: Path) -> list[tuple[Fraction, bytes]]:
    """Time and content of each sound packet."""
    with av.open(str(path)) as container:
        return [
            (packet.pts * packet.time_base, bytes(packet))
            for packet in container.demux(container.streams.audio[0])
            if packet.pts is not None
        ]


def sound(path: Path) -> tuple[np.ndarray, float]:
    """Samples of the first channel at 48 kHz, and when the first of them is heard, in seconds."""
    resampler = av.AudioResampler("fltp", "mono", 48000)
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    first = frames[0].time or 0.0
    parts = [part.to_ndarray()[0] for frame in frames for part in resampler.resample(frame)]
    return np.concatenate(parts), first
