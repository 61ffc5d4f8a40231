"""Files that are either whole or absent: write beside the target, flush to disk, rename."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write(temporary)` and rename the result to `path`; a kill at any moment leaves the old file or the new."""
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
    write(temporary)
    with open(temporary, "rb+") as stream:
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Store a state of tensors, numbers and containers of them."""
    write_atomically(path, lambda temporary: torch.save(state, temporary))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a state back onto the CPU, with torch's safe loader."""
    return torch.load(path, map_location="cpu", weights_only=True)
