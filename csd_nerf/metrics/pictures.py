"""Sets of pictures that metrics compare: a picture, a folder of them, a video, or whatever else can make them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from jaxtyping import Real
from torch import Tensor

from csd_nerf.metrics.warp import PinholeViews


@dataclass(frozen=True)
class Loaded:
    """Pictures in memory."""

    images: Real[Tensor, "n 3 h w"]
    """In [0, 1] or in 8 bits, on the CPU."""
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
    def images(self) -> Real[Tensor, "n 3 h w"]:
        """The pictures, in [0, 1] or in 8 bits."""
        return self.loaded.images

    def chosen(self, names: tuple[str, ...]) -> "Pictures":
        """Those of these names, in their order."""
        if names == self.names:
            return self
        index = [self.names.index(name) for name in names]
        # Loaded anew, since what is kept here would keep those that are not chosen too.
        return Pictures(
            self.source, self.kind, names, self.size, lambda: Loaded(self.load().images[index]), note=self.note
        )


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
