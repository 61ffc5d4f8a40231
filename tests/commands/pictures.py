"""Small pictures for tests of the commands, and how they are edited there."""

from pathlib import Path

import av
import numpy as np
from PIL import Image

TOY = ["--prior", "toy", "--steps", "6", "--batch-size", "2"]


def picture(path: Path, size: tuple[int, int] = (90, 66), mode: str = "RGB") -> Path:
    """A smooth picture; with transparency in its left half, if the mode has any."""
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    channels = [x, y, 0.5 * np.ones_like(x), np.where(x < 0.5, 0.2, 1.0)]
    array = (np.stack(channels[: len(mode)], axis=-1) * 255).round().astype(np.uint8)
    Image.fromarray(array, mode).save(path)
    return path


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        return np.asarray(opened)


def last_frame(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)][-1].astype(int)
