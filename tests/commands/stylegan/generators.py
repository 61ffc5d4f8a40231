"""What the tests of `csd stylegan` share."""

from pathlib import Path

import torch

from csd_nerf.images.stylegan.files import load_generator
from csd_nerf.images.stylegan.layouts import write_generator

ADAPT = ["--prior", "toy", "--steps", "4", "--samples", "2", "--prompt", "a blue mushroom"]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return write_generator(load_generator(path), "rosinality")
