"""`csd stylegan adapt`: a generator's domain moved by words alone."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from csd_nerf.commands.edit_flags import check_seed, own_flags
from csd_nerf.commands.sitting import conclude, finishing, progress, say, sitting
from csd_nerf.commands.stylegan.generators import check_other_file, generator_path, open_generator
from csd_nerf.durations import duration

if TYPE_CHECKING:
    from csd_nerf.images.stylegan.adaptation import AdaptResult
    from csd_nerf.images.stylegan.generator import Generator
    from csd_nerf.images.stylegan.settings import AdaptSettings
    from csd_nerf.priors import LatentDiffusionPrior

_FPS, _STOPS = 24, 6


@dataclass(frozen=True)
class LossFlags:
    """Losses, bounds, and who is trained."""

    lambda_lsd: float = 1.0
    """Weight of latent score distillation (LDP Section 5.2)."""
    lambda_fm: float | None = None
    """Weight of feature matching; default: the paper's 3, with the toy prior 0.01 (see the losses that are printed)."""
    lambda_kl: float = 0.05
    """Weight of the KL regulariser."""
    directional: float = 0.0
    """Weight of the pull towards the source generator's pictures of the same z."""
    clamp: float = 1.0
    """Bound of the gradient into each latent element; 0 for none."""
    percentile: float = 95.0
    """Of a picture's gradients, at which they are clipped; 100 for none."""
    train: Literal["fusion", "synthesis", "all"] = "fusion"
    """fusion: convolutions from 8 x 8 up, without biases; synthesis: constant, all convolutions; all: all weights."""


@dataclass(frozen=True)
class Adapt:
    """Adapt a StyleGAN2 generator to a caption with a frozen diffusion model, without any picture of it.

    Writes OUT, a grid before and after (OUT with .png) and a walk through both (.mp4). Ctrl-C writes what is reached;
    the same command with --resume goes on from there. --lr is multiplied by StyleGAN2's 4 / 5 (a learning rate for
    lazy regularisation, kept by StyleGAN-NADA and StyleGANFusion): 0.002 is 0.0016.
    """

    input: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IN")]
    """The generator: toy, or a checkpoint (rosinality's .pt, or .safetensors made by csd stylegan convert)."""
    output: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """The adapted generator, .safetensors in rosinality's layout."""
    prompt: str
    """What the pictures should show, such as "a blue mushroom"."""
    negative: str = ""
    """What to stay away from."""
    prior: str = "stable-diffusion"
    """The diffusion model: stable-diffusion, another hub id, a local folder in diffusers layout, or toy."""
    device: str = "auto"
    """Where all networks run: auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Of the prior's networks."""
    steps: int | None = None
    """Default: 2000, with the toy prior 150."""
    lr: float = 0.002
    """Adam's learning rate, before it is multiplied by 4 / 5."""
    samples: int = 4
    """Pictures in a step; they are the particles. Fewer take less memory; StyleGANFusion has 1."""
    kernel: Literal["independent", "rbf"] = "independent"
    """rbf: samples of a step listen to each other and stay apart (CSD)."""
    noise: Literal["independent", "shared"] = "independent"
    """Samples of a step see noise of their own, or one."""
    guidance: float | None = None
    """Text guidance; default: StyleGANFusion's 100, with the toy prior 7.5."""
    t_min: float = 0.01
    """Lowest noise level, a fraction of the schedule."""
    t_max: float | None = None
    """Highest noise level; default: 0.5 (StyleGANFusion for faces; 0.3 for cats), with the toy prior 0.8."""
    truncation: float = 1.0
    """Of the pictures in grid and walk."""
    walk: bool = True
    """Make the walk; of a large generator it takes long on a CPU."""
    seed: int = 0
    """Same seed, same result."""
    resume: bool = False
    """Go on from where this command was stopped."""
    losses: Annotated[LossFlags, tyro.conf.arg(name="")] = field(default_factory=LossFlags)

    def run(self) -> int:
        """Adapt and write; status 130 if it was stopped."""
        with own_flags():
            return self._run()

    def _run(self) -> int:
        import torch

        from csd_nerf.images.checkpoint import checkpoint_path, load_checkpoint
        from csd_nerf.images.stylegan.adaptation import REGULARISED_EVERY, adapt
        from csd_nerf.images.stylegan.files import check_output

        check_output(self.output)
        check_other_file(generator_path(self.input), self.output)
        if not self.prompt.strip():
            raise ValueError('--prompt is empty: say what the pictures should show, such as --prompt "a blue mushroom"')
        check_seed(self.seed)
        if not math.isfinite(self.truncation):
            raise ValueError(f"--truncation {self.truncation}: give a number, such as 0.7")
        settings = self._settings()
        if self.resume and not checkpoint_path(self.output).is_file():
            load_checkpoint(checkpoint_path(self.output), {})  # which says what is wrong
        source = open_generator(self.input, torch.device("cpu"))
        asked = self._asked(source, settings)
        before = load_checkpoint(checkpoint_path(self.output), asked) if self.resume else None
        prior = self._prior()  # the last, since it takes the longest, and a download at first
        source = source.to(prior.device)
        rate = self.lr * REGULARISED_EVERY / (REGULARISED_EVERY + 1)
        say(
            f"{source.shape.size} x {source.shape.size} pixels, {settings.samples} samples in each of {settings.steps} "
            f"steps, learning rate {self.lr:g} x {REGULARISED_EVERY} / {REGULARISED_EVERY + 1} = {rate:g}"
            + (f", going on from step {before.step}" if before else "")
        )
        with sitting(self.output, asked, before.step if before else 0, "Adapting") as hooks:
            result = adapt(
                source,
                prior,
                self.prompt,
                settings,
                negative_prompt=self.negative,
                seed=self.seed,
                before=before,
                hooks=hooks,
            )
        outcome = result.outcome
        if outcome.failure is not None and outcome.checkpoint.step == (before.step if before else 0):
            raise outcome.failure  # before a step was made: what lies at OUT is worth more than a copy of IN
        with finishing(self.output, asked, *self._beside()) as written:
            self._write(source, result, written)
        return conclude(self.output, asked, outcome.checkpoint, settings.steps, outcome.complete, outcome.failure)

    def _settings(self) -> "AdaptSettings":
        from csd_nerf.distill import LDP_WEIGHTS, LossWeights
        from csd_nerf.images.stylegan.settings import TOY, TOY_LOSSES, AdaptSettings

        own, flags = self.prior == "toy", self.losses
        weights = TOY_LOSSES if own else LDP_WEIGHTS["stylegan"]
        matching = weights.feature_matching if flags.lambda_fm is None else flags.lambda_fm
        given = {"steps": self.steps, "guidance_scale": self.guidance, "t_max": self.t_max}
        chosen = (dict(TOY) if own else {}) | {name: value for name, value in given.items() if value is not None}
        return AdaptSettings(
            losses=LossWeights(feature_matching=matching, kl=flags.lambda_kl, lsd=flags.lambda_lsd),
            lr=self.lr,
            samples=self.samples,
            kernel=self.kernel,
            noise=self.noise,
            t_min=self.t_min,
            directional=flags.directional,
            clamp=flags.clamp or None,
            percentile=None if flags.percentile == 100 else flags.percentile,
            trained=flags.train,
            **chosen,
        )

    def _prior(self) -> "LatentDiffusionPrior":
        from csd_nerf.priors import LatentDiffusionPrior, load_prior

        prior = load_prior(self.prior, device=self.device, dtype=self.precision)
        if not isinstance(prior, LatentDiffusionPrior):
            raise ValueError(f"--prior {self.prior} works on pixels; adaptation needs a latent diffusion model")
        return prior

    def _asked(self, source: "Generator", settings: "AdaptSettings") -> dict[str, Any]:
        """What decides the result, in words."""
        digest = hashlib.sha256()
        for name, value in source.state_dict().items():
            digest.update(name.encode() + value.float().cpu().contiguous().numpy().tobytes())
        decided = {name: value for name, value in vars(settings).items() if name != "losses"}
        return {
            "generator": digest.hexdigest()[:16],
            "prompt": self.prompt,
            "negative": self.negative,
            "prior": self.prior,
            "precision": self.precision,
            "seed": self.seed,
            **{f"lambda_{name}": value for name, value in vars(settings.losses).items()},
            **decided,
        }

    def _beside(self) -> list[Path]:
        """What is written after the generator, in this order: the grid, and perhaps the walk."""
        return [self.output.with_suffix(suffix) for suffix in ((".png", ".mp4") if self.walk else (".png",))]

    def _write(self, source: "Generator", result: "AdaptResult", written: Callable[[Path], None]) -> None:
        from csd_nerf.images.stylegan.files import save_generator
        from csd_nerf.images.stylegan.showing import before_and_after, walk
        from csd_nerf.images.writing import write_video
        from csd_nerf.whole_files import write_atomically

        adapted, state, beside = result.generator, result.outcome.checkpoint, self._beside()
        save_generator(self.output, adapted, "rosinality")
        written(self.output)
        sheet = before_and_after([("before", source), ("after", adapted)], 8, truncation=self.truncation)
        write_atomically(beside[0], lambda temporary: sheet.save(temporary))
        written(beside[0])
        if self.walk:
            with progress("Walking") as update:  # pictures of 1024 pixels take many minutes on a CPU
                frames = walk([source, adapted], _STOPS, 2 * _FPS, truncation=self.truncation, on_part=update)
                write_video(beside[1], frames, fps=_FPS, scale=max(1, 256 // source.shape.size))
            written(beside[1])
        spent = f"{state.network_samples} network samples, {duration(state.seconds)}"
        say(f"{', '.join(map(str, [self.output, *beside]))} ({spent})")
        ratios = [step.losses.ratio for step in result.steps if step.losses.ratio is not None]
        if ratios:
            say(f"|grad FM| / |grad LSD| over the last {len(ratios)} steps: {sum(ratios) / len(ratios):.3g}")
