"""Pictures from words alone: free latents, trained by the diffusion prior (LDP Sections 4.2 and 5.4, Figure 7).

    from csd_nerf.images import synthesize
    from csd_nerf.images.synthesis import TOY, SynthesisSettings
    from csd_nerf.images.writing import contact_sheet
    from csd_nerf.priors import load_prior

    settings = SynthesisSettings(samples=2, **{**TOY, "steps": 200})
    result = synthesize(load_prior("toy"), "a red mushroom on a meadow, front view", settings)
    contact_sheet([("red mushroom", list(result.images[0]))]).save("mushrooms.png")

Latents of the prior's size begin as noise and follow the gradient of LDP Eq. 4 with AdamW. Several samples are the
particles of CSD (Eq. 3): the kernel lets those that look alike share their score and pushes them apart. An ablation
runs several sets of losses from the same noise, one after the other, each with the same draws of timesteps and noise.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from csd_nerf.distill import LDP_WEIGHTS, ImagePrior, LossRecord, LossWeights
from csd_nerf.images.checkpoint import Checkpoint
from csd_nerf.images.running import Hooks
from csd_nerf.priors.decoder_features import DEFAULT_LEVELS


@dataclass(frozen=True, kw_only=True)
class SynthesisSettings:
    """How pictures are made. The defaults are LDP Section 5.4's, which names neither guidance nor timesteps."""

    losses: LossWeights = LDP_WEIGHTS["synthesis"]
    """Lambdas of LDP Eq. 4."""
    samples: int = 1
    """Pictures of one prompt."""
    kernel: Literal["rbf", "independent"] = "rbf"
    """Whether samples listen to each other (CSD Eq. 3) or are each alone (SDS); no matter for a single one."""
    noise: Literal["independent", "shared"] = "independent"
    """Whether samples see noise of their own."""
    steps: int = 1000
    lr: float = 0.1
    """Learning rate of AdamW, whose weight decay is torch's 0.01."""
    lr_end: float = 1.0
    """Share of the learning rate that the last step has; it falls linearly. 1 is the paper's constant rate."""
    guidance_scale: float = 7.5
    t_min: float = 0.2
    """Lowest noise level, a fraction of the schedule; SDS's range (CSD C)."""
    t_max: float = 0.98
    levels: tuple[str, ...] = DEFAULT_LEVELS
    """Of the decoder, for feature matching."""

    def validate(self) -> None:
        """Raise `ValueError`, naming the field and the remedy, for values that cannot work."""
        problems = [
            (self.kernel not in ("rbf", "independent"), f"kernel={self.kernel} is unknown: take rbf or independent"),
            (
                self.noise not in ("independent", "shared"),
                f"noise={self.noise} is unknown: take independent or shared",
            ),
            (self.samples < 1, f"samples={self.samples}: give at least 1"),
            (self.steps < 1, f"steps={self.steps}: give at least 1"),
            (not 0 < self.lr < math.inf, f"lr={self.lr}: give a positive learning rate"),
            (not 0 <= self.lr_end <= 1, f"lr_end={self.lr_end}: give a share in [0, 1]"),
            (not 0 <= self.guidance_scale < math.inf, f"guidance_scale={self.guidance_scale}: give 0 or more"),
            (not 0 <= self.t_min <= 1, f"t_min={self.t_min}: give a fraction of the schedule in [0, 1]"),
            (not 0 <= self.t_max <= 1, f"t_max={self.t_max}: give a fraction of the schedule in [0, 1]"),
            (self.t_min > self.t_max, f"t_min={self.t_min} is above t_max={self.t_max}: swap them"),
        ]
        for wrong, message in problems:
            if wrong:
                raise ValueError(message)
        check_weights(self.losses)


TOY: Mapping[str, Any] = {
    "losses": LossWeights(feature_matching=0.005, kl=1.0),
    "steps": 300,
    "lr_end": 0.1,
    "t_min": 0.02,
}
"""Settings for the toy prior, found by looking. At the paper's lambda of 3 feature matching's gradient is fifty times
that of LSD here and weaves a net of noise; at 0.1 it is three times and paints eyes where none belong, at 0.02 as long
and still some (`benchmarks/results/synthesis`)."""


def ablation_of(losses: LossWeights) -> dict[str, LossWeights]:
    """LDP Figure 7: latent score distillation alone, with each of the two other losses, and with both."""
    return {
        "LSD": replace(losses, feature_matching=0.0, kl=0.0),
        "LSD + FM": replace(losses, kl=0.0),
        "LSD + KL": replace(losses, feature_matching=0.0),
        "LSD + FM + KL": losses,
    }


def check_ablation(losses: LossWeights) -> None:
    """Raise `ValueError` for a loss that is switched off already."""
    if not (losses.lsd and losses.feature_matching and losses.kl):
        raise ValueError(
            "ablation=True: each of the three losses must have a weight above 0, or there is nothing to leave out"
        )


def check_weights(losses: LossWeights) -> None:
    """Raise `ValueError` if no loss that asks the network is switched on: the prompt would not be heard."""
    if not losses.lsd and not losses.feature_matching:
        raise ValueError("lambda_lsd=0 and lambda_fm=0: give one of them a weight, or the prompt is not heard")


@dataclass(frozen=True)
class SynthesisResult:
    """Pictures of one prompt."""

    images: Float[Tensor, "v n 3 H W"]
    """In [0, 1], float32 on the CPU: for each set of losses the samples; those not begun are decoded noise."""
    names: tuple[str, ...]
    """Of the sets of losses."""
    losses: tuple[LossRecord | None, ...]
    """What each loss did: means over the last tenth of the steps; None for sets that made none of them."""
    checkpoint: Checkpoint
    """Where it stands; its steps are those of all sets of losses, one after the other."""
    complete: bool = True
    """False if it was stopped before the last step."""


def synthesize(
    prior: ImagePrior,
    prompt: str,
    settings: SynthesisSettings | None = None,
    *,
    ablation: bool = False,
    negative_prompt: str = "",
    seed: int = 0,
    resume: Checkpoint | None = None,
    on_step: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> SynthesisResult:
    """Make pictures of a caption.

    Args:
        prior: Any latent diffusion model; InstructPix2Pix is told 'no picture'. Models that work on pixels have no
            decoder and so no feature matching.
        prompt: The caption.
        settings: None takes the paper's.
        ablation: Run the four sets of losses of LDP Figure 7 instead of the settings' own.
        negative_prompt: What to stay away from.
        seed: Same seed, same pictures.
        resume: Go on from where a call with the same arguments was stopped.
        on_step: Called as `on_step(done, total)`.
        should_stop: When it turns true, what was reached is returned.

    Raises `ValueError`, before any work, for what cannot work, and `NonFiniteError` with the `SynthesisResult` reached
    before in `partial`; where that cannot be decoded either, None.
    """
    from csd_nerf.images.synthesis_run import prepare_synthesis

    work = prepare_synthesis(prior, prompt, settings or SynthesisSettings(), ablation, negative_prompt, seed)
    return work.run(resume, Hooks(on_step, should_stop=should_stop))


def check_prompt(prompt: str) -> None:
    """Raise `ValueError` for an empty one."""
    if not prompt.strip():
        raise ValueError('the prompt is empty: give a caption, such as "a red mushroom on a meadow"')
