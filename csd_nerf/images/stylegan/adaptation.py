"""A generator's domain moved by words alone (LDP Sections 4.1 and 5.2, on StyleGANFusion, Song et al. 2022).

Particles are the latents of pictures that the generator makes, `v = E(G_theta(z))` for new z in each step; the gradient
of LDP Eq. 4 into them goes back through the frozen encoder E into theta. What StyleGANFusion's released code adds:

- *Which weights train*: those of the convolutions from 8 x 8 pixels up with their affine maps and noise strengths.
  The mapping network, the colours, the constant, the first convolution and all biases stay. So the layout that w means
  is kept.
- *Bounds*: the gradient into the latents is clamped to -1..1; that into each picture is clipped, element by element,
  at the 95th percentile of its absolute values, so that a few pixels do not decide a step.
- *Directional regulariser*: w(t) (eps_hat(v_t) - eps_hat(v'_t)), both guided towards the prompt under one noise, with
  v' the latents of the frozen source generator for the same z and noise. It pulls towards the sources: with a weight
  of 1 it is Delta Denoising Score's form with one prompt for both. Its noise level is drawn anew, not that of the step.
- *Adam* with StyleGAN2's correction for lazy regularisation, though nothing is regularised: lr r and betas
  (0^r, 0.99^r), r = 4 / 5. A learning rate of 0.002 is therefore 0.0016. (The released code halves it once more.)

The mean of w is measured anew at the end only if the mapping network was trained.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from csd_nerf.distill import (
    LDP_WEIGHTS,
    CountingPrior,
    ImagePrior,
    IndependentKernel,
    IndependentNoise,
    LatentLosses,
    LatentStep,
    LossWeights,
    RBFKernel,
    Rendering,
    SharedNoise,
    SourceScore,
    Target,
    TextGuidance,
    UniformTimesteps,
    latent_score_distiller,
    optimize_parameters,
)
from csd_nerf.images.checkpoint import Checkpoint
from csd_nerf.images.running import Hooks, Outcome, run_steps
from csd_nerf.images.stylegan.bounds import GuidedLosses, clip_at_percentile
from csd_nerf.images.stylegan.generator import Generator
from csd_nerf.priors import LatentDiffusionPrior
from csd_nerf.priors.decoder_features import decoder_of

Trained = Literal["fusion", "synthesis", "all"]
REGULARISED_EVERY = 4


@dataclass(frozen=True, kw_only=True)
class AdaptSettings:
    """How a generator is adapted. The defaults are LDP Section 5.2's and StyleGANFusion's."""

    losses: LossWeights = LDP_WEIGHTS["stylegan"]
    """Lambdas of LDP Eq. 4."""
    steps: int = 2000
    lr: float = 0.002
    """Adam's, before it is multiplied by 4 / 5."""
    samples: int = 4
    """Pictures in a step, the particles."""
    kernel: Literal["independent", "rbf"] = "independent"
    """Whether samples are each alone (SDS) or listen to each other (CSD Eq. 3)."""
    noise: Literal["independent", "shared"] = "independent"
    """Whether samples see noise of their own."""
    guidance_scale: float = 100.0
    t_min: float = 0.01
    """Lowest noise level, a fraction of the schedule."""
    t_max: float = 0.5
    directional: float = 0.0
    """Weight of the directional regulariser; 0 leaves it out."""
    clamp: float | None = 1.0
    """Largest gradient of a latent element; None does not bound it."""
    percentile: float | None = 95.0
    """Of a picture's absolute gradients, at which they are clipped; None does not."""
    trained: Trained = "fusion"
    """fusion: see above. synthesis: constant, all convolutions and their biases (StyleGAN-NADA). all: all weights."""

    def __post_init__(self) -> None:
        """Raise `ValueError`, naming the field and the remedy, for values that cannot work."""
        clamp, percentile = self.clamp, self.percentile
        problems = [
            (self.steps < 1, f"steps={self.steps}: give at least 1"),
            (self.samples < 1, f"samples={self.samples}: give at least 1"),
            (not 0 < self.lr < math.inf, f"lr={self.lr}: give a positive learning rate"),
            (not 0 <= self.guidance_scale < math.inf, f"guidance_scale={self.guidance_scale}: give 0 or more"),
            (
                not 0 <= self.t_min <= self.t_max <= 1,
                f"t_min={self.t_min}, t_max={self.t_max}: give two of 0..1 in order",
            ),
            (not 0 <= self.directional < math.inf, f"directional={self.directional}: give 0 or more"),
            (clamp is not None and not 0 < clamp < math.inf, f"clamp={clamp}: give a positive bound, or none"),
            (
                percentile is not None and not 0 < percentile <= 100,
                f"percentile={percentile}: give one of 0..100",
            ),
            (
                not self.losses.lsd and not self.losses.feature_matching,
                "give LSD or FM a weight, or none hears the prompt",
            ),
        ]
        for wrong, message in problems:
            if wrong:
                raise ValueError(message)


TOY: Mapping[str, Any] = {"guidance_scale": 7.5, "t_max": 0.8, "steps": 150}
"""Settings for the toy prior, found by looking: more steps gather all pictures on one background."""
TOY_LOSSES = LossWeights(feature_matching=0.01, kl=0.05)
"""Lambdas for the toy prior: at the paper's 3 its decoder's features outweigh the score four hundred times."""


@dataclass(frozen=True)
class AdaptResult:
    """A generator that was adapted."""

    generator: Generator
    """The adapted one."""
    outcome: Outcome
    """Where it stands, whether it is complete, and why it is not."""
    steps: tuple[LatentStep, ...]
    """The last steps of this call, 50 at most: what each loss did."""


def adapt(
    source: Generator,
    prior: LatentDiffusionPrior,
    prompt: str,
    settings: AdaptSettings | None = None,
    *,
    negative_prompt: str = "",
    seed: int = 0,
    before: Checkpoint | None = None,
    hooks: Hooks | None = None,
) -> AdaptResult:
    """Adapt a copy of a generator to a caption; the source is not changed.

    Args:
        source: The generator, on the prior's device.
        prior: Any latent diffusion model; its size is that which the pictures are brought to.
        prompt: What the pictures should show, a caption.
        settings: Losses, weights to train, bounds.
        negative_prompt: What to stay away from.
        seed: Of the latents z, noises and timesteps.
        before: Where an earlier call was stopped; it goes on to the very same generator.
        hooks: Progress, states, and the wish to stop.

    Raises `ValueError` for an empty prompt.
    """
    settings = settings or AdaptSettings()
    if not prompt.strip():
        raise ValueError('the prompt is empty: say what the pictures should show, such as "a blue mushroom"')
    work = _Adaptation(source, prior, prompt, negative_prompt, settings, seed)
    if before is not None:
        work.shown.adapted.load_state_dict(before.networks["generator"])
        work.optimizer.load_state_dict(before.networks["optimizer"])
    outcome = run_steps(work, before, hooks or Hooks(), lambda done: None)
    adapted = work.shown.adapted.requires_grad_(False)
    if settings.trained == "all":
        adapted.measure_mean_w(torch.Generator().manual_seed(0))
    return AdaptResult(adapted, outcome, tuple(work.history))


def trained_parameters(generator: Generator, which: Trained) -> Iterator[nn.Parameter]:
    """The weights that are adapted."""
    for name, parameter in generator.named_parameters():
        if which == "fusion":
            chosen = name.startswith("convs.") and not name.startswith("convs.0.") and not name.endswith(".bias")
        else:
            chosen = which == "all" or not name.startswith(("mapping.", "to_rgb."))
        if chosen:
            yield parameter


class GeneratedLatents:
    """Latents of new pictures in each call, attached to the weights that are trained; a `Parameterisation`."""

    def __init__(self, source: Generator, prior: LatentDiffusionPrior, settings: AdaptSettings) -> None:
        """The source generator is kept as it is; what is trained is a copy."""
        self.source, self.prior, self.settings = source, prior, settings
        self.adapted = copy.deepcopy(source).requires_grad_(False)
        for parameter in trained_parameters(self.adapted, settings.trained):
            parameter.requires_grad_(True)
        self.before: Tensor | None = None
        """The source generator's latents of the same z and noise, if the directional regulariser needs them."""

    def parameters(self) -> Iterable[nn.Parameter]:
        """The weights that are trained."""
        return trained_parameters(self.adapted, self.settings.trained)

    def __call__(self, generator: torch.Generator) -> Rendering:
        """Draw z and the generator's noise, and make pictures of the prior's size."""
        count = self.settings.samples
        z = torch.randn(count, self.source.shape.style, generator=generator).to(self.source.constant.device)
        noise = self.adapted.noise("random", count, generator)
        latents = self._latents(self.adapted, z, noise, clipped=self.settings.percentile)
        if self.settings.directional:
            with torch.no_grad():
                self.before = self._latents(self.source, z, noise, clipped=None)
        return Rendering(latents)

    def _latents(self, network: Generator, z: Tensor, noise: list[Tensor | None], clipped: float | None) -> Tensor:
        images = network.synthesise(network.styles(z), noise)
        size = self.prior.size
        if images.shape[-1] != size:
            smaller = size < images.shape[-1]
            images = F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=smaller)
        images = images.clamp(-1, 1)
        if clipped is not None:
            share = clipped / 100
            images.register_hook(lambda gradient: clip_at_percentile(gradient, share))
        return self.prior.autoencoder.encode_attached(images / 2 + 0.5)


class _Adaptation:
    """Steps that are counted, stopped and resumed: a `Steps`."""

    prior: ImagePrior

    def __init__(
        self,
        source: Generator,
        prior: LatentDiffusionPrior,
        prompt: str,
        negative: str,
        settings: AdaptSettings,
        seed: int,
    ) -> None:
        self.prior, self.settings = prior, settings
        self.generator = torch.Generator().manual_seed(seed)
        self.shown = GeneratedLatents(source, prior, settings)
        text, null = (prior.encode_text([words]).expand(settings.samples, -1, -1) for words in (prompt, negative))
        self.target = Target((text,), null)
        ratio = REGULARISED_EVERY / (REGULARISED_EVERY + 1)
        self.optimizer = torch.optim.Adam(
            list(self.shown.parameters()), lr=settings.lr * ratio, betas=(0.0**ratio, 0.99**ratio)
        )
        self.history: list[LatentStep] = []

    @property
    def total(self) -> int:
        return self.settings.steps

    @property
    def resumable(self) -> bool:
        return True

    @property
    def latents(self) -> Tensor:
        return torch.empty(0)

    @property
    def networks(self) -> Mapping[str, Any]:
        return copy.deepcopy({"generator": self.shown.adapted.state_dict(), "optimizer": self.optimizer.state_dict()})

    def solve(
        self,
        prior: CountingPrior,
        first_step: int,
        report: Callable[[int], None],
        should_stop: Callable[[], bool] | None,
    ) -> int:
        def on_step(done: int, step: LatentStep) -> None:
            self.history = [*self.history[-49:], step]
            report(done)

        return optimize_parameters(
            self._objective(prior),
            self.shown,
            self.target,
            self.optimizer,
            self.settings.steps,
            self.generator,
            first_step=first_step,
            on_step=on_step,
            should_stop=should_stop,
        ).steps

    def _objective(self, prior: CountingPrior) -> GuidedLosses:
        settings = self.settings
        timesteps = UniformTimesteps(settings.t_min, settings.t_max)
        alone = latent_score_distiller(prior, guidance_scale=settings.guidance_scale, timesteps=timesteps)
        kernel = RBFKernel() if settings.kernel == "rbf" else IndependentKernel()
        noise = SharedNoise() if settings.noise == "shared" else IndependentNoise()
        decoder = decoder_of(self.prior) if settings.losses.feature_matching else None
        losses = LatentLosses(replace(alone, kernel=kernel, noise=noise), settings.losses, decoder)
        pull = replace(alone, baseline=SourceScore(TextGuidance(settings.guidance_scale)))
        return GuidedLosses(losses, settings.clamp, settings.directional, pull, lambda: self.shown.before)
