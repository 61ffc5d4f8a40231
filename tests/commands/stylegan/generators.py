"""What the tests of `csd stylegan` share."""

from pathlib import Path

import torch

from csd_nerf.images.stylegan.files import load_generator
from csd_nerf.images.stylegan.layouts import write_generator
from tests.commands.stopping import stop_after

ADAPT = ["--prior", "toy", "--steps", "4", "--samples", "2", "--prompt", "a blue mushroom"]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return write_generator(load_generator(path), "rosinality")


def stop_any(step: int):
    """`stop_after`, whatever is being done."""
    made = stop_after(step)
    return lambda console, label, first=0: made(console, "Editing", first)
