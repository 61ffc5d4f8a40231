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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from csd_nerf.distill import (
    LDP_WEIGHTS,
    Distiller,
    ImagePrior,
    IndependentKernel,
    IndependentNoise,
    LatentLosses,
    LatentStep,
    LossRecord,
    LossWeights,
    NonFiniteError,
    RBFKernel,
    Reached,
    Rendering,
    SharedNoise,
    Target,
    UniformTimesteps,
    latent_score_distiller,
    mean_losses,
    optimize_parameters,
    set_linear_rate,
)
from csd_nerf.distill.counting import CountingPrior
from csd_nerf.images.checkpoint import Checkpoint
from csd_nerf.images.running import Hooks, run_steps
from csd_nerf.priors.decoder_features import DEFAULT_LEVELS, decoder_of

_MEAN_OVER = 10
"""Losses are averaged over this share of the steps, the last tenth."""


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
    "losses": LossWeights(feature_matching=0.1, kl=1.0),
    "steps": 300,
    "lr_end": 0.1,
    "t_min": 0.02,
}
"""Settings for the toy prior, found by looking: at the paper's lambda of 3 feature matching's gradient is fifty times
that of LSD here, and draws a weave of noise."""


def ablation_of(losses: LossWeights) -> dict[str, LossWeights]:
    """LDP Figure 7: latent score distillation alone, with each of the two other losses, and with both."""
    return {
        "LSD": replace(losses, feature_matching=0.0, kl=0.0),
        "LSD + FM": replace(losses, kl=0.0),
        "LSD + KL": replace(losses, feature_matching=0.0),
        "LSD + FM + KL": losses,
    }


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
    """What each loss did: means over the last tenth of the steps; None for sets that made none in this call."""
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
    before in `partial`.
    """
    work = prepare_synthesis(prior, prompt, settings or SynthesisSettings(), ablation, negative_prompt, seed)
    return work.run(resume, Hooks(on_step, should_stop=should_stop))


def prepare_synthesis(
    prior: ImagePrior,
    prompt: str,
    settings: SynthesisSettings,
    ablation: bool = False,
    negative_prompt: str = "",
    seed: int = 0,
) -> "Synthesis":
    """Check, encode the prompt and draw the noise to begin with."""
    check_prompt(prompt)
    settings.validate()
    variants = ablation_of(settings.losses) if ablation else {"": settings.losses}
    if ablation and not (settings.losses.lsd and settings.losses.feature_matching and settings.losses.kl):
        raise ValueError(
            "ablation=True: each of the three losses must have a weight above 0, or there is nothing to leave out"
        )
    if any(losses.feature_matching for losses in variants.values()):
        decoder_of(prior, settings.levels)
    generator = torch.Generator().manual_seed(seed)
    text, null = (
        one[None].expand(settings.samples, *one.shape) for one in prior.encode_text([prompt, negative_prompt])
    )
    shape = prior.encode(torch.zeros(1, 3, prior.size, prior.size, device=prior.device)).shape[1:]
    start = torch.randn((settings.samples, *shape), generator=generator).to(prior.device)
    image = torch.zeros_like(start) if prior.takes_image else None
    return Synthesis(prior, settings, variants, Target((text,), null, image), start, generator)


def check_prompt(prompt: str) -> None:
    """Raise `ValueError` for an empty one."""
    if not prompt.strip():
        raise ValueError('the prompt is empty: give a caption, such as "a red mushroom on a meadow"')


class FreeParameters:
    """Latents that are their own parameters, as a `Parameterisation`."""

    def __init__(self, latents: Float[Tensor, "n c h w"]) -> None:
        """`latents` are changed in place."""
        self.latents = nn.Parameter(latents)

    def parameters(self) -> Sequence[nn.Parameter]:
        """The latents."""
        return [self.latents]

    def __call__(self, generator: torch.Generator) -> Rendering:
        """All of them."""
        return Rendering(self.latents)


@dataclass
class Synthesis:
    """Pictures in the making: the `Steps` of all sets of losses, one after the other."""

    prior: ImagePrior
    settings: SynthesisSettings
    variants: Mapping[str, LossWeights]
    target: Target
    start: Float[Tensor, "n c h w"]
    generator: torch.Generator
    networks: Mapping[str, Any] = field(default_factory=dict)
    """State of the optimiser."""

    def __post_init__(self) -> None:
        """Begin all sets of losses with the same noise."""
        self.current = self.start.repeat(len(self.variants), *[1] * self.start.ndim)
        self._draws = self.generator.get_state()
        self._means: list[LossRecord | None] = [None] * len(self.variants)

    @property
    def total(self) -> int:
        """Steps in all."""
        return self.settings.steps * len(self.variants)

    @property
    def resumable(self) -> bool:
        """Always."""
        return True

    @property
    def latents(self) -> Float[Tensor, "v n c h w"]:
        """Those of all sets of losses, as they are now."""
        return self.current

    def run(self, resume: Checkpoint | None = None, hooks: Hooks | None = None) -> SynthesisResult:
        """Do the work; see `synthesize`."""
        if resume is not None:
            self.current.copy_(resume.latents)
            self.networks = resume.networks
        outcome = run_steps(self, resume, hooks or Hooks(), lambda done: None)
        images = self.prior.decode(self.current.flatten(0, 1)).float().cpu().unflatten(0, self.current.shape[:2])
        result = SynthesisResult(images, tuple(self.variants), tuple(self._means), outcome.checkpoint, outcome.complete)
        if outcome.failure is not None:
            error = outcome.failure
            raise NonFiniteError(error.what, error.t, error.particle, error.step, result) from None
        return result

    def solve(
        self,
        prior: CountingPrior,
        first_step: int,
        report: Callable[[int], None],
        should_stop: Callable[[], bool] | None,
    ) -> int:
        """Train the latents of each set of losses; how many steps led to them."""
        each = self.settings.steps
        for number, losses in enumerate(self.variants.values()):
            before = number * each
            if first_step >= before + each:
                continue
            first = max(0, first_step - before)
            if first == 0:
                self.generator.set_state(self._draws)
                self.networks = {}
            reached = self._train(prior, number, losses, first, report, should_stop)
            if reached.steps < each:
                return before + reached.steps
        return self.total

    def _train(
        self,
        prior: CountingPrior,
        number: int,
        losses: LossWeights,
        first: int,
        report: Callable[[int], None],
        should_stop: Callable[[], bool] | None,
    ) -> Reached:
        settings, before = self.settings, number * self.settings.steps
        shown = FreeParameters(self.current[number])
        optimizer = torch.optim.AdamW(shown.parameters(), lr=settings.lr)
        if first:
            optimizer.load_state_dict(dict(self.networks))
        records: list[LossRecord] = []

        def on_step(done: int, step: LatentStep) -> None:
            set_linear_rate(optimizer, settings.lr, settings.lr_end, done, settings.steps)
            if done > settings.steps - max(1, settings.steps // _MEAN_OVER):
                records.append(step.losses)
                self._means[number] = mean_losses(records)
            self.networks = optimizer.state_dict()
            report(before + done)

        set_linear_rate(optimizer, settings.lr, settings.lr_end, first, settings.steps)
        try:
            return optimize_parameters(
                self._losses(prior, losses),
                shown,
                self.target,
                optimizer,
                settings.steps,
                self.generator,
                first_step=first,
                on_step=on_step,
                should_stop=should_stop,
            )
        except NonFiniteError as error:
            made = error.partial.steps if isinstance(error.partial, Reached) else first
            partial = Reached(before + made, 0)
            raise NonFiniteError(error.what, error.t, error.particle, before + made, partial) from None

    def _losses(self, prior: CountingPrior, losses: LossWeights) -> LatentLosses:
        settings = self.settings
        distiller = latent_score_distiller(
            prior,
            guidance_scale=settings.guidance_scale,
            timesteps=UniformTimesteps(settings.t_min, settings.t_max),
        )
        return LatentLosses(
            with_kernel(distiller, settings.kernel, settings.noise),
            losses,
            decoder_of(self.prior, settings.levels) if losses.feature_matching else None,
        )


def with_kernel(distiller: Distiller, kernel: str, noise: str) -> Distiller:
    """A distiller whose particles listen to each other, or see one noise."""
    return replace(
        distiller,
        kernel=RBFKernel() if kernel == "rbf" else IndependentKernel(),
        noise=SharedNoise() if noise == "shared" else IndependentNoise(),
    )
