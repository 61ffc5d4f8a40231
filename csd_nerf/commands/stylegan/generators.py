"""Which generator a command means: a file, or the toy's, which comes with this package."""

import importlib.resources
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from csd_nerf.images.stylegan.generator import Generator

TOY = "toy"
_FILE = "toy_stylegan/generator.safetensors"


def open_generator(name: str, device: "torch.device") -> "Generator":
    """Load `toy` or a file. Raises `ValueError` that names the file and the remedy."""
    from csd_nerf.images.stylegan.files import load_generator

    path = Path(str(importlib.resources.files("csd_nerf.data") / _FILE)) if name == TOY else Path(name).expanduser()
    return load_generator(path).to(device)
