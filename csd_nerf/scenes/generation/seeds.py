"""Random numbers that follow from a seed, a purpose and a step: a resumed run draws what the whole one would have."""

from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """What random numbers are for; each purpose has numbers of its own."""

    CAMERAS = 0
    """Views of a step."""
    RAYS = 1
    """Jitter of the samples along rays, shading and lights."""
    DISTILLATION = 2
    """Timestep and noise."""
    OCCUPANCY = 3
    """Where in its cell a density is looked up."""
    EXPORT = 4
    """Rays that nerfstudio asks for when it exports."""


def step_generator(seed: int, stream: Stream, step: int) -> torch.Generator:
    """Random numbers of one step, on the CPU."""
    state = np.random.SeedSequence([seed, int(stream), step]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
