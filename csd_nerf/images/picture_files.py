"""Pictures in files: read upright, in sRGB and at full depth, written whole or not at all.

A picture is read as a viewer shows it: turned as the camera says, its colours brought to sRGB by its profile, its
transparency kept apart (colours are not premultiplied). Files are written with 8 bits a channel, in sRGB; PNGs with 16
where they are asked for.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from PIL import Image, ImageCms, ImageFile, ImageOps, UnidentifiedImageError
from torch import Tensor

from csd_nerf.images.deep_pictures import is_deep, read_deep, unit
from csd_nerf.images.writing import write_deep_png
from csd_nerf.whole_files import write_atomically

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
"""Extensions that are written. Whatever else Pillow knows is read too."""
WITH_ALPHA = (".png", ".webp", ".tif", ".tiff")
"""Those that keep transparency."""
MOVING = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv")
"""Extensions of videos, to say so when one is given as a picture."""
MOST_PIXELS = 2**28
"""A picture of more (16384 x 16384) is refused: in float32 it takes more than 3 GB."""
_LONGEST_SIDE = {".webp": 16383, ".jpg": 65500, ".jpeg": 65500}
_OPTIONS: dict[str, dict[str, Any]] = {
    ".jpg": {"quality": 95, "subsampling": 0},
    ".jpeg": {"quality": 95, "subsampling": 0},
    ".webp": {"quality": 95},
    ".tif": {"compression": "tiff_deflate"},
    ".tiff": {"compression": "tiff_deflate"},
}
_ORIENTATION, _WIDTH, _HEIGHT = 0x0112, 0x0100, 0x0101
_ROWS = 256


@dataclass(frozen=True)
class Picture:
    """A picture in memory."""

    image: Float[Tensor, "3 h w"]
    """sRGB in [0, 1], float32 on the CPU, upright, not premultiplied."""
    alpha: Float[Tensor, "h w"] | None = None
    """How opaque it is, in [0, 1]; None if the file says nothing of it."""
    bits: int = 8
    """Of a channel in the file: 8 or 16."""


def read_picture(path: Path) -> Picture:
    """The picture in `path`.

    Depths of 8 and 16 bits keep all their levels, except that a colour profile other than sRGB is applied at 8 bits.
    CMYK becomes sRGB by its profile, or by Pillow's formula where it has none, at 8 bits. Memory is at most
    twice that of the picture in float32.

    Raises `ValueError` that names the file for one that is missing, a folder, empty, cut short, no picture, a video, an
    animation, of more than `MOST_PIXELS`, or of more than 16 bits a channel.
    """
    with opened_picture(path) as opened:
        return _deep(path, opened) if is_deep(opened) or _is_lying_tiff(opened) else _shallow(opened)


def picture_size(path: Path) -> tuple[int, int]:
    """Height and width in pixels of the picture in `path` when upright, from its header alone.

    Raises `ValueError` as `read_picture`, as far as the header tells.
    """
    with opened_picture(path) as opened:
        # Of a TIFF, some versions of Pillow turn the size and keep the orientation.
        tags = getattr(opened, "tag_v2", {})
        width, height = tags.get(_WIDTH, opened.size[0]), tags.get(_HEIGHT, opened.size[1])
        return (width, height) if _orientation(opened) > 4 else (height, width)


def has_transparency(path: Path) -> bool:
    """Whether the picture in `path` has an alpha channel or the like. Raises `ValueError` as `picture_size`."""
    with opened_picture(path) as opened:
        return opened.has_transparency_data


@contextlib.contextmanager
def opened_picture(path: Path) -> Iterator[ImageFile.ImageFile]:
    """Pillow's picture, opened and perhaps not decoded yet; raises `ValueError` as `read_picture`.

    Pillow's own guard against huge pictures stops at a size that panoramas have.
    """
    _check_readable(path)
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        with Image.open(path) as opened:
            _check_still(path, opened)
            yield opened
    except (OSError, SyntaxError, EOFError) as error:
        raise ValueError(_unreadable(path, error)) from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def write_picture(
    path: Path, image: Float[Tensor, "3 h w"], alpha: Float[Tensor, "h w"] | None = None, *, bits: int = 8
) -> None:
    """Write a picture in [0, 1] with 8 bits a channel, in the format of the extension; a PNG with 16, if asked.

    JPEG has quality 95 and full colour resolution, WebP quality 95. The file appears complete or not at all, with its
    folders. Raises `ValueError` as `check_picture_output`, and for 16 bits in another format.
    """
    height, width = image.shape[-2:]
    check_picture_output(path, alpha=alpha is not None, size=(height, width))
    planes, suffix = image if alpha is None else (*image, alpha), path.suffix.lower()
    if bits == 16:
        if suffix != ".png":
            raise ValueError(f"{path}: 16 bits a channel are written as .png only")
        write_deep_png(path, planes)
        return
    pixels = Image.fromarray(_bytes(planes, height, width))
    write_atomically(path, lambda temporary: pixels.save(temporary, **_OPTIONS.get(suffix, {})))


def check_picture_output(path: Path, *, alpha: bool = False, size: tuple[int, int] | None = None) -> None:
    """Raise `ValueError` that names `path` if a picture cannot be written there; called before any long work.

    With `alpha`, for formats that keep no transparency too; with `size` (height and width in pixels), for those too
    small to hold it.
    """
    suffix = path.suffix.lower()
    if suffix not in PICTURES:
        raise ValueError(
            f"{path}: pictures are not written as {suffix or 'files without extension'}: {_one_of(PICTURES)}"
        )
    if alpha and suffix not in WITH_ALPHA:
        raise ValueError(f"{path}: {suffix} keeps no transparency, which the picture has: {_one_of(WITH_ALPHA)}")
    if size is not None and min(size) == 0:
        raise ValueError(f"{path}: a picture of {size[1]} x {size[0]} pixels cannot be written")
    longest = _LONGEST_SIDE.get(suffix)
    if size is not None and longest is not None and max(size) > longest:
        raise ValueError(
            f"{path}: {suffix} holds at most {longest} pixels a side, the picture has {size[1]} x {size[0]}: give .png"
        )
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the name of a file")
    check_place(path)


def check_place(path: Path) -> None:
    """Raise `ValueError` if nothing can be made at `path`: a parent is a file, or may not be written."""
    parent = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    if not parent.is_dir():
        raise ValueError(f"{path} cannot be written: {parent} is not a folder: give another place")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ValueError(f"{path} cannot be written: no permission to write into {parent}: give another place")


def upright(image: Shaped[Tensor, "*c h w"], orientation: int) -> Shaped[Tensor, "*c _h _w"]:
    """Turn and mirror pixels as an EXIF orientation from 1 (as they are) to 8 asks for."""
    if orientation > 4:
        image = image.transpose(-1, -2)
    mirrored = {2: (-1,), 3: (-1, -2), 4: (-2,), 6: (-1,), 7: (-1, -2), 8: (-2,)}.get(orientation, ())
    return image.flip(mirrored) if mirrored else image


def in_order(files: list[Path]) -> list[Path]:
    """Files by name, numbers in it by value: `frame2` before `frame10`."""

    def key(file: Path) -> list[tuple[bool, int, str]]:
        parts = re.split(r"(\d+)", file.name)
        return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts if part]

    return sorted(files, key=key)


def _one_of(extensions: tuple[str, ...]) -> str:
    return f"give one of {', '.join(extensions)}"


def _unreadable(path: Path, error: BaseException) -> str:
    if path.suffix.lower() in MOVING:
        return f"{path} is a video, not a picture: use `csd video` for it"
    reason = "of no format that is known" if isinstance(error, UnidentifiedImageError) else str(error).split("\n")[0]
    return f"{path} cannot be read as a picture ({reason}): give a whole PNG, JPEG, WebP, TIFF or BMP"


def _check_readable(path: Path) -> None:
    if not path.exists():
        raise ValueError(f"{path} does not exist: give a picture")
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give one picture in it, or use `csd video` for a folder of frames")
    if path.is_file() and path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes): give a picture")


def _check_still(path: Path, opened: ImageFile.ImageFile) -> None:
    width, height = opened.size
    if width * height > MOST_PIXELS:
        raise ValueError(f"{path} has {width} x {height} pixels, more than {MOST_PIXELS:,}: scale it down")
    frames = getattr(opened, "n_frames", 1)
    if frames > 1 and opened.format != "MPO":  # phones keep previews and depth behind the picture in a JPEG
        moving = ", or use `csd video` for it" if opened.format in ("GIF", "PNG") else ""  # FFmpeg reads no other
        raise ValueError(f"{path} holds {frames} pictures: save one of them alone{moving}")


def _orientation(opened: ImageFile.ImageFile) -> int:
    orientation = opened.getexif().get(_ORIENTATION, 1)
    return orientation if orientation in range(1, 9) else 1


def _is_lying_tiff(opened: ImageFile.ImageFile) -> bool:
    """A TIFF turned by 90 degrees: Pillow 13 decodes one without compression with its sides swapped, into stripes."""
    return opened.format == "TIFF" and opened.mode in ("L", "RGB", "RGBA") and _orientation(opened) > 4


def _shallow(opened: ImageFile.ImageFile) -> Picture:
    opened.load()  # turns a TIFF
    image = opened if _orientation(opened) == 1 else ImageOps.exif_transpose(opened)
    profile = opened.info.get("icc_profile")
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = unit(np.asarray(image.getchannel("A")))
    elif image.mode not in ("RGB", "L", "CMYK", "LAB"):
        image = image.convert("RGB")
    return Picture(unit(np.asarray(_in_srgb(image, profile))), alpha)


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if profile:
        # A profile that is damaged, or of other colours than the picture, is passed over, as viewers do.
        with contextlib.suppress(ImageCms.PyCMSError, OSError, TypeError):
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            if "srgb" not in (ImageCms.getProfileDescription(source) or "").lower():
                opaque = image.convert("RGB") if image.mode == "RGBA" else image
                converted = ImageCms.profileToProfile(opaque, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
                if converted is not None:
                    return converted
    return image if image.mode == "RGB" else image.convert("RGB")


def _deep(path: Path, opened: ImageFile.ImageFile) -> Picture:
    profile = opened.info.get("icc_profile")
    orientation = 1 if opened.format == "TIFF" else _orientation(opened)
    image, alpha, bits = read_deep(path, opened)
    if profile:
        shown = Image.fromarray(_bytes(image, *image.shape[1:]))
        converted = _in_srgb(shown, profile)
        image = unit(np.asarray(converted)) if converted.tobytes() != shown.tobytes() else image
    return Picture(upright(image, orientation), None if alpha is None else upright(alpha, orientation), bits)


def _bytes(planes: Any, height: int, width: int) -> UInt8[np.ndarray, "h w c"]:
    """Planes in [0, 1] as 8-bit pixels, some rows at a time: a copy in float of a large picture is large too."""
    pixels = np.empty((height, width, len(planes)), np.uint8)
    for channel, plane in enumerate(planes):
        for top in range(0, height, _ROWS):
            rows = plane[top : top + _ROWS].detach().float().cpu()
            pixels[top : top + _ROWS, :, channel] = (rows.clamp(0, 1) * 255).round().byte().numpy()
    return pixels
