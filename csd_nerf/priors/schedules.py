"""From the scheduler configuration that a diffusers folder carries to our own schedule.

Only the betas are read: which sampler a folder names does not matter to distillation.

scaled_linear:      sqrt(beta_t) linear (Stable Diffusion)
linear:             beta_t linear (DDPM)
squaredcos_cap_v2:  abar(u) = cos^2((u + 0.008) / 1.008 * pi / 2), beta_t = min(1 - abar((t+1)/T) / abar(t/T), 0.999)
                    (Nichol and Dhariwal 2021, Eq. 17)
zero terminal SNR:  sqrt(abar) shifted and scaled to end at 0 and to start unchanged (Lin et al. 2023, Algorithm 1)
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.distill.schedule import NoiseSchedule
from csd_nerf.priors.errors import PriorLayoutError


def schedule_from_config(config: Mapping[str, Any]) -> NoiseSchedule:
    """The noise schedule that `scheduler_config.json` describes, in float64.

    Raises `PriorLayoutError` for schedules that are not variance preserving with discrete betas (flow matching).
    """
    alphas_cumprod = torch.cumprod(1 - _betas(config), dim=0)
    if config.get("rescale_betas_zero_snr"):
        root = alphas_cumprod.sqrt()
        alphas_cumprod = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    return NoiseSchedule(alphas_cumprod)


def _betas(config: Mapping[str, Any]) -> Float[Tensor, " steps"]:
    if config.get("trained_betas") is not None:
        return torch.tensor(config["trained_betas"], dtype=torch.float64)
    steps = int(config.get("num_train_timesteps", 1000))
    start, end = float(config.get("beta_start", 0.0001)), float(config.get("beta_end", 0.02))
    kind = config.get("beta_schedule")
    if kind == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
    if kind == "linear":
        return torch.linspace(start, end, steps, dtype=torch.float64)
    if kind == "squaredcos_cap_v2":
        at = torch.arange(steps + 1, dtype=torch.float64) / steps
        abar = torch.cos((at + 0.008) / 1.008 * math.pi / 2) ** 2
        return (1 - abar[1:] / abar[:-1]).clamp(max=0.999)
    raise PriorLayoutError(
        f"scheduler_config.json of class {config.get('_class_name')!r} has beta_schedule {kind!r}; supported are "
        "'scaled_linear', 'linear', 'squaredcos_cap_v2' and trained_betas"
    )
