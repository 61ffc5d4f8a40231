"""Where training computes in bfloat16: on GPUs, and on CPUs whose matrix instructions take it natively.

Weights, optimiser, averages and losses stay in single precision; only matrix products and convolutions are rounded.
A CPU without such instructions emulates them and becomes slower.
"""

from contextlib import AbstractContextManager

import torch

from csd_nerf.processor import gains_from_bfloat16


def mixed_precision(device: str) -> AbstractContextManager[object]:
    """Autocast to bfloat16 where `device` gains from it, else nothing."""
    kind = device.split(":")[0]
    return torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda" or gains_from_bfloat16())
