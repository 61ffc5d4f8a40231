"""The optimisation of free latents: SGD with step decay, as CSD's experiments use (CSD Section C)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.distill.distiller import Distiller, NonFiniteError
from csd_nerf.distill.types import Distillation, Target


@dataclass(frozen=True)
class OptimizeSettings:
    """SGD and StepLR: `lr * lr_decay ** (step // lr_decay_every)`, no momentum, no weight decay."""

    steps: int = 200
    lr: float = 2.0
    lr_decay: float = 0.9
    lr_decay_every: int = 20
    batch_size: int | None = None
    """Particles per step, drawn at random; None takes all of them in each step."""


@dataclass(frozen=True)
class OptimizeResult:
    """Latents after the optimisation."""

    latents: Float[Tensor, "n c h w"]
    """The particles, float32 at least."""
    steps: int
    """Steps made; fewer than asked for if it was stopped."""
    network_samples: int
    """Network samples spent."""


def optimize_latents(
    distiller: Distiller,
    latents: Float[Tensor, "n c h w"],
    target: Target,
    settings: OptimizeSettings,
    generator: torch.Generator,
    *,
    on_step: Callable[[int, Distillation], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> OptimizeResult:
    """Descend on free latents. The input is not changed.

    `on_step(steps_done, distillation)` is called after each step; `should_stop()` is asked before each. Raises
    `NonFiniteError` with the step and, in `partial`, the `OptimizeResult` reached before it.
    """
    particles = latents.detach().clone()
    particles.requires_grad_(True)
    optimizer = torch.optim.SGD([particles], lr=settings.lr)
    decay = torch.optim.lr_scheduler.StepLR(optimizer, step_size=settings.lr_decay_every, gamma=settings.lr_decay)
    n, samples = len(particles), 0
    batch = n if settings.batch_size is None else min(settings.batch_size, n)
    for step in range(settings.steps):
        if should_stop is not None and should_stop():
            return OptimizeResult(particles.detach(), step, samples)
        try:
            if batch == n:
                distillation = distiller(particles.detach(), target, generator)
                particles.grad = distillation.gradient
            else:
                rows = torch.randperm(n, generator=generator)[:batch].to(particles.device)
                distillation = distiller(particles.detach()[rows], target[rows], generator)
                particles.grad = torch.zeros_like(particles).index_copy_(0, rows, distillation.gradient)
        except NonFiniteError as error:
            particle = error.particle if batch == n else int(rows[error.particle])
            reached = OptimizeResult(particles.detach(), step, samples)
            raise NonFiniteError(error.what, error.t, particle, step, reached) from None
        optimizer.step()
        decay.step()
        samples += distillation.network_samples
        if on_step is not None:
            on_step(step + 1, distillation)
    return OptimizeResult(particles.detach(), settings.steps, samples)
