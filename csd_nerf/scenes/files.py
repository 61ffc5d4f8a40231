"""Files that are whole or absent: written next to their place, forced to the disk, then renamed.

A process that is killed, or a disk that fills up, leaves the previous version untouched.
"""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from csd_nerf.scenes.errors import writing_to


def write_atomically(path: Path, write: Callable[[BinaryIO], Any], *, scratch: Path | None = None) -> None:
    """Let `write` fill a temporary file and put it in the place of `path`.

    `scratch` is the folder of the temporary file, on the same disk; the folder of `path` if None. Raises `SceneError`
    when the disk is full or the folder cannot be written; `path` is then what it was before.
    """
    temporary = (scratch or path.parent) / f".{path.name}.{os.getpid()}.tmp"
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, atomically."""
    data = (json.dumps(content, indent=2) + "\n").encode()
    write_atomically(path, lambda file: file.write(data))


def write_picture(path: Path, picture: UInt8[Tensor, "h w 3"]) -> None:
    """Write a PNG, atomically."""
    buffer = io.BytesIO()
    Image.fromarray(picture.cpu().numpy()).save(buffer, format="PNG")
    write_atomically(path, lambda file: file.write(buffer.getbuffer()))


def read_picture(path: Path) -> UInt8[Tensor, "h w 3"]:
    """Read a picture as RGB."""
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB")))
