"""Sets of pictures that metrics compare: a picture, a folder of them, a video, or whatever else can make them."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.metrics.types import first_line
from csd_nerf.metrics.warp import PinholeViews

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".gif")


@dataclass(frozen=True)
class Loaded:
    """Pictures in memory."""

    images: Float[Tensor, "n 3 h w"]
    """In [0, 1], on the CPU."""
    views: PinholeViews | None = None
    """Cameras and depths of a scene's views."""


@dataclass
class Pictures:
    """A set of pictures of one size. What can be known of it before it is made is known at once."""

    source: str
    """Flag and path that it comes from, for messages."""
    kind: Literal["pictures", "video", "views"]
    """Loose pictures, the frames of a video, or the views of a scene."""
    names: tuple[str, ...]
    """File names without folder and suffix, or frame numbers."""
    size: tuple[int, int]
    """Height and width."""
    load: Callable[[], Loaded]
    """Makes them."""
    neighbours: list[tuple[int, int]] | None = None
    """Which pairs show nearly the same; None for each and the next one."""
    note: str = ""
    """What a reader must know of them."""

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def loaded(self) -> Loaded:
        """The pictures, made once."""
        return self.load()

    @property
    def images(self) -> Float[Tensor, "n 3 h w"]:
        """The pictures in [0, 1]."""
        return self.loaded.images

    def chosen(self, names: tuple[str, ...]) -> "Pictures":
        """Those of these names, in their order."""
        index = [self.names.index(name) for name in names]
        return Pictures(self.source, self.kind, names, self.size, lambda: Loaded(self.images[index]), note=self.note)


def read_pictures(path: Path, flag: str) -> Pictures:
    """The picture, the pictures in the folder (in the order of their names, numbers by value), or the video at `path`.

    Transparent parts are shown on white, photos turned as their camera says. Raises `ValueError` that names `flag` for
    a path that is missing, empty, of mixed sizes, or cannot be read.
    """
    source = f"{flag} {path}"
    if not path.exists():
        raise ValueError(f"{source} does not exist: give a picture, a folder of pictures or a video")
    if path.is_file() and path.suffix.lower() in VIDEOS:
        return _video(path, source)
    files = [path] if path.is_file() else _in_order(path)
    if not files:
        raise ValueError(f"{source} holds no pictures ({', '.join(PICTURES)}): give a folder of pictures or a video")
    images = [_picture(file, flag) for file in files]
    for file, image in zip(files, images, strict=True):
        if image.shape != images[0].shape:
            first, other = (in_words((shown.shape[1], shown.shape[2])) for shown in (images[0], image))
            raise ValueError(f"{source}: {files[0].name} has {first}, {file.name} {other}: bring them to one size")
    return _made(source, "pictures", tuple(file.stem for file in files), images)


def paired(pictures: Pictures, with_: Pictures) -> Pictures:
    """`pictures`, one for each of `with_`: those of the same names, else all of them in order.

    Raises `ValueError` when neither the names nor the number fit, or the size differs.
    """
    if set(with_.names) <= set(pictures.names):
        pictures = pictures.chosen(with_.names)
    if len(pictures) != len(with_):
        raise ValueError(
            f"{pictures.source} has {len(pictures)} pictures, {with_.source} has {len(with_)}: give as many, or files "
            f"of the same names (such as {with_.names[0]})"
        )
    if pictures.size != with_.size:
        raise ValueError(
            f"{pictures.source} has pictures of {in_words(pictures.size)}, {with_.source} of {in_words(with_.size)}: "
            "bring them to one size"
        )
    return pictures


def in_words(size: tuple[int, int]) -> str:
    """A size (height, width) as people write it."""
    return f"{size[1]} x {size[0]} pixels"


def _made(
    source: str, kind: Literal["pictures", "video"], names: tuple[str, ...], images: list[Float[Tensor, "3 h w"]]
) -> Pictures:
    loaded = Loaded(torch.stack(images))
    height, width = images[0].shape[1:]
    return Pictures(source, kind, names, (height, width), lambda: loaded)


def _in_order(folder: Path) -> list[Path]:
    files = [file for file in folder.iterdir() if file.suffix.lower() in PICTURES and not file.name.startswith(".")]
    return sorted(files, key=lambda file: [int(p) if p.isdecimal() else p for p in re.split(r"(\d+)", file.name)])


def _picture(file: Path, flag: str) -> Float[Tensor, "3 h w"]:
    import numpy as np
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"{flag} {file} has more than 8 bits a channel: convert it to 8 bits")
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, (255, 255, 255, 255))
            pixels = np.array(Image.alpha_composite(white, image).convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{flag} {file} cannot be read as a picture ({first_line(error)})") from error
    return _unit(pixels)


def _video(path: Path, source: str) -> Pictures:
    import av

    frames = []
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                frames.append(_unit(frame.to_ndarray(format="rgb24")))
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"{source} cannot be read as a video ({first_line(error)})") from error
    if not frames:
        raise ValueError(f"{source} has no frames: give another video")
    return _made(source, "video", tuple(str(i) for i in range(len(frames))), frames)


def _unit(pixels: Any) -> Float[Tensor, "3 h w"]:
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
