"""Pictures, folders of pictures and videos, as sets that metrics compare.

They are read as `csd panorama` and `csd video` read them: upright, in sRGB, and here with what is transparent on white.
Kept are 8 bits a channel, a quarter of what float32 takes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import psutil
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from csd_nerf.images.frame_range import FrameRange
from csd_nerf.images.picture_files import MOVING, PICTURES, in_order, picture_size, read_picture
from csd_nerf.images.video_decoding import is_picture
from csd_nerf.images.video_reading import ALL, VideoSource, open_video
from csd_nerf.metrics.levels import eight_bit
from csd_nerf.metrics.pictures import Loaded, Pictures, in_words

VIDEOS = (*MOVING, ".gif")
"""Extensions of files that hold frames; whatever else is given is read as a picture."""


@dataclass(frozen=True)
class _Opened:
    """What is known of a set before any of its pixels is kept."""

    kind: Literal["pictures", "video"]
    names: tuple[str, ...]
    size: tuple[int, int]
    read: Callable[[], Iterator[UInt8[Tensor, "3 h w"]]]


def read_pictures(path: Path, flag: str, frames: FrameRange = ALL) -> Pictures:
    """The picture, the pictures in the folder (in the order of their names, numbers by value), or the video at `path`.

    `frames` says which of a folder or video. Number and size are known at once, pixels are read when they are first
    asked for: 8 bits a channel, transparent parts on white. Raises `ValueError` that names `flag` for a path that is
    missing or empty, for a damaged video, and for frames that select nothing; when pixels are read, for a picture that
    cannot be read, has more than 8 bits a channel or another size than the first.
    """
    opened = _open(path, flag, frames)

    def load() -> Loaded:
        images = torch.empty((len(opened.names), 3, *opened.size), dtype=torch.uint8)
        for row, image in zip(images, opened.read(), strict=True):
            row.copy_(image)
        return Loaded(images)

    return Pictures(f"{flag} {path}", opened.kind, opened.names, opened.size, load)


def read_in_parts(path: Path, flag: str, count: int = 16) -> Iterator[UInt8[Tensor, "_n 3 h w"]]:
    """The pictures of `read_pictures`, `count` at a time: no more of them are in memory.

    Raises `ValueError` as it does, at once for paths, and for files when their turn comes.
    """
    return _parts(_open(path, flag, ALL).read(), count)


def check_memory(sets: Sequence[Pictures]) -> None:
    """Raise `ValueError` that names --frames when the pixels of sets from files would not fit into free memory."""
    needed = sum(3 * len(one) * one.size[0] * one.size[1] for one in sets)
    free = psutil.virtual_memory().available
    if needed > free:
        raise ValueError(
            f"{', '.join(one.source for one in sets)} take {_gigabytes(needed)} of memory, and {_gigabytes(free)} are "
            "free: choose some of them with --frames, such as --frames ::4 for every fourth, or scale them down"
        )


def _open(path: Path, flag: str, frames: FrameRange) -> _Opened:
    if not path.exists():
        raise ValueError(f"{flag} {path} does not exist: give a picture, a folder of pictures or a video")
    with _naming(flag, path):
        if path.is_file() and path.suffix.lower() in VIDEOS:
            video = open_video(path, frames)
            names = tuple(str(index) for index in video.indices)
            return _Opened("video", names, (video.height, video.width), lambda: _read_video(video, flag, path))
        files = _chosen(path, frames)
        # Only the first, since Pillow decodes a PNG to tell its size.
        size, names = picture_size(files[0]), tuple(file.stem for file in files)
        return _Opened("pictures", names, size, lambda: _read_files(files, size, flag, path))


def _chosen(path: Path, frames: FrameRange) -> list[Path]:
    """The picture, or those of the folder that `frames` says."""
    if not path.is_dir():
        if frames != ALL:
            raise ValueError(f"{path} is one picture: leave out --frames {frames}, which chooses among several")
        return [path]
    files = in_order([file for file in path.iterdir() if is_picture(file)])
    if not files:
        raise ValueError(f"{path} holds no pictures ({', '.join(PICTURES)}): give a folder of pictures or a video")
    chosen = [files[index] for index in frames.indices(len(files))]
    if not chosen:
        raise ValueError(f"--frames {frames} selects nothing of {path}, which has {len(files)} pictures")
    return chosen


def _read_video(video: VideoSource, flag: str, path: Path) -> Iterator[UInt8[Tensor, "3 h w"]]:
    with _naming(flag, path):
        for frame, alpha in zip(video, video.alphas(), strict=True):
            yield _on_white(frame, alpha)


def _read_files(
    files: Sequence[Path], first: tuple[int, int], flag: str, path: Path
) -> Iterator[UInt8[Tensor, "3 h w"]]:
    with _naming(flag, path):
        for file in files:
            picture = read_picture(file)
            if picture.bits > 8:
                raise ValueError(f"{file} has more than 8 bits a channel: convert it to 8 bits")
            size = (picture.image.shape[1], picture.image.shape[2])
            if size != first:
                raise ValueError(
                    f"{path}: {files[0].name} has {in_words(first)}, {file.name} {in_words(size)}: bring them to one "
                    "size"
                )
            yield _on_white(picture.image, picture.alpha)


def _on_white(image: Float[Tensor, "3 h w"], alpha: Float[Tensor, "h w"] | None) -> UInt8[Tensor, "3 h w"]:
    return eight_bit(image if alpha is None else image * alpha + 1 - alpha)


def _parts(read: Iterator[Tensor], count: int) -> Iterator[Tensor]:
    while part := list(islice(read, count)):
        yield torch.stack(part)


@contextmanager
def _naming(flag: str, path: Path) -> Iterator[None]:
    """The readers' errors begin with the file; here they begin with the flag that it came from."""
    try:
        yield
    except ValueError as error:
        said = str(error)
        raise ValueError(f"{flag} {said}" if said.startswith(str(path)) else said) from error


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
