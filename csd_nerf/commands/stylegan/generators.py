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

    return load_generator(generator_path(name)).to(device)


def generator_path(name: str) -> Path:
    """The file that a command's IN means."""
    return Path(str(importlib.resources.files("csd_nerf.data") / _FILE)) if name == TOY else Path(name).expanduser()


def check_other_file(source: Path, output: Path) -> None:
    """Raise `ValueError` if what is written would replace what is read, links counted as what they lead to."""
    if source.exists() and output.exists() and source.samefile(output):
        raise ValueError(f"IN {source} and OUT {output} are one file, which would be lost: give OUT another name")
