"""Frames with an alpha channel, in videos and in folders."""

from pathlib import Path

import av
import numpy as np
import torch

from csd_nerf.images.picture_files import read_picture
from csd_nerf.images.video_reading import open_video
from csd_nerf.images.video_writing import check_video_output, write_video_like
from tests.images.clips import noise, write_clip


def write_transparent(path: Path, frames: list[np.ndarray], opacity: list[np.ndarray], rotation: int = 0) -> Path:
    """As QuickTime's Animation, which has no loss."""
    clips = [av.VideoFrame.from_ndarray(np.dstack([a, f]), "argb") for f, a in zip(frames, opacity, strict=True)]
    return write_clip(path, clips, codec="qtrle", layout="argb", rotation=rotation)


def test_transparency_of_a_video_is_kept_in_a_folder_and_else_missed_aloud(tmp_path: Path, caplog) -> None:
    opacity = [np.full((32, 48), 40 * index, np.uint8) for index in range(4)]
    opacity[2][:, :9] = 255
    source = open_video(write_transparent(tmp_path / "a.mov", noise(4), opacity))
    assert source.transparent and not caplog.messages
    some = open_video(tmp_path / "a.mov", max_frames=3)
    check_video_output(tmp_path / "out", some)
    write_video_like(tmp_path / "out", some, iter(some))
    for index in range(3):
        found = read_picture(tmp_path / f"out/{index:05d}.png")
        assert found.alpha is not None and np.array_equal((found.alpha * 255).round().byte().numpy(), opacity[index])
        assert (found.image - list(some)[index]).abs().max() < 0.003
    check_video_output(tmp_path / "out.mp4", source)
    assert [message for message in caplog.messages if "transparent, which only a folder as OUT keeps" in message]


def test_transparency_is_turned_as_the_frames_are(tmp_path: Path) -> None:
    opacity = np.zeros((32, 48), np.uint8)
    opacity[:8] = 255
    source = open_video(write_transparent(tmp_path / "a.mov", noise(1), [opacity], rotation=90))
    (alpha,), (frame,) = source.alphas(), source
    assert alpha is not None and alpha.shape == frame.shape[1:] == (48, 32)
    edge = torch.stack([alpha[:, :8], alpha[:, -8:]])
    assert sorted(edge.mean(dim=(1, 2)).tolist()) == [0, 1], "what was above is now at one side"


def test_frames_without_an_alpha_channel_have_none(tmp_path: Path) -> None:
    source = open_video(write_clip(tmp_path / "a.mp4", noise(2)))
    assert not source.transparent and list(source.alphas()) == [None, None]
