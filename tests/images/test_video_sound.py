"""Sound that encoders or containers refuse, and sound that is damaged: found out before the work, and kept in step."""

import logging
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from csd_nerf.images import video_sound
from csd_nerf.images.video_reading import open_video
from csd_nerf.images.video_writing import check_video_output, write_video_like
from tests.images.clips import noise, sound
from tests.images.test_video_writing import flat, seen

SECONDS = 1.2


def clip(path: Path, codec: str, rate: int, layout: str, damaged: tuple[int, ...] = ()) -> Path:
    """Twelve frames at 10 a second, with a rising tone on all channels; some of its packets hold nothing of use."""
    times = np.arange(int(rate * SECONDS)) / rate
    tone = (16000 * np.sin(2 * np.pi * (400 + 300 * times) * times)).astype(np.int16)
    tone = np.repeat(tone, len(av.AudioLayout(layout).channels))[None]
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("libx264", rate=10)
        audio: Any = container.add_stream(codec, rate=rate, layout=layout)
        video.width, video.height, video.pix_fmt = 48, 32, "yuv420p"
        for pixels in noise(12):
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format="yuv420p")))
        container.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray(tone, "s16", layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        packets = [*audio.encode(frame), *audio.encode(None)]
        for number, packet in enumerate(packets):
            if number in damaged:
                bad = av.Packet(b"\x55" * packet.size)
                bad.pts, bad.dts, bad.time_base, bad.stream = packet.pts, packet.dts, packet.time_base, audio
                packet = bad
            container.mux(packet)
    return path


@pytest.mark.parametrize(
    ("codec", "rate", "layout", "said"),
    [
        ("pcm_s16le", 6000, "mono", "6000 Hz become 48000 Hz"),
        ("flac", 37800, "stereo", "37800 Hz become 48000 Hz"),
        ("pcm_s16le", 44100, "2.1", "3 channels become 2"),
        ("pcm_s16le", 48000, "6.1", "7 channels become 2"),
        ("pcm_s16le", 37800, "hexadecagonal", "16 channels become 2, 37800 Hz become 48000 Hz"),
        ("flac", 44100, "stereo", ""),
        ("flac", 44100, "5.1", ""),
    ],
)
def test_sound_that_the_encoder_refuses_is_made_what_it_takes(
    tmp_path: Path, caplog, codec: str, rate: int, layout: str, said: str
) -> None:
    source = open_video(clip(tmp_path / "a.mkv", codec, rate, layout))
    check_video_output(tmp_path / "b.mp4", source)
    assert [record.message for record in caplog.records if said in record.message] == caplog.messages
    assert len(caplog.messages) == bool(said)
    write_video_like(tmp_path / "b.mp4", source, flat(source))
    seen(tmp_path / "b.mp4", source)
    assert len(caplog.messages) == bool(said), "once, before the work"
    with av.open(str(tmp_path / "b.mp4")) as container:
        context = container.streams.audio[0].codec_context
        assert context.name == "aac" and context.sample_rate == (48000 if "Hz" in said else rate)
        channels = len(av.AudioLayout(layout).channels)
        assert len(context.layout.channels) == (2 if "channels" in said else channels)
    heard, start = sound(tmp_path / "b.mp4")
    assert abs(start + len(heard) / 48000 - SECONDS) < 0.05 and np.abs(heard[9600:48000]).mean() > 0.05


def test_damaged_packets_are_passed_over_and_the_rest_stays_in_step(tmp_path: Path, caplog) -> None:
    whole = clip(tmp_path / "a.mkv", "flac", 44100, "stereo")
    source = open_video(clip(tmp_path / "bad.mkv", "flac", 44100, "stereo", damaged=(4, 5)))
    check_video_output(tmp_path / "b.webm", source)
    write_video_like(tmp_path / "b.webm", source, flat(source))
    assert caplog.messages == [f"{source.path}: damaged packets of its sound that were passed over: 2"]
    assert caplog.records[0].levelno == logging.WARNING
    (cut, start), (reference, _) = sound(tmp_path / "b.webm"), sound(whole)
    assert 0.6 < len(cut) / 48000 < SECONDS
    before, after = cut[4800:9600], cut[-14400:-9600]
    first, last = (int(np.correlate(reference, piece, "valid").argmax()) for piece in (before, after))
    assert abs(start + 4800 / 48000 - first / 48000) < 0.02
    with av.open(str(tmp_path / "b.webm")) as container:
        times = [(frame.time, frame.samples) for frame in container.decode(audio=0)]
    end = times[-1][0] + times[-1][1] / 48000
    assert abs(end - 14400 / 48000 - last / 48000) < 0.03, "what comes after the gap is heard when it was"


def test_sound_that_no_way_writes_is_said_before_the_work(tmp_path: Path, monkeypatch) -> None:
    source = open_video(clip(tmp_path / "a.mkv", "flac", 44100, "stereo"))
    monkeypatch.setattr(video_sound, "_ways", lambda *_: [video_sound.SoundWay("aac", 1, "stereo")])
    with pytest.raises(ValueError, match=r"a\.mkv \(flac, 44100 Hz, stereo\) cannot be written to \.mp4 .*give \.mkv"):
        check_video_output(tmp_path / "b.mp4", source)
    check_video_output(tmp_path / "b", source)  # a folder has no sound
