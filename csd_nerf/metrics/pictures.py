"""Sets of pictures that metrics compare: a picture, a folder of them, a video, or whatever else can make them."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
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
    kind, read = _opened(path, flag)
    names, images = zip(*read, strict=True)
    loaded = Loaded(torch.stack(images))
    height, width = images[0].shape[1:]
    return Pictures(f"{flag} {path}", kind, names, (height, width), lambda: loaded)


def read_in_parts(path: Path, flag: str, count: int = 16) -> Iterator[Float[Tensor, "_n 3 h w"]]:
    """The pictures of `read_pictures`, `count` at a time: no more of them are in memory.

    Raises `ValueError` as it does, at once for paths, and for files when their turn comes.
    """
    _, read = _opened(path, flag)
    return _parts(read, count)


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


def _opened(path: Path, flag: str) -> tuple[Literal["pictures", "video"], Iterator[tuple[str, Float[Tensor, "3 h w"]]]]:
    """What is at `path`, and its pictures with their names, read one by one."""
    source = f"{flag} {path}"
    if not path.exists():
        raise ValueError(f"{source} does not exist: give a picture, a folder of pictures or a video")
    if path.is_file() and path.suffix.lower() in VIDEOS:
        return "video", _frames(path, source)
    files = [path] if path.is_file() else _in_order(path)
    if not files:
        raise ValueError(f"{source} holds no pictures ({', '.join(PICTURES)}): give a folder of pictures or a video")
    return "pictures", _files(files, source, flag)


def _parts(read: Iterator[tuple[str, Tensor]], count: int) -> Iterator[Tensor]:
    while part := [image for _, image in islice(read, count)]:
        yield torch.stack(part)


def _files(files: list[Path], source: str, flag: str) -> Iterator[tuple[str, Float[Tensor, "3 h w"]]]:
    first: tuple[int, int] | None = None
    for file in files:
        image = _picture(file, flag)
        size = (image.shape[1], image.shape[2])
        first = first or size
        if size != first:
            raise ValueError(
                f"{source}: {files[0].name} has {in_words(first)}, {file.name} {in_words(size)}: bring them to one size"
            )
        yield file.stem, image


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


def _frames(path: Path, source: str) -> Iterator[tuple[str, Float[Tensor, "3 h w"]]]:
    import av

    number = 0
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                yield str(number), _unit(frame.to_ndarray(format="rgb24"))
                number += 1
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"{source} cannot be read as a video ({first_line(error)})") from error
    if not number:
        raise ValueError(f"{source} has no frames: give another video")


def _unit(pixels: Any) -> Float[Tensor, "3 h w"]:
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
