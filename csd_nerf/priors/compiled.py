"""A network compiled by torch where a run is long enough to pay for it: kernels are fused, memory is read less often.

Compiling takes about a minute. With InstructPix2Pix at 64 x 64 latents in float16 an NVIDIA H100 then needs 2.3 ms a
sample in place of 3.1 (benchmarks/results/speed.md): the minute is won back after `BREAK_EVEN` samples. Nobody knows
beforehand how long a viewer will be open. So a shape is compiled once it was asked that many samples: who stops right
then has lost what a compilation takes, who goes on saves a quarter. For other networks samples are converted by what
they compute, about parameters times pixels; a small one never gets there.

Compiled answers are the network's but for rounding, as are those of calls with other numbers of rows.

The environment variable CSD_COMPILE=0 leaves compiling out, CSD_COMPILE=1 compiles at once.
"""

import logging
import math
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from csd_nerf.priors.quickest import QuickestForm

log = logging.getLogger("csd_nerf.priors")
SWITCH = "CSD_COMPILE"
BREAK_EVEN = 80_000
"""Network samples of InstructPix2Pix at 64 x 64 latents after which compiling has paid, on an H100: measured
51,000 in calls of 20 rows (53 s, 1.05 ms a sample) and 111,000 in calls of 80 (86 s, 0.77 ms)."""
_MEASURED = 859.5e6 * 64 * 64
"""Parameters times latent pixels of the network that this was measured with."""


def compiled_where_worth(network: Callable[..., Any], unet: nn.Module, device: torch.device) -> Callable[..., Any]:
    """`network`, which calls `unet` in some form, until a shape has paid for being compiled; on a CUDA device only.

    Anywhere else, and with CSD_COMPILE=0, `network` itself. Raises `ValueError` for other values than 0 and 1.
    """
    asked = os.environ.get(SWITCH, "").strip()
    if asked not in ("", "0", "1"):
        raise ValueError(f"{SWITCH}={asked}: set it to 0 (never compile) or 1 (at once), or unset it (where it pays)")
    if device.type != "cuda" or asked == "0":
        return network
    parameters = sum(weight.numel() for weight in unet.parameters())

    def patience(inputs: Tensor) -> int:
        return 0 if asked == "1" else calls_that_pay(parameters, inputs)

    def compiled() -> Callable[..., Any]:
        log.warning("compiling the network, which takes a minute or two (%s=0 leaves it out)", SWITCH)
        return torch.compile(unet, dynamic=False)

    return QuickestForm(network, compiled, patience=patience)


def calls_that_pay(parameters: int, inputs: Tensor) -> int:
    """How many calls with `inputs` (n c h w) of a network of so many parameters pay for compiling it."""
    work = parameters * inputs.shape[-2] * inputs.shape[-1] * len(inputs)
    return math.ceil(BREAK_EVEN * _MEASURED / max(1, work))
