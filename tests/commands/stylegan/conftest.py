"""A generator for the tests of `csd stylegan`."""

from pathlib import Path

import pytest
import torch

from csd_nerf.images.stylegan.files import save_generator
from csd_nerf.images.stylegan.generator import Generator, GeneratorShape


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A random generator of 32 x 32 pixels."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = Generator(GeneratorShape((8, 6, 5, 4), style=6, mapping_layers=2))
    generator.measure_mean_w(torch.Generator().manual_seed(0))
    save_generator(tmp_path / "small.safetensors", generator, "nvidia")
    return tmp_path / "small.safetensors"
