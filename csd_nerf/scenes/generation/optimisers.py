"""Adan with warm-up and cosine decay (CSD D.2), as nerfstudio's configurations."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from nerfstudio.engine.optimizers import OptimizerConfig
from nerfstudio.engine.schedulers import Scheduler, SchedulerConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler


@dataclass
class AdanOptimizerConfig(OptimizerConfig):
    """Adan (Xie et al. 2022), of the package pytorch-optimizer."""

    lr: float = 2e-3
    """Peak learning rate."""
    eps: float = 1e-8
    """Added to the denominator."""
    betas: tuple[float, float, float] = (0.98, 0.92, 0.99)
    """Of the gradient, its differences and its squares."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""

    def setup(self, params: Any) -> Optimizer:
        """The optimiser; its package loads here and not with nerfstudio's list of methods."""
        from pytorch_optimizer import Adan

        return Adan(
            params, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay, weight_decouple=True, eps=self.eps
        )


@dataclass
class AdamaxOptimizerConfig(OptimizerConfig):
    """Adamax, as Score Jacobian Chaining uses it."""

    _target: type = torch.optim.Adamax
    """The optimizer class to use."""
    lr: float = 0.05
    """The learning rate to use."""


@dataclass
class WarmupCosineSchedulerConfig(SchedulerConfig):
    """Linear warm-up, then cosine decay."""

    _target: type = field(default_factory=lambda: WarmupCosineScheduler)
    """Target class to instantiate."""
    lr_start: float = 1e-9
    """Learning rate of the first step."""
    lr_end: float = 1e-6
    """Learning rate of the last step."""
    warmup_steps: int = 2000
    """Steps until the peak."""
    max_steps: int | None = None
    """Steps of the whole schedule; None takes the run's."""


class WarmupCosineScheduler(Scheduler):
    """Makes the schedule of a `WarmupCosineSchedulerConfig`."""

    config: WarmupCosineSchedulerConfig

    def get_scheduler(self, optimizer: Optimizer, lr_init: float) -> LRScheduler:
        """Torch's scheduler."""
        return LambdaLR(optimizer, warmup_cosine(self.config, lr_init))


def warmup_cosine(config: WarmupCosineSchedulerConfig, peak: float) -> Callable[[int], float]:
    """Step to the factor of the peak learning rate."""
    assert config.max_steps is not None, "the trainer's configuration fills it in"
    warm, last = config.warmup_steps, config.max_steps

    def factor(step: int) -> float:
        if step < warm:
            return (config.lr_start + (peak - config.lr_start) * step / warm) / peak
        share = min(1.0, (step - warm) / max(1, last - warm))
        return (config.lr_end + (peak - config.lr_end) * 0.5 * (1 + math.cos(math.pi * share))) / peak

    return factor
