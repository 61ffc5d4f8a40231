"""A generator's domain moved by words alone (LDP Sections 4.1 and 5.2, on StyleGANFusion, Song et al. 2022).

Particles are the latents of pictures that the generator makes, `v = E(G_theta(z))` for new z in each step; the gradient
of LDP Eq. 4 into them goes back through the frozen encoder E into theta. What StyleGANFusion's released code adds:

- *Which weights train*: those of the convolutions from 8 x 8 pixels up with their affine maps and noise strengths.
  The mapping network, the colours, the constant, the first convolution and all biases stay. So the layout that w means
  is kept.
- *Bounds*: the gradient into the latents (here of all of Eq. 4) is clamped to -1..1; that into each picture is clipped,
  element by element, at the 95th percentile of its absolute values, so that a few pixels do not decide a step.
- *Directional regulariser*: w(t) (eps_hat(v_t) - eps_hat(v'_t)), both guided towards the prompt under one noise, with
  v' the latents of the frozen source generator for the same z and noise. It pulls towards the sources: with a weight
  of 1 it is Delta Denoising Score's form with one prompt for both. Its t is the step's, its noise is drawn anew. Times
  its weight it is clamped as the other is, on its own; in the pictures it is not clipped.
- *Adam* with StyleGAN2's correction for lazy regularisation, though nothing is regularised: lr r and betas
  (0^r, 0.99^r), r = 4 / 5. A learning rate of 0.002 is therefore 0.0016. (The released code halves it once more.)

The mean of w is measured anew at the end only if the mapping network was trained.

What this does otherwise: several pictures make a step (there one); the generator's own noise is drawn anew for each
(there it is the checkpoint's, always the same, to which weights may fit themselves); pictures are smoothed before they
are shrunk to the prior's size; and a mapping network that is trained makes its own w (there the source's makes both).

What it has and this has not: the choice of the layers that train, anew in each step, by how far one step moves their w
(`auto_layer_k`); guided scores that are brought to the norm of noise, in the loss or in the regulariser
(`rescaleCFG_Noise`, `rescale_CFGDirectionNoise`); the regulariser that reconstructs the source, and that by LPIPS; and
EG3D. Gradients that are not finite end the adaptation here; there they become 0.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from csd_nerf.distill import (
    CountingPrior,
    ImagePrior,
    IndependentKernel,
    IndependentNoise,
    LatentLosses,
    LatentStep,
    RBFKernel,
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
from csd_nerf.images.stylegan.bounds import GuidedLosses
from csd_nerf.images.stylegan.generated import GeneratedLatents
from csd_nerf.images.stylegan.generator import Generator
from csd_nerf.images.stylegan.settings import AdaptSettings
from csd_nerf.priors import LatentDiffusionPrior
from csd_nerf.priors.decoder_features import decoder_of, matched_together

REGULARISED_EVERY = 4


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
        rows = matched_together(self.prior.size, self.prior.size)
        losses = LatentLosses(replace(alone, kernel=kernel, noise=noise), settings.losses, decoder, rows_per_call=rows)
        pull = replace(alone, baseline=SourceScore(TextGuidance(settings.guidance_scale)))
        return GuidedLosses(losses, settings.clamp, settings.directional, pull, self.shown)
