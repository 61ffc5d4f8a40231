"""Files that are whole or absent: written next to their place, forced to the disk, then renamed.

A process that is killed, or a disk that fills up, leaves the previous version untouched.
"""

import io
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from csd_nerf.scenes.errors import writing_to

_LEFTOVERS = (".step-*.ckpt.*.tmp", "edits/.*.json.*.tmp", "edits/round_*/.*.png.*.tmp")
"""Where in a run's folder `write_atomically` has its temporary files."""


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


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a run's folder; those of living ones stay."""
    for path in (path for pattern in _LEFTOVERS for path in folder.glob(pattern)):
        process = path.suffixes[-2].removeprefix(".")
        if process.isdigit() and not _is_alive(int(process)):
            with suppress(OSError):
                path.unlink()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)  # sends nothing
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return process != os.getpid()  # what this process left before it was killed and its number used again


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
