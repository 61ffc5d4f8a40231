from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from csd_nerf.images.writing import to_pil, write_video
from csd_nerf.metrics.pictures import paired, read_in_parts, read_pictures
from tests.metrics.fake_encoder import plain


def save(folder: Path, images: Float[Tensor, "n 3 h w"], names: list[str] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        to_pil(image).save(folder / (names[i] if names else f"{i}.png"))
    return folder


def grey(*levels: float, size: int = 4) -> Float[Tensor, "n 3 h w"]:
    return plain(*((level, level, level) for level in levels), size=size)


def test_a_folder_in_the_order_of_its_numbers(tmp_path: Path):
    folder = save(tmp_path / "a", grey(0.2, 0.4, 0.6), ["v10.png", "v2.png", "w1.png"])
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_text("no picture")
    read = read_pictures(folder, "BEFORE")
    assert read.names == ("v2", "v10", "w1") and read.kind == "pictures" and read.size == (4, 4)
    assert read.images[:, 0, 0, 0].tolist() == pytest.approx([0.4, 0.2, 0.6])


def test_a_single_picture_and_its_transparency(tmp_path: Path):
    pixels = np.zeros((2, 3, 4), np.uint8)
    pixels[:, :, 3] = [0, 255, 51]
    Image.fromarray(pixels).save(tmp_path / "a.png")
    read = read_pictures(tmp_path / "a.png", "BEFORE")
    assert read.size == (2, 3) and len(read) == 1
    assert torch.allclose(read.images[0, :, 0], torch.tensor([1, 0, 0.8]).expand(3, -1)), "on white"


def test_a_photo_is_turned_as_its_camera_says(tmp_path: Path):
    image = Image.new("RGB", (6, 4))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    assert read_pictures(tmp_path / "a.jpg", "BEFORE").size == (6, 4)


def test_a_video(tmp_path: Path):
    write_video(tmp_path / "a.mp4", list(grey(0.2, 0.5, 0.8, size=32)))
    read = read_pictures(tmp_path / "a.mp4", "AFTER")
    assert read.kind == "video" and read.names == ("0", "1", "2") and read.size == (32, 32)
    assert read.images.mean(dim=(1, 2, 3)).tolist() == pytest.approx([0.2, 0.5, 0.8], abs=0.02)


def test_what_cannot_be_read_is_named(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.png").write_text("no picture")
    (tmp_path / "a.mp4").write_text("no video")
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
    save(tmp_path / "mixed", grey(0.5))
    save(tmp_path / "mixed", grey(0.5, size=6), ["z.png"])
    for name, complaint in (
        ("none", "--truth .*none does not exist: give a picture, a folder of pictures or a video"),
        ("empty", "--truth .*empty holds no pictures"),
        ("a.png", "--truth .*a.png cannot be read as a picture"),
        ("a.mp4", "--truth .*a.mp4 cannot be read as a video"),
        ("deep.png", "has more than 8 bits a channel"),
        ("mixed", "mixed: 0.png has 4 x 4 pixels, z.png 6 x 6 pixels: bring them to one size"),
    ):
        with pytest.raises(ValueError, match=complaint):
            read_pictures(tmp_path / name, "--truth")
        with pytest.raises(ValueError, match=complaint):
            list(read_in_parts(tmp_path / name, "--truth"))


def test_parts_are_the_pictures_in_their_order(tmp_path: Path):
    folder = save(tmp_path / "a", grey(*(i / 10 for i in range(10))))
    parts = list(read_in_parts(folder, "BEFORE", 4))
    assert [len(part) for part in parts] == [4, 4, 2]
    assert torch.equal(torch.cat(parts), read_pictures(folder, "BEFORE").images)
    (folder / "5.png").write_text("no picture")
    first = read_in_parts(folder, "BEFORE", 4)
    assert torch.equal(next(first), parts[0]), "what is not asked for is not read"


def test_pairs_by_name_and_else_in_order(tmp_path: Path):
    shown = read_pictures(save(tmp_path / "a", grey(0.1, 0.2), ["3.png", "5.png"]), "AFTER")
    more = read_pictures(save(tmp_path / "b", grey(0.3, 0.4, 0.5), ["3.png", "4.png", "5.png"]), "--truth")
    others = read_pictures(save(tmp_path / "c", grey(0.6, 0.7), ["x.png", "y.png"]), "--truth")
    assert paired(more, shown).images[:, 0, 0, 0].tolist() == pytest.approx([0.3, 0.5], abs=0.01)
    assert paired(others, shown) is others
    with pytest.raises(ValueError, match=r"c has 2 pictures, .*b has 3: give as many, or files of the same names"):
        paired(others, more)
    large = read_pictures(save(tmp_path / "d", grey(0.6, 0.7, size=8)), "--truth")
    with pytest.raises(ValueError, match=r"of 8 x 8 pixels, .* of 4 x 4 pixels: bring them to one size"):
        paired(large, shown)
