"""Optimisation of parameters theta behind particles v = g(theta), with any torch optimiser (LDP Sections 3.4 and 5).

Each step draws particles, asks an objective, such as `LatentLosses`, for the gradient of LDP Eq. 4 into them, and
propagates it:

    dL/dtheta = (dv/dtheta)^T (dL/dv)  +  d(extra)/dtheta

where `extra` is whatever else the application minimises, such as the mask supervision of LDP Section 5.3. Free latents
are their own parameters; generators and layers bring a network.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from csd_nerf.distill.distiller import NonFiniteError
from csd_nerf.distill.latent_objective import LatentStep
from csd_nerf.distill.optimize import Reached
from csd_nerf.distill.types import Target


@dataclass(frozen=True)
class Rendering:
    """What the parameters show in one step."""

    latents: Float[Tensor, "n c h w"]
    """Particles v, attached to the parameters by autograd."""
    extra: Float[Tensor, ""] | None = None
    """A loss of the application's own, with its weight; None if it has none."""


@runtime_checkable
class Parameterisation(Protocol):
    """Particles as a function of parameters."""

    def parameters(self) -> Iterable[nn.Parameter]:
        """Theta; all of them are trained."""
        ...

    def __call__(self, generator: torch.Generator) -> Rendering:
        """The particles of one step, as many as the target has rows; what is random comes from `generator`."""
        ...


@runtime_checkable
class Objective(Protocol):
    """What gives the gradient into the particles: `LatentLosses`, or what adds to it."""

    def __call__(self, latents: Float[Tensor, "n c h w"], target: Target, generator: torch.Generator) -> LatentStep:
        """Total gradient into the particles. Raises `NonFiniteError`."""
        ...


def optimize_parameters(
    losses: Objective,
    shown: Parameterisation,
    target: Target,
    optimizer: torch.optim.Optimizer,
    steps: int,
    generator: torch.Generator,
    *,
    first_step: int = 0,
    on_step: Callable[[int, LatentStep], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Reached:
    """Train theta in place.

    Each step draws what `shown` draws, then what the losses draw, all from `generator`: with its state, that of the
    optimiser and `first_step` an optimisation goes on exactly where it was left. `on_step(steps_done, step)` is called
    after each step; `should_stop()` is asked before each.

    Raises `NonFiniteError` with the step and, in `partial`, the `Reached` before it; a step whose gradient is not
    finite is not made.
    """
    samples, parameters = 0, list(shown.parameters())
    for done in range(first_step, steps):
        if should_stop is not None and should_stop():
            return Reached(done, samples)
        try:
            with torch.enable_grad():
                rendering = shown(generator)
            step = losses(rendering.latents, target, generator)
            optimizer.zero_grad(set_to_none=True)
            _propagate(rendering, step)
            _check(parameters, step.t)
        except NonFiniteError as error:
            raise NonFiniteError(error.what, error.t, error.particle, done, Reached(done, samples)) from None
        optimizer.step()
        samples += step.network_samples
        if on_step is not None:
            on_step(done + 1, step)
    return Reached(max(steps, first_step), samples)


def set_linear_rate(optimizer: torch.optim.Optimizer, lr: float, lr_end: float, done: int, steps: int) -> None:
    """Set the learning rate of the step after `done` ones: linear from `lr` to `lr_end * lr` at the last step."""
    share = min(1.0, done / max(1, steps - 1))
    for group in optimizer.param_groups:
        group["lr"] = lr * (1 - share * (1 - lr_end))


def _propagate(rendering: Rendering, step: LatentStep) -> None:
    """Both gradients, in one pass back through the parameterisation."""
    tensors, gradients = [rendering.latents], [step.gradient.to(rendering.latents)]
    if rendering.extra is not None:
        tensors.append(rendering.extra)
        gradients.append(torch.ones_like(rendering.extra))
    torch.autograd.backward(tensors, gradients)


def _check(parameters: list[nn.Parameter], t: int | None) -> None:
    for parameter in parameters:
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
            raise NonFiniteError("the gradient of the parameters", t, 0)
