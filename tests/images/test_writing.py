"""Pictures, sheets and videos are written whole and read back as they were."""

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from csd_nerf.images.writing import contact_sheet, to_pil, write_video
from csd_nerf.whole_files import write_atomically


def test_video_reads_back_with_its_frames(tmp_path: Path) -> None:
    frames = [torch.full((3, 21, 32), i / 9) for i in range(10)]
    write_video(tmp_path / "clip.mp4", frames, fps=12, scale=2)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        stream = container.streams.video[0]
        read = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert stream.average_rate == 12
    assert len(read) == 10 and read[0].shape == (42, 64, 3)
    for expected, frame in zip(frames, read, strict=True):
        assert abs(float(frame.mean()) / 255 - float(expected.mean())) < 0.03


def test_video_takes_frames_one_by_one(tmp_path: Path) -> None:
    frames = [torch.full((3, 16, 16), i / 4) for i in range(4)]
    write_video(tmp_path / "list.mp4", frames)
    write_video(tmp_path / "made.mp4", (frame for frame in frames))
    assert (tmp_path / "list.mp4").read_bytes() == (tmp_path / "made.mp4").read_bytes()
    with pytest.raises(ValueError, match="none.mp4: a video needs at least one frame"):
        write_video(tmp_path / "none.mp4", iter(()))


def test_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(b"old")

    def fail(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_sheet_holds_every_picture_where_its_row_is() -> None:
    red, blue = (
        torch.tensor(colour, dtype=torch.float32)[:, None, None].expand(3, 8, 8) for colour in ([1, 0, 0], [0, 0, 1])
    )
    sheet = np.asarray(contact_sheet([("source", [red, red]), ("edited", [blue, blue])], scale=3))
    is_red, is_blue = (sheet == [255, 0, 0]).all(-1), (sheet == [0, 0, 255]).all(-1)
    assert is_red.sum() == is_blue.sum() == 2 * 24 * 24
    assert np.nonzero(is_red)[0].max() < np.nonzero(is_blue)[0].min()


def test_pictures_of_other_sizes_keep_their_aspect() -> None:
    red, blue, green = (torch.eye(3)[i][:, None, None] for i in (0, 2, 1))
    tall, wide = blue.expand(3, 16, 4), green.expand(3, 5, 20)
    sheet = np.asarray(contact_sheet([("a", [red.expand(3, 8, 8), tall, wide])], scale=3)).astype(int)
    for colour, (rows, columns) in {(0, 0, 255): (24, 6), (0, 255, 0): (6, 24)}.items():
        place = np.nonzero((abs(sheet - colour) < 40).all(-1))
        assert (np.ptp(place[0]) + 1, np.ptp(place[1]) + 1) == (rows, columns)
    with pytest.raises(ValueError, match="at least one picture"):
        contact_sheet([("a", [])])


def test_to_pil_rounds_and_clamps() -> None:
    assert to_pil(torch.tensor([[[-0.2]], [[0.5]], [[1.3]]])).getpixel((0, 0)) == (0, 128, 255)
    assert isinstance(to_pil(torch.zeros(3, 2, 2)), Image.Image)


def test_the_same_frames_make_the_same_file(tmp_path: Path):
    noise = torch.rand((1, 3, 12, 12), generator=torch.Generator().manual_seed(0))
    picture = torch.nn.functional.interpolate(noise, size=(64, 64), mode="bicubic")[0].clamp(0, 1)
    frames = [picture.roll(index, 2) for index in range(36)]
    made = set()
    for index in range(6):
        write_video(tmp_path / f"{index}.mp4", frames, scale=3)
        made.add((tmp_path / f"{index}.mp4").read_bytes())
    assert len(made) == 1
