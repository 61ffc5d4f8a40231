"""Pictures are read as a viewer shows them, and written so that they read back as they were."""

import struct
import zlib
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from csd_nerf.images.picture_files import check_picture_output, picture_size, read_picture, write_picture

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (12, 20, 3)).astype(np.uint8)
DEEP = RNG.integers(0, 65536, (12, 20, 3)).astype(np.uint16)
ALPHA = RNG.integers(0, 256, (12, 20)).astype(np.uint8)


def planes(pixels: np.ndarray) -> torch.Tensor:
    """Pixels (h w c) or (h w) as the picture that they are."""
    levels = np.iinfo(pixels.dtype).max
    pixels = np.repeat(pixels[..., None], 3, -1) if pixels.ndim == 2 else pixels
    return torch.from_numpy(pixels.astype(np.float64) / levels).permute(2, 0, 1).float()


def saved(path: Path, pixels: np.ndarray, **options: object) -> Path:
    Image.fromarray(pixels).save(path, **options)  # pyright: ignore[reportArgumentType]
    return path


def png(pixels: np.ndarray, kind: int, extra: bytes = b"") -> bytes:
    """A PNG of big-endian 16-bit samples of a colour type that no library here writes."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, kind, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra
    return start + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp"])
@pytest.mark.parametrize("grey", [False, True])
def test_eight_bits_are_exact(tmp_path: Path, name: str, grey: bool) -> None:
    pixels = COLOURS[..., 0] if grey else COLOURS
    picture = read_picture(saved(tmp_path / name, pixels))
    assert picture.alpha is None
    torch.testing.assert_close(picture.image, planes(pixels), atol=1e-7, rtol=0)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_keep_every_level(tmp_path: Path, name: str, channels: int) -> None:
    pixels = np.concatenate([DEEP, DEEP[..., :1]], -1)[..., :channels]
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]
    assert cv2.imwrite(str(tmp_path / name), pixels[..., order])
    picture = read_picture(tmp_path / name)
    torch.testing.assert_close(
        picture.image, planes(pixels[..., :3] if channels > 1 else pixels[..., 0]), atol=1e-7, rtol=0
    )
    if channels == 4:
        torch.testing.assert_close(picture.alpha, planes(pixels[..., 3])[0], atol=1e-7, rtol=0)


def test_grey_with_alpha_at_both_depths(tmp_path: Path) -> None:
    Image.fromarray(np.stack([COLOURS[..., 0], ALPHA], -1), "LA").save(tmp_path / "8.png")
    (tmp_path / "16.png").write_bytes(png(DEEP[..., :2], 4))
    for name, grey, alpha in (("8.png", COLOURS[..., 0], ALPHA), ("16.png", DEEP[..., 0], DEEP[..., 1])):
        picture = read_picture(tmp_path / name)
        torch.testing.assert_close(picture.image, planes(grey), atol=1e-7, rtol=0)
        torch.testing.assert_close(picture.alpha, planes(alpha)[0], atol=1e-7, rtol=0)


def test_palettes_and_bits_become_colours(tmp_path: Path) -> None:
    indices = (np.arange(240) % 3).reshape(12, 20).astype(np.uint8)
    palette = Image.fromarray(indices, "P")
    table = np.array([[255, 0, 0], [0, 200, 10], [1, 2, 250]], np.uint8)
    palette.putpalette(table.tobytes())
    palette.save(tmp_path / "p.png", transparency=bytes([0, 128, 255]))
    picture = read_picture(tmp_path / "p.png")
    torch.testing.assert_close(picture.image, planes(table[indices]), atol=1e-7, rtol=0)
    torch.testing.assert_close(picture.alpha, planes(np.array([0, 128, 255], np.uint8)[indices])[0], atol=1e-7, rtol=0)
    Image.fromarray(indices > 0).save(tmp_path / "1.png")
    assert torch.equal(read_picture(tmp_path / "1.png").image[1], torch.from_numpy(indices > 0).float())


@pytest.mark.parametrize(
    ("name", "deep"), [("a.png", False), ("a.tif", False), ("a.webp", False), ("a.png", True), ("a.tif", True)]
)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_camera_says_what_is_up(tmp_path: Path, name: str, deep: bool, orientation: int) -> None:
    stored = DEEP[..., 0] if deep else COLOURS
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if name == "a.webp" else {}
    saved(tmp_path / name, stored, exif=exif, **options)
    ways = {2: np.fliplr, 3: lambda x: np.rot90(x, 2), 4: np.flipud, 5: lambda x: np.rot90(np.fliplr(x)),
            6: lambda x: np.rot90(x, -1), 7: lambda x: np.rot90(np.fliplr(x), -1), 8: np.rot90}  # fmt: skip
    expected = ways.get(orientation, np.asarray)(stored)
    picture = read_picture(tmp_path / name)
    assert picture.image.shape[1:] == picture_size(tmp_path / name) == expected.shape[:2]
    torch.testing.assert_close(picture.image, planes(expected), atol=1e-7, rtol=0)


def crossed() -> bytes:
    """An RGB profile of the sRGB colours with red and green exchanged, under another name."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace("sRGB".encode("utf-16-be"), "abcd".encode("utf-16-be"))
    return profile.replace(b"rXYZ", b"tmp!").replace(b"gXYZ", b"rXYZ").replace(b"tmp!", b"gXYZ")


def test_profiles_are_applied(tmp_path: Path) -> None:
    saved(tmp_path / "8.png", COLOURS, icc_profile=crossed())
    saved(tmp_path / "alpha.png", np.concatenate([COLOURS, ALPHA[..., None]], -1), icc_profile=crossed())
    content = crossed()
    chunk = b"iCCP" + b"a\0\0" + zlib.compress(content)
    extra = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "16.png").write_bytes(png(DEEP, 2, extra))
    for name, pixels in (("8.png", COLOURS), ("alpha.png", COLOURS), ("16.png", DEEP)):
        picture = read_picture(tmp_path / name)
        assert (picture.image - planes(pixels)[[1, 0, 2]]).abs().max() < 1.6 / 255
        assert (picture.alpha is not None) == (name == "alpha.png")


def inks() -> bytes:
    """A CMYK profile under which all inks but black are invisible: L* falls from 80 to 0 with black, a* = b* = 0."""

    def tag(kind: bytes, content: bytes) -> bytes:
        return kind + bytes(4) + content + bytes(-len(content) % 4)

    ramp, name = bytes(range(256)), b"inks\0"
    corners = b"".join(bytes([0 if black else 204, 128, 128]) for _ in range(8) for black in (0, 1))
    matrix = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    table = struct.pack(">4B", 4, 3, 2, 0) + matrix + ramp * 4 + corners + ramp * 3
    tags = {
        b"desc": tag(b"desc", struct.pack(">I", len(name)) + name + bytes(78)),
        b"wtpt": tag(b"XYZ ", struct.pack(">3i", 63190, 65536, 54061)),
        b"A2B0": tag(b"mft1", table),
    }
    index, content = b"", b""
    for name, body in tags.items():
        index += name + struct.pack(">2I", 128 + 4 + 12 * len(tags) + len(content), len(body))
        content += body
    white = struct.pack(">3i", 63190, 65536, 54061)
    head = b"lcms" + bytes.fromhex("02400000") + b"prtrCMYKLab " + bytes(12) + b"acsp" + bytes(28) + white
    body = struct.pack(">I", len(tags)) + index + content
    return struct.pack(">I", 128 + len(body)) + head + bytes(124 - len(head)) + body


def test_a_jpeg_of_inks_with_their_profile(tmp_path: Path) -> None:
    """Grey of L* is Y = ((L* + 16) / 116)^3 in sRGB's curve; without its profile, 1 - black."""
    cmyk = np.zeros((16, 32, 4), np.uint8)
    cmyk[..., 0], cmyk[:, 16:, 3] = 200, 127
    for name, profile in (("plain.jpg", None), ("profile.jpg", inks())):
        Image.fromarray(cmyk, "CMYK").save(tmp_path / name, quality=100, icc_profile=profile)
    left, right = read_picture(tmp_path / "profile.jpg").image.split(16, dim=2)
    for half, lightness in ((left, 80), (right, 80 * 128 / 255)):
        linear = ((lightness + 16) / 116) ** 3
        assert (half - (1.055 * linear ** (1 / 2.4) - 0.055)).abs().max() < 3 / 255
    left, right = read_picture(tmp_path / "plain.jpg").image.split(16, dim=2)
    assert left[0].max() < 0.25 and left[1:].min() > 0.97 and right[0].max() < 0.15


def test_a_jpeg_is_turned_as_the_camera_says(tmp_path: Path) -> None:
    smooth = np.stack(np.meshgrid(np.arange(20), np.arange(12)), -1).astype(np.uint8) * 10
    stored = np.dstack([smooth, np.full((12, 20), 90, np.uint8)])
    exif = Image.Exif()
    exif[0x0112] = 6
    saved(tmp_path / "a.jpg", stored, exif=exif, quality=100, subsampling=0)
    assert picture_size(tmp_path / "a.jpg") == (20, 12)
    picture = read_picture(tmp_path / "a.jpg")
    torch.testing.assert_close(picture.image, planes(np.rot90(stored, -1)), atol=4 / 255, rtol=0)


def test_lab_and_its_profile(tmp_path: Path) -> None:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    flat = Image.fromarray(np.full((4, 4, 3), (200, 60, 30), np.uint8))
    shown = ImageCms.profileToProfile(flat, srgb, lab, outputMode="LAB")
    shown.save(tmp_path / "lab.tif", icc_profile=ImageCms.ImageCmsProfile(lab).tobytes())
    image = read_picture(tmp_path / "lab.tif").image
    assert (image[:, 0, 0] - torch.tensor([200, 60, 30]) / 255).abs().max() < 3 / 255


def test_an_srgb_profile_changes_nothing(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name in ("8.png", "16.png"):
        pixels = COLOURS if name == "8.png" else DEEP[..., 0]
        picture = read_picture(saved(tmp_path / name, pixels, icc_profile=profile))
        torch.testing.assert_close(picture.image, planes(pixels), atol=1e-7, rtol=0)
    picture = read_picture(saved(tmp_path / "broken.png", COLOURS, icc_profile=b"no profile"))
    torch.testing.assert_close(picture.image, planes(COLOURS), atol=1e-7, rtol=0)


def test_inks_without_profile(tmp_path: Path) -> None:
    inks = np.zeros((8, 8, 4), np.uint8)
    inks[:4, :, 0] = 255
    Image.fromarray(inks, "CMYK").save(tmp_path / "inks.tif")
    image = read_picture(tmp_path / "inks.tif").image
    assert torch.equal(image[:, 0, 0], torch.tensor([0.0, 1, 1])) and torch.equal(image[:, 7, 0], torch.ones(3))


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".tiff"])
def test_alpha_survives_a_round_trip(tmp_path: Path, suffix: str) -> None:
    image, alpha = planes(COLOURS), planes(ALPHA)[0]
    path = tmp_path / "new" / f"a{suffix}"
    write_picture(path, image, alpha)
    picture = read_picture(path)
    torch.testing.assert_close(picture.alpha, alpha, atol=1e-7, rtol=0)
    if suffix != ".webp":  # lossy
        torch.testing.assert_close(picture.image, image, atol=1e-7, rtol=0)


@pytest.mark.parametrize("suffix", [".PNG", ".jpg", ".jpeg", ".webp", ".tif", ".bmp"])
def test_a_written_picture_reads_back(tmp_path: Path, suffix: str) -> None:
    smooth = torch.nn.functional.interpolate(planes(COLOURS)[None], size=(300, 40), mode="bilinear")[0]
    smooth = smooth.mean(0, keepdim=True).expand(3, -1, -1) * 2 - 0.5
    write_picture(tmp_path / f"a{suffix}", smooth)
    picture = read_picture(tmp_path / f"a{suffix}")
    assert picture.alpha is None
    tolerance = 0.5 / 255 if suffix in (".PNG", ".tif", ".bmp") else 0.03
    assert (picture.image - smooth.clamp(0, 1)).abs().mean() <= tolerance
    assert list(tmp_path.iterdir()) == [tmp_path / f"a{suffix}"]


def test_jpeg_keeps_colour_at_full_resolution(tmp_path: Path) -> None:
    stripes = torch.zeros(3, 16, 16)
    stripes[0, :, ::2], stripes[2, :, 1::2] = 1, 1
    write_picture(tmp_path / "a.jpg", stripes)
    assert (read_picture(tmp_path / "a.jpg").image - stripes).abs().max() < 0.1


def test_what_is_no_picture_is_named_with_a_remedy(tmp_path: Path) -> None:
    whole = BytesIO()
    Image.fromarray(RNG.integers(0, 256, (99, 99, 3)).astype(np.uint8)).save(whole, "png")
    frames = [Image.fromarray(COLOURS[..., index]) for index in range(3)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:])
    (tmp_path / "empty.png").touch()
    (tmp_path / "cut.png").write_bytes(whole.getvalue()[:5000])
    (tmp_path / "deep.png").write_bytes(png(DEEP, 2)[:-500])
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "clip.mp4").write_bytes(b"\0\0\0\x20ftypisom" + bytes(64))
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tif")
    cases = {"missing.png": "does not exist", "": "is a folder", "empty.png": "is empty", "cut.png": "truncated",
             "deep.png": "cannot be read", "text.png": "cannot be read as a picture", "clip.mp4": "csd video",
             "moving.gif": "holds 3 pictures: .*csd video", "moving.webp": "save one of them alone$",
             "float.tif": "more than 16 bits"}  # fmt: skip
    for name, said in cases.items():
        with pytest.raises(ValueError, match=said) as raised:
            read_picture(tmp_path / name)
        assert str(tmp_path / name) in str(raised.value)


def test_a_large_panorama_is_read_without_complaint(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    Image.new("1", (16384, 8192), 1).save(tmp_path / "wide.png")
    assert picture_size(tmp_path / "wide.png") == (8192, 16384)
    Image.new("1", (16385, 16384)).save(tmp_path / "huge.png")
    with pytest.raises(ValueError, match="scale it down"):
        read_picture(tmp_path / "huge.png")
    assert not recwarn.list


def test_outputs_are_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    cases = [("a.gif", {}, r"\.png, \.jpg"), ("a", {}, "without extension"),
             ("a.jpg", {"alpha": True}, r"\.webp, \.tif"),
             ("a.bmp", {"alpha": True}, "no transparency"), ("file/a.png", {}, "file is not a folder"),
             ("folder.png", {}, "is a folder"), ("a.webp", {"size": (10, 16384)}, "16383"),
             ("a.png", {"size": (0, 4)}, "4 x 0")]  # fmt: skip
    for name, options, said in cases:
        with pytest.raises(ValueError, match=said) as raised:
            check_picture_output(tmp_path / name, **options)
        assert str(tmp_path / name) in str(raised.value)
    check_picture_output(tmp_path / "new/folder/a.webp", alpha=True, size=(8192, 16383))
    assert not (tmp_path / "new").exists()


def test_a_folder_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)  # root may write anywhere
    with pytest.raises(ValueError, match="no permission"):
        check_picture_output(tmp_path / "new/a.png")
