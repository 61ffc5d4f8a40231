"""What the edits of pictures and of videos share: steps that are counted, stopped, resumed and never lost."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.distill import CountingPrior, EditSettings, ImagePrior, NonFiniteError, Reached
from csd_nerf.images.checkpoint import Checkpoint

TOY: Mapping[str, Any] = {"guidance_scale": 3.0, "t_max": 0.8}
"""Settings for the toy prior: it is judged at guidance 3 (its card), and to add things it needs more noise than the
paper's 0.5."""

SAMPLING_STEPS = 50
"""Of editors that sample, where no number is given."""


def with_steps(settings: EditSettings, fitting: int) -> EditSettings:
    """Settings that say how many steps: as given, else of editors that optimise `fitting`, of others 50.

    Where `fitting` is taken the learning rate falls ten times over all of them, as over 200 steps in the paper.
    """
    if settings.steps is not None:
        return settings
    if settings.parts.samples:
        return replace(settings, steps=SAMPLING_STEPS)
    return replace(settings, steps=fitting, lr_decay_every=max(1, fitting // 10))


def steps_of_some(settings: EditSettings, visits: float, some: int) -> EditSettings:
    """Settings under which each of `some` particles is optimised `visits` times, with as many falls of the rate."""
    if settings.batch_size is None or settings.parts.samples:
        return settings
    steps = max(1, round(visits * some / min(settings.batch_size, some)))
    every = max(1, round(settings.lr_decay_every * steps / settings.total_steps))
    return replace(settings, steps=steps, lr_decay_every=every)


@dataclass(frozen=True)
class Hooks:
    """What a caller wants to know of an edit, and how it ends it."""

    on_step: Callable[[int, int], None] | None = None
    """Called as `on_step(done, total)`."""
    on_state: Callable[[int, Callable[[], Checkpoint]], None] | None = None
    """Called after each step with their number and with what makes a checkpoint of it, if one is wanted."""
    should_stop: Callable[[], bool] | None = None
    """Asked before each step: when it turns true, what was reached is returned."""
    on_reached: Callable[[Checkpoint], None] | None = None
    """Called once with what the steps led to, complete or not, before it is decoded: what comes then may fail. Not
    called where there is nothing to go on from: after no step, after a failure, which would only come again, and for
    editors that sample before they are complete."""


@dataclass(frozen=True)
class Outcome:
    """How an edit ended."""

    checkpoint: Checkpoint
    """Where it stands."""
    complete: bool
    """Whether all steps were made."""
    failure: NonFiniteError | None = None
    """Why it ended before its time, if it was not stopped."""


@runtime_checkable
class Steps(Protocol):
    """Work that is made of steps."""

    prior: ImagePrior
    generator: torch.Generator

    @property
    def total(self) -> int:
        """Steps in all."""
        ...

    @property
    def resumable(self) -> bool:
        """Whether it can go on from a step in the middle."""
        ...

    @property
    def latents(self) -> Float[Tensor, "*shape"]:
        """What is optimised, as it is now."""
        ...

    @property
    def networks(self) -> Mapping[str, Any]:
        """What else it must know to go on, such as the optimiser's moments."""
        ...

    def solve(
        self,
        prior: CountingPrior,
        first_step: int,
        report: Callable[[int], None],
        should_stop: Callable[[], bool] | None,
    ) -> int:
        """Make the steps from `first_step` on, and say how many led to `latents`. Raises `NonFiniteError`."""
        ...


class EditSteps:
    """The part of `Steps` that follows from the settings of an edit."""

    settings: EditSettings

    @property
    def total(self) -> int:
        """Steps in all."""
        return self.settings.total_steps

    @property
    def resumable(self) -> bool:
        """Editors that sample start anew."""
        return not self.settings.parts.samples

    @property
    def networks(self) -> Mapping[str, Any]:
        """SGD without momentum remembers nothing."""
        return {}


def run_steps(steps: Steps, before: Checkpoint | None, hooks: Hooks, report: Callable[[int], None]) -> Outcome:
    """Make the steps that `before` does not have; `report(done)` after each. What is complete is not begun again."""
    started, counted, first = time.monotonic(), CountingPrior(steps.prior), 0
    samples, seconds = 0, 0.0
    if before is not None:
        steps.generator.set_state(before.generator)
        first, samples, seconds = before.step, before.network_samples, before.seconds

    def state(done: int) -> Checkpoint:
        spent = samples + counted.samples, seconds + time.monotonic() - started
        return Checkpoint(done, steps.latents.cpu(), steps.generator.get_state(), *spent, networks=dict(steps.networks))

    def after(done: int) -> None:
        if hooks.on_state is not None and steps.resumable:
            hooks.on_state(done, lambda: state(done))
        if hooks.on_step is not None:
            hooks.on_step(done, steps.total)
        report(done)

    failure = None
    try:
        made = first if first >= steps.total else steps.solve(counted, first, after, hooks.should_stop)
    except NonFiniteError as error:
        made, failure = error.partial.steps if isinstance(error.partial, Reached) else first, error
    reached, complete = state(made), failure is None and made >= steps.total
    if hooks.on_reached is not None and failure is None and made and (complete or steps.resumable):
        hooks.on_reached(reached)
    return Outcome(reached, complete, failure)
