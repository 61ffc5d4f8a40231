"""The optimisation: SGD with step decay, as CSD's experiments use (CSD Section C), on any set of particles."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.distill.distiller import Distiller, NonFiniteError
from csd_nerf.distill.kernels import at_least_float32
from csd_nerf.distill.particles import FreeLatents, ParticleSet, Targets
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

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        return self.lr * self.lr_decay ** (step // self.lr_decay_every)


@dataclass(frozen=True)
class Reached:
    """How far an optimisation has come; the particles themselves are in their set."""

    steps: int
    """Steps made, those before it was resumed included; fewer than asked for if it was stopped."""
    network_samples: int
    """Network samples spent, since it was resumed."""


@dataclass(frozen=True)
class OptimizeResult(Reached):
    """Latents after the optimisation."""

    latents: Float[Tensor, "n c h w"]
    """The particles, float32 at least."""


def optimize(
    distiller: Distiller,
    particles: ParticleSet,
    targets: Targets,
    settings: OptimizeSettings,
    generator: torch.Generator,
    *,
    first_step: int = 0,
    on_step: Callable[[int, Distillation], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Reached:
    """Descend on a set of particles, in place.

    Each step draws `batch_size` particles, then what the distiller draws, all from `generator`: with its state and
    `first_step` an optimisation goes on exactly where it was left. `on_step(steps_done, distillation)` is called after
    each step; `should_stop()` is asked before each. Raises `NonFiniteError` with the step and, in `partial`, the
    `Reached` before it. Finite particles stay finite: a step that would leave that range is not made.
    """
    n, samples = len(particles), 0
    size = n if settings.batch_size is None else min(settings.batch_size, n)
    for step in range(first_step, settings.steps):
        if should_stop is not None and should_stop():
            return Reached(step, samples)
        rows = torch.arange(n) if size == n else torch.randperm(n, generator=generator)[:size]
        t = None
        try:
            distillation = distiller.for_rows(rows)(particles[rows], targets[rows], generator)
            t = distillation.t
            particles.descend(rows, settings.rate(step) * distillation.gradient)
        except NonFiniteError as error:
            at = error.t if t is None else t
            raise NonFiniteError(error.what, at, int(rows[error.particle]), step, Reached(step, samples)) from None
        samples += distillation.network_samples
        if on_step is not None:
            on_step(step + 1, distillation)
    return Reached(max(settings.steps, first_step), samples)


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
    """`optimize` free latents. The input is not changed. The `partial` of a `NonFiniteError` is an `OptimizeResult`."""
    free = FreeLatents(at_least_float32(latents.detach()).clone())
    try:
        reached = optimize(distiller, free, target, settings, generator, on_step=on_step, should_stop=should_stop)
    except NonFiniteError as error:
        reached = error.partial
        assert isinstance(reached, Reached)
        partial = OptimizeResult(reached.steps, reached.network_samples, free.latents)
        raise NonFiniteError(error.what, error.t, error.particle, error.step, partial) from None
    return OptimizeResult(reached.steps, reached.network_samples, free.latents)
