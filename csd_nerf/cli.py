"""`csd ...`: the command line. Each command is a dataclass whose fields are its flags."""

import math
import os
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.markup import escape

from csd_nerf.commands.bench import Bench
from csd_nerf.commands.devices import chosen_device
from csd_nerf.commands.generate import Generate
from csd_nerf.commands.layers import Layers
from csd_nerf.commands.metrics import Metrics
from csd_nerf.commands.panorama import Panorama
from csd_nerf.commands.prior_check import PriorCheck
from csd_nerf.commands.stopping import terminated_like_interrupted
from csd_nerf.commands.stylegan import StyleGAN
from csd_nerf.commands.synthesize import Synthesize
from csd_nerf.commands.video import Video

_console = Console(stderr=True)


@dataclass(frozen=True)
class Demo:
    """Train a scene, edit it with one sentence, and show both from views that training never saw.

    Without --scene: the built-in scene and prior, no GPU, no download, some minutes on two cores.
    """

    scene: Path | None = None
    """A scene in nerfstudio format (folder with transforms.json); default: the built-in toy scene."""
    prompt: str | None = None
    """The instruction; default: an ambiguous one, which leaves a colour open that all views must agree on."""
    output: Path = Path("outputs/demo")
    """Folder for before.mp4, after.mp4, comparison.png, metrics.json and the nerfstudio run."""
    seed: int = 0
    """Same seed, same pictures."""
    steps: int | None = None
    """NeRF steps after the first edit; default: what the lite method needs."""

    def run(self) -> int:
        """Run the demo."""
        from csd_nerf.commands.demo import run_demo

        run_demo(self.scene, self.prompt, self.output, self.seed, self.steps)
        return 0


@dataclass(frozen=True)
class PriorInfo:
    """Load a prior and say what it is: use, picture size, network size, precision."""

    name: Annotated[str, tyro.conf.Positional]
    """'toy', 'instruct-pix2pix', a hub id, or a local folder in diffusers layout."""

    def run(self) -> int:
        """Print the facts."""
        from csd_nerf.priors import load_prior

        prior = load_prior(self.name)
        facts = {
            "prior": prior.name,
            "use": "editing (takes a picture and an instruction)" if prior.takes_image else "generation (takes a text)",
            "pictures": f"{prior.size} x {prior.size} pixels, {prior.factor} pixels per latent pixel",
            "network": f"{sum(weight.numel() for weight in prior.unet.parameters()) / 1e6:.1f} M parameters",
            "precision": f"{str(prior.dtype).removeprefix('torch.')} on {prior.device}",
        }
        for key, value in facts.items():
            Console().print(f"[bold]{key:10s}[/bold] {escape(value)}", highlight=False, soft_wrap=True)
        return 0


@dataclass(frozen=True)
class PriorTrain:
    """Train a small InstructPix2Pix on toy-world scenes, from nothing or from a prior. Resumes when started again."""

    output: Path = Path("outputs/prior")
    """Run folder: data, checkpoints, logs, sample grids, and the finished prior in `export/`."""
    start_from: Path | None = None
    """Folder of a trained prior to go on from: its autoencoder and words stay, text encoder and UNet are trained on."""
    size: Literal["cpu", "gpu"] = "cpu"
    """Size of the networks: cpu (64-pixel pictures) or gpu (128-pixel pictures)."""
    data: Path | None = None
    """Folder of the training data, made where it is missing; default: in the run folder."""
    autoencoder_minutes: float | None = None
    """Minutes for the autoencoder; default: 20. Learning rates follow the time, over all restarts."""
    denoiser_minutes: float | None = None
    """Minutes for text encoder and UNet; default: 70."""
    denoiser_rate: float | None = None
    """Peak learning rate of text encoder and UNet; default: 0.0015, from a trained prior 0.0007."""
    photos: Path | None = None
    """Folder of photos, for the styles and the autoencoder; without it they see toy scenes alone."""
    style_nets: Path | None = None
    """Folder of feed-forward painting styles (safetensors); without it these styles are not learned."""
    seed: int = 0
    """Seed of the initial weights and of the batches."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def run(self) -> int:
        """Train and export."""
        for flag, folder in (("--photos", self.photos), ("--style-nets", self.style_nets)):
            if folder is not None and not folder.is_dir():
                raise ValueError(f"{flag} {folder} is no folder: give one, or leave the flag out")
        for flag, value in (
            ("--autoencoder-minutes", self.autoencoder_minutes),
            ("--denoiser-minutes", self.denoiser_minutes),
            ("--denoiser-rate", self.denoiser_rate),
        ):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{flag} {value}: give more than 0")
        if self.start_from is not None and self.autoencoder_minutes is not None:
            raise ValueError("--autoencoder-minutes: with --start-from the autoencoder stays as it is; leave one out")
        device = chosen_device(self.device)
        from csd_nerf.toyworld.training import TrainingSettings, train_prior

        given = {
            name: value
            for name, value in vars(self).items()
            if name in ("autoencoder_minutes", "denoiser_minutes", "denoiser_rate") and value is not None
        }
        settings = TrainingSettings(
            output=self.output,
            data=self.data or self.output / "data",
            photos=self.photos,
            style_nets=self.style_nets,
            start_from=self.start_from,
            size=self.size,
            seed=self.seed,
            device=device,
            **given,
        )
        _console.print(f"The prior is in {train_prior(settings)}", markup=False, highlight=False, soft_wrap=True)
        return 0


@dataclass(frozen=True)
class Prior:
    """Diffusion priors."""

    command: (
        Annotated[PriorInfo, tyro.conf.subcommand("info")]
        | Annotated[PriorTrain, tyro.conf.subcommand("train")]
        | Annotated[PriorCheck, tyro.conf.subcommand("check")]
    )

    def run(self) -> int:
        """Run the chosen command."""
        return self.command.run()


@dataclass(frozen=True)
class Csd:
    """Edit and generate sets of images with one frozen diffusion model, consistently."""

    command: (
        Annotated[Demo, tyro.conf.subcommand("demo")]
        | Annotated[Prior, tyro.conf.subcommand("prior")]
        | Annotated[Panorama, tyro.conf.subcommand("panorama")]
        | Annotated[Video, tyro.conf.subcommand("video")]
        | Annotated[Synthesize, tyro.conf.subcommand("synthesize")]
        | Annotated[StyleGAN, tyro.conf.subcommand("stylegan")]
        | Annotated[Layers, tyro.conf.subcommand("layers")]
        | Annotated[Generate, tyro.conf.subcommand("generate")]
        | Annotated[Metrics, tyro.conf.subcommand("metrics")]
        | Annotated[Bench, tyro.conf.subcommand("bench")]
    ) = field(default_factory=Demo)


def main(arguments: list[str] | None = None) -> int:
    """Entry point of the `csd` command; returns the exit status.

    Errors that a user can mend (`ValueError`, `OSError` and the priors' errors are of these kinds), and a training
    that fails, are printed as one message; set CSD_DEBUG=1 to see the traceback.
    """
    # nerfstudio 1.1.5 calls torch in ways that it has since moved or deprecated; nothing a user could mend.
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message="Using a non-tuple sequence for multidimensional indexing")
    command = tyro.cli(Csd, prog="csd", args=arguments, config=(tyro.conf.OmitSubcommandPrefixes,)).command
    try:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not isinstance(command, Panorama | Video):
            raise ValueError("only csd panorama and csd video are for several processes: start it without torchrun")
        from csd_nerf.processor import limit_threads  # with torch, which takes seconds

        limit_threads()
        with terminated_like_interrupted():
            return command.run()
    except KeyboardInterrupt:
        _console.print("\n[bold red]csd: stopped.[/] Finished files are kept.")
        return 130
    except (ValueError, OSError, RuntimeError, FloatingPointError) as error:
        if os.environ.get("CSD_DEBUG"):
            raise
        _console.print(f"[bold red]csd: error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        return 2


if __name__ == "__main__":
    sys.exit(main())
