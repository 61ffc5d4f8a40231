"""The optimisation of free latents: SGD with step decay, as CSD's experiments use (CSD Section C)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.distill.distiller import Distiller, NonFiniteError, check_finite
from csd_nerf.distill.kernels import at_least_float32
from csd_nerf.distill.types import Distillation, Target


@dataclass(frozen=True, kw_only=True)
class OptimizeSettings:
    """SGD and StepLR: `lr * lr_decay ** (step // lr_decay_every)`, no momentum, no weight decay."""

    lr: float
    """Learning rate. It has no default: what fits depends on the distiller's mixing (see `presets`)."""
    steps: int = 200
    """Steps to make."""
    lr_decay: float = 0.9
    """Factor of the step decay."""
    lr_decay_every: int = 20
    """Steps between decays."""
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
    `NonFiniteError` with the step and, in `partial`, the `OptimizeResult` reached before it. Finite latents stay
    finite: a step that would leave that range is not kept.
    """
    particles = at_least_float32(latents.detach()).clone().requires_grad_(True)
    optimizer = torch.optim.SGD([particles], lr=settings.lr)
    decay = torch.optim.lr_scheduler.StepLR(optimizer, step_size=settings.lr_decay_every, gamma=settings.lr_decay)
    samples = 0
    for step in range(settings.steps):
        if should_stop is not None and should_stop():
            return OptimizeResult(particles.detach(), step, samples)
        before = particles.detach().clone()
        try:
            particles.grad, distillation = _gradient(distiller, before, target, settings.batch_size, generator)
            optimizer.step()
            check_finite("the latent", particles.detach(), distillation.t)
        except NonFiniteError as error:
            reached = OptimizeResult(before, step, samples)
            raise NonFiniteError(error.what, error.t, error.particle, step, reached) from None
        decay.step()
        samples += distillation.network_samples
        if on_step is not None:
            on_step(step + 1, distillation)
    return OptimizeResult(particles.detach(), settings.steps, samples)


def _gradient(
    distiller: Distiller,
    particles: Float[Tensor, "n c h w"],
    target: Target,
    batch_size: int | None,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "n c h w"], Distillation]:
    """Gradient on all particles; 0 for those that are not in this step's batch."""
    n = len(particles)
    if batch_size is None or batch_size >= n:
        distillation = distiller(particles, target, generator)
        return distillation.gradient, distillation
    rows = torch.randperm(n, generator=generator)[:batch_size].to(particles.device)
    try:
        distillation = distiller.for_rows(rows)(particles[rows], target[rows], generator)
    except NonFiniteError as error:
        raise NonFiniteError(error.what, error.t, int(rows[error.particle])) from None
    return torch.zeros_like(particles).index_copy_(0, rows, distillation.gradient), distillation
