"""The state of a training on disk, whole or absent."""

from pathlib import Path
from typing import Any

import torch

from csd_nerf.whole_files import write_atomically


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Store a state of tensors, numbers and containers of them."""
    write_atomically(path, lambda temporary: torch.save(state, temporary))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a state back onto the CPU, with torch's safe loader."""
    return torch.load(path, map_location="cpu", weights_only=True)
