"""Flags that all commands that edit share; the same names everywhere."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from csd_nerf.commands.processes import shared, shared_bank

if TYPE_CHECKING:
    from csd_nerf.distill import AnswerBank, EditSettings
    from csd_nerf.distill.editors import Editor
    from csd_nerf.priors import DiffusionPrior
    from csd_nerf.priors.registry import DType

_FLAGS = {
    "guidance_scale": "guidance",
    "image_guidance_scale": "image-guidance",
    "lsd": "lambda-lsd",
    "feature_matching": "lambda-fm",
    "lambda_feature_matching": "lambda-fm",
    "kl": "lambda-kl",
    "trained": "train",
}
"""Flags whose names are not those of the settings."""
_BANK_GIGABYTES = 4.0
_SETTINGS = (
    "samples",
    "ablation",
    "lambda_lsd",
    "lambda_fm",
    "lambda_kl",
    "lambda_mask",
    "lambda_sparsity",
    "latent_lr",
    "steps",
    "lr",
    "t_min",
    "t_max",
    "text_t_min",
    "text_t_max",
    "batch_size",
    "source_prompt",
    "noise",
    "stride",
    "wrap",
    "temporal",
    "keep_detail",
    "preset",
    "editor",
    "guide",
    "directional",
    "clamp",
    "percentile",
    "precision",
    "channels",
    "style",
    "mapping_layers",
    "r1",
    "path_weight",
    "objects",
    "colours",
    "backgrounds",
)


@contextmanager
def own_flags() -> Iterator[None]:
    """Errors name settings, `guidance_scale=-1.0: ...`; say them as the flags that they come from."""
    try:
        yield
    except ValueError as error:
        flags = _FLAGS | {name: name.replace("_", "-") for name in _SETTINGS}
        names = "|".join(flags)
        message = re.sub(rf"(?<![\w-])({names})(?:=| (?=.* \(now ))", lambda found: f"--{flags[found[1]]} ", str(error))
        message = re.sub(r"^device '", "--device '", message)
        if message == str(error):
            raise
        raise ValueError(message) from error


def check_seed(seed: int) -> None:
    """Raise `ValueError` for one that is no seed of torch's."""
    if not 0 <= seed < 2**63:
        raise ValueError(f"--seed {seed}: give 0 or more, and less than 2^63")


def check_together(settings: "EditSettings", parts: int, preview: int | None) -> None:
    """Raise `ValueError` where the preset's kernel is not for so many patches or frames, or for those of --preview."""
    if settings.parts.samples:
        return
    settings.check_particles(parts)
    if preview is not None:
        try:
            settings.check_particles(min(preview, parts))
        except ValueError as error:
            raise ValueError(f"--preview {preview}: {error}") from error


def check_alone(preview: int | None, others: Mapping[str, object]) -> None:
    """Raise `ValueError` for flags, by name with whether they are given, that a preview would not look at."""
    for flag, given in others.items():
        if preview is not None and given:
            raise ValueError(f"{flag} has no meaning with --preview {preview}: leave one of them out")


def preview_path(output: Path, source: Path) -> Path:
    """Where the preview of OUT is written. Raises `ValueError` if that is IN, or among the frames of IN."""
    path = output.with_name(f"{output.stem}_preview.png")
    if path.exists() and source.exists() and path.samefile(source):
        raise ValueError(f"--preview is written to {path}, which is IN: give another OUT")
    if source.is_dir() and path.absolute().parent.resolve() == source.resolve():
        raise ValueError(f"--preview is written to {path}, among the frames of IN: give an OUT elsewhere")
    return path


@dataclass(frozen=True)
class PriorFlags:
    """Which model, and where it runs."""

    prior: str = "instruct-pix2pix"
    """The diffusion model: instruct-pix2pix, another hub id, a local folder in diffusers layout, or toy, which comes
    with this package."""
    device: str = "auto"
    """Where it runs: auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Of its networks; auto is fp16 on a GPU and fp32 elsewhere."""
    negative: str = ""
    """What to stay away from."""
    seed: int = 0
    """Same seed, same result."""

    def load(self, *, needs_image: bool) -> "DiffusionPrior":
        """Load the prior."""
        from csd_nerf.priors import load_prior

        return load_prior(self.prior, device=self.device, dtype=self._wanted_precision(), needs_image=needs_image)

    def chosen_precision(self) -> str:
        """What `auto` comes to on this machine: a state made in another is not one to go on from."""
        import torch

        chosen = self._wanted_precision()
        cuda = torch.cuda.is_available() if self.device == "auto" else self.device.startswith("cuda")
        return chosen if chosen != "auto" else "fp16" if cuda else "fp32"

    def _wanted_precision(self) -> "DType":
        return self.precision

    def check_seed(self) -> None:
        """Raise `ValueError` for one that is no seed of torch's."""
        check_seed(self.seed)


@dataclass(frozen=True)
class EditFlags(PriorFlags):
    """Which model edits, and how. What is left out takes the preset's value, or the toy prior's own."""

    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Of its networks; auto is fp16 on a GPU, bf16 on a CPU that gains from it, and fp32 elsewhere."""
    preset: Literal["paper", "released", "corrected"] = "corrected"
    """Whose choice to take where the paper, the authors' released code and this project differ."""
    steps: int | None = None
    """Optimisation steps; default: as many as optimise each part as often as 200 steps do in the paper. Of baselines
    that sample: steps of DDIM, 50."""
    lr: float | None = None
    """Learning rate; default: the preset's."""
    guidance: float | None = None
    """Text guidance w_y; default: 7.5, with the toy prior (and --preset corrected) 3."""
    image_guidance: float | None = None
    """Image guidance w_s: higher keeps more of the source; default: the preset's."""
    t_min: float | None = None
    """Lowest noise level, a fraction of the schedule; default: the preset's."""
    t_max: float | None = None
    """Highest noise level; default: the preset's (the paper's 0.5), with the toy
    prior (and --preset corrected) 0.8."""
    text_t_min: float | None = None
    """With --text-t-max: noise levels at which the instruction has a guidance of its own. At others picture and
    instruction are one condition, scaled by w_s, which saves one network sample of five; default: everywhere."""
    text_t_max: float | None = None
    """Highest of those noise levels."""
    source_prompt: str = ""
    """Caption of what is there, for the editor dds."""
    batch_size: int | None = None
    """Patches or frames in a step; of baselines that sample: in one call of the network."""
    keep_detail: float | None = None
    """Places that the edit changes by less than about this, in colours of [0, 1], keep the source's detail and
    resolution, which the autoencoder loses; 0: none do. Default: the preset's, 0.1, or 0 with those of the papers."""
    source_bank: Path | None = None
    """Folder that keeps what the network says of the source: another edit of the same picture or video with the same
    seed and noise levels then asks 3 samples instead of 5. Bounded; nothing stale is used."""
    source_bank_gigabytes: float = _BANK_GIGABYTES
    """Most that the folder may hold; what was not read for the longest time goes first."""

    def check_for(self, editor: "Editor", name: str) -> None:
        """Raise `ValueError` for flags that the editor, `name` on the command line, would not look at."""
        from csd_nerf.distill.editors import EDITORS

        for flag, value in (("--t-min", self.t_min), ("--t-max", self.t_max)):
            if EDITORS[editor].from_noise and value is not None:
                raise ValueError(
                    f"{flag} {value:g} has no meaning for --editor {name}, which begins with pure noise: leave it out"
                )
        if self.source_bank is None and self.source_bank_gigabytes != _BANK_GIGABYTES:
            raise ValueError("--source-bank-gigabytes is for --source-bank: give that folder too, or leave it out")

    def bank(self, prior: "DiffusionPrior", settings: "EditSettings") -> "AnswerBank | None":
        """The bank in --source-bank. Raises `ValueError` for a folder, a limit or an editor that cannot have one."""
        from csd_nerf.priors.source_bank import open_bank

        if self.source_bank is not None and settings.resolved().baseline != "source":
            raise ValueError(f"--source-bank: --editor {settings.editor} asks nothing about the source; leave it out")
        try:
            return shared_bank(open_bank(self.source_bank, prior, self.source_bank_gigabytes))
        except ValueError as error:
            raise ValueError(f"--source-bank: {error}") from error

    def load(self, *, needs_image: bool) -> "DiffusionPrior":
        """Load the prior; where several processes edit, they share its work."""
        return shared(super().load(needs_image=needs_image))

    def _wanted_precision(self) -> "DType":
        from csd_nerf.priors import auto_precision

        return auto_precision(self.precision, self.device)

    def settings(self, noise: str | None) -> "EditSettings":
        """What the flags say, all but the number of steps where it is left out. Raises `ValueError` by flag."""
        from csd_nerf.distill import EditSettings
        from csd_nerf.images.running import TOY

        self.check_seed()
        own = TOY if self.prior == "toy" and self.preset == "corrected" else {}
        given = {
            "lr": self.lr,
            "guidance_scale": self.guidance,
            "image_guidance_scale": self.image_guidance,
            "t_min": self.t_min,
            "t_max": self.t_max,
            "text_t_min": self.text_t_min,
            "text_t_max": self.text_t_max,
            "noise": noise,
            "batch_size": self.batch_size,
            "keep_detail": self.keep_detail,
            "steps": self.steps,
        }
        chosen = {**own} | {name: value for name, value in given.items() if value is not None}
        return EditSettings(preset=self.preset, source_prompt=self.source_prompt, **chosen)

    def asked(self, settings: "EditSettings") -> dict[str, str | int | float | bool | None]:
        """What decides the latents, by the names of the flags, for a state to go on from."""
        decided = {
            name: value for name, value in settings.used().items() if name not in ("steps", "preset", "keep_detail")
        }
        return {
            "prior": self.prior,
            "precision": self.chosen_precision(),
            "steps": settings.total_steps,
            "seed": self.seed,
            "negative": self.negative,
            **decided,
        }
