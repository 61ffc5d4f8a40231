"""Pictures of 16 bits a channel whose files say more than their numbers."""

import struct
from pathlib import Path

import numpy as np
import pytest

from csd_nerf.images.picture_files import read_picture
from csd_nerf.images.regions import read_mask

WHITE_IS_ZERO, RGB, SEPARATED = 0, 2, 5
ASSOCIATED, UNASSOCIATED = 1, 2


def write_tiff(path: Path, pixels: np.ndarray, photometric: int, extra: int | None = None) -> None:
    """Baseline TIFF 6.0, little-endian, one strip without compression: tags that Pillow does not write."""
    height, width, channels = np.atleast_3d(pixels).shape
    bits, depth = [8 * pixels.dtype.itemsize] * channels, 8
    data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    lists = depth + len(data)
    tags = {256: [width], 257: [height], 258: bits, 259: [1], 262: [photometric], 273: [depth], 277: [channels]}
    tags |= {278: [height], 279: [len(data)]} | ({} if extra is None else {338: [extra]})
    directory, tail, at = b"", b"", lists
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}H", *values)
        if len(packed) > 4:
            tail, packed, at = tail + packed, struct.pack("<I", at), at + len(packed)
        directory += struct.pack("<HHI4s", tag, 3, len(values), packed.ljust(4, b"\0"))
    start = struct.pack("<2sHI", b"II", 42, at)
    path.write_bytes(start + data + tail + struct.pack("<H", len(tags)) + directory + bytes(4))


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_grey_whose_zero_is_white(tmp_path: Path, depth: type) -> None:
    most = np.iinfo(depth).max
    ramp = np.linspace(0, most, 20).astype(depth).reshape(4, 5)
    write_tiff(tmp_path / "white.tif", ramp, WHITE_IS_ZERO)
    expected = 1 - ramp / most
    assert np.allclose(read_picture(tmp_path / "white.tif").image[0], expected, atol=1e-6)
    assert np.allclose(read_mask(tmp_path / "white.tif"), expected, atol=1e-6)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_colours_that_were_multiplied_by_their_opacity(tmp_path: Path, depth: type) -> None:
    most = np.iinfo(depth).max
    pixels = np.zeros((2, 3, 4), depth)
    pixels[..., 0], pixels[..., 1], pixels[..., 3] = most // 5, most // 10, most // 2
    pixels[0, 0] = 0  # clear: no colour is known there
    for stored, factor in ((ASSOCIATED, 2.0), (UNASSOCIATED, 1.0)):
        write_tiff(tmp_path / "a.tif", pixels, RGB, stored)
        found = read_picture(tmp_path / "a.tif")
        assert found.alpha is not None and np.allclose(found.alpha[1], 0.5, atol=0.005)
        assert np.allclose(found.image[:, 1, 1], [0.2 * factor, 0.1 * factor, 0], atol=0.02)
        assert found.image[:, 0, 0].max() == found.alpha[0, 0] == 0


def test_cmyk_of_16_bits_is_read_at_8_without_a_word_of_opencv(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    inks = np.zeros((4, 4, 4), np.uint16)
    inks[..., 0] = 65535
    write_tiff(tmp_path / "cyan.tif", inks, SEPARATED)
    found = read_picture(tmp_path / "cyan.tif")
    assert found.bits == 8 and found.image[:, 0, 0].tolist() == [0, 1, 1]
    assert capfd.readouterr().err == ""
