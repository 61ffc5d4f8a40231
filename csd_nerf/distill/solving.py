"""How the latents of one group of pictures are found: by descending with the distiller, or in another way.

`edit_images` takes care of sizes, codec, prompts and progress; a `Solver` only goes from latents to latents.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.distill.banked import AnswerBank, BankedBaseline
from csd_nerf.distill.baselines import InjectedNoise, SourceScore
from csd_nerf.distill.distiller import Distiller, NonFiniteError
from csd_nerf.distill.guidance import GuidanceInterval, ImageGuidance, ImageTextGuidance, JointGuidance, TextGuidance
from csd_nerf.distill.kernels import IndependentKernel, RBFKernel, median_bandwidth, released_bandwidth
from csd_nerf.distill.noise import IndependentNoise, SharedNoise
from csd_nerf.distill.optimize import OptimizeResult, OptimizeSettings, optimize_latents
from csd_nerf.distill.presets import EditSettings
from csd_nerf.distill.schedule import NoiseSchedule, UniformTimesteps
from csd_nerf.distill.types import Guidance, NoiseSource, ScorePrior, Target

_BANDWIDTHS = {"median": median_bandwidth, "released": released_bandwidth}
_NOISES: dict[str, NoiseSource] = {"shared": SharedNoise(), "independent": IndependentNoise()}


@dataclass(frozen=True)
class Solution:
    """What became of one group of pictures."""

    latents: Float[Tensor, "n c h w"]
    """As far as they are worth decoding."""
    steps: int
    """Steps that led to `latents`; fewer than asked for if it was stopped or failed, 0 if they are the start."""
    failure: NonFiniteError | None = None
    """Why it ended before its time, if it was not stopped."""


@runtime_checkable
class Solver(Protocol):
    """Finds the latents of one group of pictures."""

    def __call__(
        self,
        prior: ScorePrior,
        start: Float[Tensor, "n c h w"],
        target: Target,
        settings: EditSettings,
        generator: torch.Generator,
        on_step: Callable[[int], None],
        should_stop: Callable[[], bool] | None,
    ) -> Solution:
        """Edit `start` towards `target`; `on_step(done)` after each step, `should_stop()` is asked before each."""
        ...


def guidance_of(settings: EditSettings, schedule: NoiseSchedule) -> Guidance:
    """Guidance of the edited pictures: by text alone, or by picture and text, each or (at some levels) as one."""
    full = settings.resolved()
    if full.parts.text_only:
        return TextGuidance(full.guidance_scale)
    assert full.image_guidance_scale is not None
    guidance = ImageTextGuidance(full.guidance_scale, full.image_guidance_scale)
    if (full.text_t_min is None and full.text_t_max is None) or not full.guidance_scale:
        return guidance
    highest = 1.0 if full.text_t_max is None else full.text_t_max
    low, high = UniformTimesteps(full.text_t_min or 0.0, highest).bounds(schedule)
    return GuidanceInterval(guidance, JointGuidance(full.image_guidance_scale), low, high)


def noise_of(settings: EditSettings) -> NoiseSource:
    """Where the noise of one group comes from. Raises `ValueError` for that of a canvas, which only panoramas have."""
    noise = settings.resolved().noise
    if noise not in _NOISES:
        raise ValueError(f"noise={noise}: only the patches of a panorama share a canvas; take shared or independent")
    return _NOISES[noise]


def timesteps_of(settings: EditSettings) -> UniformTimesteps:
    """Which noise levels are drawn."""
    full = settings.resolved()
    assert full.t_min is not None and full.t_max is not None
    return UniformTimesteps(full.t_min, full.t_max)


def make_edit_distiller(prior: ScorePrior, settings: EditSettings, bank: AnswerBank | None = None) -> Distiller:
    """The distiller that `settings` describe; what it asks about the source is kept in `bank`.

    Raises `ValueError` for editors that sample.
    """
    full = settings.resolved()
    if full.parts.samples:
        raise ValueError(
            f"editor={full.editor} samples: give edit_images its solver, csd_nerf.priors.solver_of(editor)"
        )
    assert full.image_guidance_scale is not None and full.bandwidth and full.mixing and full.repulsion
    guidance = guidance_of(full, prior.schedule)
    untold = guidance if full.parts.text_only else ImageGuidance(full.image_guidance_scale)
    baseline = SourceScore(untold) if full.baseline == "source" else InjectedNoise()
    return Distiller(
        prior=prior,
        guidance=guidance,
        kernel=RBFKernel(_BANDWIDTHS[full.bandwidth]) if full.kernel == "rbf" else IndependentKernel(),
        baseline=baseline if bank is None else BankedBaseline(baseline, bank),
        noise=noise_of(full),
        timesteps=timesteps_of(full),
        mixing=full.mixing,
        repulsion=full.repulsion,
    )


def distil(
    prior: ScorePrior,
    start: Float[Tensor, "n c h w"],
    target: Target,
    settings: EditSettings,
    generator: torch.Generator,
    on_step: Callable[[int], None],
    should_stop: Callable[[], bool] | None,
    bank: AnswerBank | None = None,
) -> Solution:
    """The `Solver` of the editors that distil. A failure comes with what was reached before it."""
    distiller = make_edit_distiller(prior, settings, bank)
    options = optimize_settings(settings)
    try:
        reached = optimize_latents(
            distiller,
            start,
            target,
            options,
            generator,
            on_step=lambda done, _: on_step(done),
            should_stop=should_stop,
        )
    except NonFiniteError as error:
        assert isinstance(error.partial, OptimizeResult)
        return Solution(error.partial.latents, error.partial.steps, error)
    return Solution(reached.latents, reached.steps)


def optimize_settings(settings: EditSettings) -> OptimizeSettings:
    """What of the settings concerns the optimisation."""
    full = settings.resolved()
    assert full.lr is not None
    return OptimizeSettings(
        lr=full.lr,
        steps=full.total_steps,
        lr_decay=full.lr_decay,
        lr_decay_every=full.lr_decay_every,
        batch_size=full.batch_size,
    )
