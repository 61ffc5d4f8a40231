"""Pictures of words in the making, once everything is decided: each set of losses trains latents from one noise."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from csd_nerf.distill import (
    CountingPrior,
    Distiller,
    ImagePrior,
    IndependentKernel,
    IndependentNoise,
    LatentLosses,
    LatentStep,
    LossWeights,
    NonFiniteError,
    RBFKernel,
    Reached,
    Rendering,
    SharedNoise,
    Target,
    UniformTimesteps,
    latent_score_distiller,
    optimize_parameters,
    set_linear_rate,
)
from csd_nerf.images.checkpoint import Checkpoint
from csd_nerf.images.last_tenth import LastTenth
from csd_nerf.images.running import Hooks, run_steps
from csd_nerf.images.synthesis import SynthesisResult, SynthesisSettings, ablation_of, check_ablation, check_prompt
from csd_nerf.priors.decoder_features import decoder_of, matched_together


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
    if ablation:
        check_ablation(settings.losses)
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
    optimizer_state: Mapping[str, Any] = field(default_factory=dict)
    """Of the set of losses that is being trained."""

    def __post_init__(self) -> None:
        """Begin all sets of losses with the same noise."""
        self.current = self.start.repeat(len(self.variants), *[1] * self.start.ndim)
        self._draws = self.generator.get_state()
        self._ends = [LastTenth(self.settings.steps) for _ in self.variants]

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

    @property
    def networks(self) -> Mapping[str, Any]:
        """State of the optimiser, and what each set of losses did at its end."""
        return {**self.optimizer_state, "losses": [end.state() for end in self._ends]}

    def run(self, resume: Checkpoint | None = None, hooks: Hooks | None = None) -> SynthesisResult:
        """Do the work; see `synthesize`."""
        if resume is not None:
            self.current.copy_(resume.latents)
            self.optimizer_state = {name: value for name, value in resume.networks.items() if name != "losses"}
            for end, state in zip(self._ends, resume.networks.get("losses", []), strict=False):
                end.restore(state)
        outcome = run_steps(self, resume, hooks or Hooks(), lambda done: None)
        images = self.prior.decode(self.current.flatten(0, 1)).float().cpu()
        if not (finite := torch.isfinite(images).flatten(1).all(dim=1)).all():
            number = int(torch.nonzero(~finite)[0]) % self.settings.samples
            raise NonFiniteError("the decoded picture", None, number, outcome.checkpoint.step)
        images = images.unflatten(0, self.current.shape[:2])
        losses = tuple(end.mean() for end in self._ends)
        result = SynthesisResult(images, tuple(self.variants), losses, outcome.checkpoint, outcome.complete)
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
                self.optimizer_state = {}
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
            optimizer.load_state_dict(dict(self.optimizer_state))

        def on_step(done: int, step: LatentStep) -> None:
            set_linear_rate(optimizer, settings.lr, settings.lr_end, done, settings.steps)
            self._ends[number].add(done, step.losses)
            self.optimizer_state = optimizer.state_dict()
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
            rows_per_call=matched_together(self.prior.size, self.prior.size),
        )


def with_kernel(distiller: Distiller, kernel: str, noise: str) -> Distiller:
    """A distiller whose particles listen to each other, or see one noise."""
    return replace(
        distiller,
        kernel=RBFKernel() if kernel == "rbf" else IndependentKernel(),
        noise=SharedNoise() if noise == "shared" else IndependentNoise(),
    )
