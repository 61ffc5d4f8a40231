"""Flags of `csd-edit`: everything of CSD Section C, with the paper's values as defaults."""

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import tyro
from nerfstudio.models.nerfacto import NerfactoModelConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipelineConfig

from csd_nerf.distill.editors import EDITORS, BaselineName, Editor, KernelName
from csd_nerf.distill.presets import EditSettings
from csd_nerf.scenes.edit_datamanager import EditDataManagerConfig
from csd_nerf.scenes.edit_rhythm import EditRhythm
from csd_nerf.scenes.errors import SceneError


@dataclass(frozen=True)
class Instruction:
    """What the viewer can change between rounds."""

    prompt: str
    """What to change, as one says it to InstructPix2Pix: "make it snow"; to dds, what the scene should show."""
    negative_prompt: str = ""
    """What to stay away from."""
    guidance_scale: float = 7.5
    """Text guidance w_y."""
    image_guidance_scale: float | None = None
    """Image guidance w_s; None takes the preset's."""
    edit_steps: int = 200
    """Steps of a round."""

    def to_state(self) -> dict[str, Any]:
        """For checkpoints and edits.json."""
        return asdict(self)


def _edit_pipeline() -> type:
    from csd_nerf.scenes.edit_pipeline import EditPipeline

    return EditPipeline


@dataclass
class EditPipelineConfig(VanillaPipelineConfig):
    """A nerfacto scene and how it is edited. Fields that are None take the editor's or the preset's value."""

    _target: type = field(default_factory=_edit_pipeline)
    """Target class to instantiate."""
    datamanager: EditDataManagerConfig = field(default_factory=EditDataManagerConfig)
    """The scene's pictures and cameras."""
    model: NerfactoModelConfig = field(default_factory=NerfactoModelConfig)
    """The radiance field."""
    prompt: str = ""
    """What to change, such as "make it snow". The viewer can change it between rounds."""
    editor: Editor = "csd-edit"
    """Who edits: csd-edit, its ablations no-svgd and random-noise, sds, dds (Delta Denoising Score, where the prompt is
    the caption of the scene as it should be), ip2p (each view by itself with InstructPix2Pix), in2n (the dataset update
    of Instruct-NeRF2NeRF)."""
    source_prompt: str = ""
    """Caption of the scene as it is, such as "a photo of a bear"; for the editor dds, which needs it."""
    negative_prompt: str = ""
    """What to stay away from; takes the place of the empty prompt in the guidance."""
    guidance_scale: float = 7.5
    """Text guidance w_y: 3 to 15 is usual, higher follows the prompt more strongly (CSD Section C)."""
    image_guidance_scale: float | None = None
    """Image guidance w_s: 1.5 to 5 is usual, higher keeps more of the photo (CSD Section C)."""
    edit_steps: int | None = None
    """Steps in each round, of the optimiser or of DDIM. None takes the editor's: 200 (csd-edit-lite: 60; CSD C.2: 200
    to 500), ip2p 100, in2n 20."""
    lr: float | None = None
    """Learning rate of SGD on the latents."""
    lr_decay: float = 0.9
    """Factor of the learning rate's step decay."""
    lr_decay_every: int = 20
    """Steps between two decays."""
    t_min: float | None = None
    """Lowest noise level, a fraction of the diffusion schedule (the paper's 0.2; in2n 0.02; ip2p has none)."""
    t_min_first: float | None = None
    """Lowest noise level of the first pass of a prompt, from which it falls evenly to `t_min` until pass
    `t_max_passes`: low levels see what the photo shows and hold views to it. None: `t_min` in all rounds (the paper),
    as always with ip2p and in2n."""
    t_max: float | None = None
    """Highest noise level, a fraction of the diffusion schedule (the paper's 0.5; csd-edit-lite and in2n 0.98; ip2p
    has none)."""
    text_t_min: float | None = None
    """With `text_t_max`: noise levels at which the instruction has a guidance of its own (w_y). At others photo and
    instruction are one condition, scaled by w_s, which saves one network sample of five. None: everywhere."""
    text_t_max: float | None = None
    """Highest of those noise levels."""
    method_t_max: tyro.conf.Suppress[float | None] = None
    """What the method takes for `t_max` with editors that distil; None takes the preset's."""
    t_max_end: float | None = None
    """Highest noise level from pass `t_max_passes` of a prompt on, to which it falls evenly from `t_max`: the first
    pass decides what the edit is, later ones keep what the scene has agreed on. None: it stays at `t_max` (the paper),
    as it always does with ip2p and in2n."""
    t_max_passes: int = 2
    """Passes over the training views in which noise levels and guidance fall; within a pass they are the same, so that
    no view is told less than another. A new prompt begins anew. 1: they are where they fall to from the start."""
    guidance_first: float = 1.0
    """Factor of the guidance scale in the first pass of a prompt, which falls evenly to 1 until pass `t_max_passes`:
    the first must leave what the photo shows. 1, and always with ip2p and in2n: none, as in the paper."""
    preset: Literal["paper", "released", "corrected"] = "corrected"
    """Whose choice to take where the paper, the authors' released code and this project differ."""
    kernel: KernelName | None = None
    """How views listen to each other, as the editor has it; a choice only with dds (independent, or rbf)."""
    baseline: BaselineName | None = None
    """What is subtracted from the score, as the editor has it: the estimate of the source, or the injected noise."""
    noise: Literal["shared", "independent"] | None = None
    """Whether all views of a round see the same noise; with ip2p, whether they start from the same. None takes
    the preset's: noise of its own for each view with `corrected` and `released`; with ip2p one for all."""
    mixing: Literal["row", "mean"] | None = None
    """Normalise a view's mixed score by its kernel row sum, or by the number of views."""
    edit_every: int | None = None
    """NeRF steps between two rounds of edits. None takes the editor's: 2000 (csd-edit-lite: 175; CSD C.3), in2n 10."""
    edit_batch_size: int | None = None
    """Views edited together in a round, at most. None takes the editor's: 16 (CSD C.3), in2n 1. A pass over V views
    takes ceil(V / this) rounds of equal size, in random order; no view is edited twice before all were."""
    rhythm: tyro.conf.Suppress[EditRhythm] = EditRhythm()
    """What the method takes for `edit_every`, `edit_batch_size` and `edit_steps` that are None."""
    edit_init: Literal["render", "source"] = "render"
    """Where the latents of a round start: the current render of the view, or its photo; ip2p starts from noise."""
    keep_detail: float | None = None
    """Places of a view that an edit changes by less than about this, in colours of [0, 1], keep the photo's detail and
    resolution, which the prior's autoencoder loses; 0: none do. None takes 0.1, and 0, as in the papers, with the
    presets paper and released."""
    scene_steps: int = 30000
    """NeRF steps on the photos before the first edit (CSD C.3). Not used when --load-dir gives a trained scene."""
    seed: int = 0
    """Seed of the edits: order of the views, noise and timesteps. --machine.seed is the NeRF's."""
    view_dependence: bool = True
    """Whether a point of the field may look different from each side, as nerfacto's may. If not, what the edited views
    disagree about is averaged over them; if so, each side can keep its own answer."""
    prior: str = "instruct-pix2pix"
    """Image editing model: 'toy' (comes with this package), 'instruct-pix2pix', another hub id, or a local folder in
    diffusers layout."""
    prior_device: str | None = None
    """Where the prior runs, such as cuda:1; None takes the NeRF's device."""
    prior_dtype: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Precision of the prior's networks; auto takes fp16 on a GPU, bf16 on a CPU that gains from it (edits
    take half the time there), and fp32 otherwise."""
    prior_batch_size: int | None = None
    """Network samples in one call, to bound the memory; None sends all of a step at once, halved until they fit."""
    source_bank: Path | None = None
    """Folder that keeps what the prior says of the photos. Another edit of the scene with the same --pipeline.seed and
    noise levels, whatever its prompt and guidance, then asks 3 samples instead of 5; the result is the same."""
    source_bank_gigabytes: float = 4.0
    """Most that the folder may hold; what was not read for the longest time goes first."""

    def instruction(self) -> Instruction:
        """What the flags ask for at the start."""
        steps = self.pace().edit_steps
        return Instruction(self.prompt, self.negative_prompt, self.guidance_scale, self.image_guidance_scale, steps)

    def pace(self) -> EditRhythm:
        """How often how many views are edited how long: the flags' values, else the editor's."""
        given = {name: getattr(self, name) for name in ("edit_every", "edit_batch_size", "edit_steps")}
        return replace(
            self.rhythm.of(self.editor), **{name: value for name, value in given.items() if value is not None}
        )

    def choices(self) -> dict[str, Any]:
        """The other flags that decide how a run edits, by name; those that say where the prior runs do not."""
        elsewhere = {"_target", "datamanager", "model", "prior_device", "prior_batch_size", "rhythm", "method_t_max"}
        elsewhere |= {"source_bank", "source_bank_gigabytes"}
        elsewhere |= {entry.name for entry in fields(Instruction)}
        chosen = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name not in elsewhere}
        settings, pace = self.settings().resolved(), self.pace()
        chosen |= {"kernel": settings.kernel, "baseline": settings.baseline, "t_max": self._t_max()}
        chosen |= {"noise": settings.noise, "keep_detail": settings.keep_detail}
        return chosen | {"edit_every": pace.edit_every, "edit_batch_size": pace.edit_batch_size}

    def settings(self, instruction: Instruction | None = None, passes: int = 0) -> EditSettings:
        """Settings of the editor under `instruction`, or under the flags, after `passes` passes of this prompt."""
        chosen = instruction or self.instruction()
        settings = EditSettings(
            preset=self.preset,
            steps=chosen.edit_steps,
            guidance_scale=chosen.guidance_scale,
            image_guidance_scale=chosen.image_guidance_scale,
            lr=self.lr,
            lr_decay=self.lr_decay,
            lr_decay_every=self.lr_decay_every,
            t_min=self.t_min,
            t_max=self._t_max(),
            text_t_min=self.text_t_min,
            text_t_max=self.text_t_max,
            editor=self.editor,
            source_prompt=self.source_prompt,
            kernel=self.kernel,
            baseline=self.baseline,
            noise=self.noise,
            mixing=self.mixing,
            keep_detail=self.keep_detail,
        )
        if settings.parts.samples:
            return settings
        fallen = min(1.0, passes / (self.t_max_passes - 1)) if self.t_max_passes > 1 else 1.0
        factor = self.guidance_first + fallen * (1 - self.guidance_first)
        full = settings.resolved()
        assert full.t_min is not None and full.t_max is not None
        return replace(
            settings,
            guidance_scale=chosen.guidance_scale * factor,
            t_min=settings.t_min if self.t_min_first is None else _between(self.t_min_first, full.t_min, fallen),
            t_max=settings.t_max if self.t_max_end is None else _between(full.t_max, self.t_max_end, fallen),
        )

    @property
    def falls(self) -> bool:
        """Whether a later pass of a prompt edits otherwise than its first."""
        return self.settings() != self.settings(passes=self.t_max_passes)

    def _t_max(self) -> float | None:
        """The flag's, else the method's, else None: the editor's or the preset's."""
        given = self.method_t_max if self.t_max is None else self.t_max
        return None if self.t_max is None and EDITORS[self.editor].samples else given

    def check(self) -> None:
        """Raise `SceneError`, naming the flag and the remedy, for values that cannot work."""
        if not self.prompt.strip():
            raise SceneError(
                '--pipeline.prompt is empty: say what to change, such as --pipeline.prompt "make it snow".'
            )
        as_given = replace(self, t_max_end=None, t_min_first=None, guidance_first=1.0).settings()
        try:
            as_given.validate()
        except ValueError as error:
            raise SceneError(with_flags(str(error))) from error
        start = as_given.resolved()
        assert start.t_min is not None and start.t_max is not None
        if not start.parts.samples:
            self._check_falling_levels(start.t_min, start.t_max)
        if not self.guidance_first >= 1:
            raise SceneError(f"--pipeline.guidance-first {self.guidance_first}: give a factor, at least 1.")
        for name in ("edit_every", "edit_batch_size", "scene_steps", "t_max_passes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SceneError(f"{flag_of(name)} {value}: give at least 1.")
        if self.prior_batch_size is not None and self.prior_batch_size < 1:
            raise SceneError(f"--pipeline.prior-batch-size {self.prior_batch_size}: give at least 1.")
        if self.seed < 0:
            raise SceneError(f"--pipeline.seed {self.seed}: give 0 or more.")
        self._check_bank()

    def _check_falling_levels(self, low: float, high: float) -> None:
        """A method's own ones, which do not follow a given range, are named together."""
        given = {name: getattr(self, name) for name in ("t_min_first", "t_max_end")}
        wrong = [name for name, level in given.items() if level is not None and not low <= level <= high]
        if wrong:
            named = " and ".join(f"{flag_of(name)} {given[name]}" for name in wrong)
            levels = "a noise level" if len(wrong) == 1 else "noise levels"
            raise SceneError(f"{named}: give {levels} from --pipeline.t-min {low} to --pipeline.t-max {high}, or None.")

    def _check_bank(self) -> None:
        if self.source_bank is None:
            if self.source_bank_gigabytes != type(self).source_bank_gigabytes:
                raise SceneError("--pipeline.source-bank-gigabytes is for --pipeline.source-bank: give the folder too.")
            return
        settings = self.settings()
        if settings.parts.samples or settings.resolved().baseline != "source":
            raise SceneError(
                f"--pipeline.source-bank: --pipeline.editor {self.editor} asks nothing about the source; leave it out."
            )


def flag_of(name: str) -> str:
    """The command line's name for a field of `EditSettings` or of the pipeline's configuration."""
    return "--pipeline." + {"steps": "edit_steps"}.get(name, name).replace("_", "-")


def with_flags(message: str) -> str:
    """`t_min=0.8 is above t_max=0.2` as a command line says it: `--pipeline.t-min 0.8 is above --pipeline.t-max 0.2`.

    Only fields that are flags are renamed.
    """
    flags = {entry.name for entry in fields(EditPipelineConfig)} | {"steps"}
    return renamed(message, lambda name: flag_of(name) if name in flags else None)


def renamed(message: str, rename: Callable[[str], str | None]) -> str:
    """Replace each `name=` that `rename` knows by its answer and a space."""

    def word(match: re.Match[str]) -> str:
        name = rename(match[1])
        return match[0] if name is None else f"{name} "

    return re.sub(r"\b([a-z_]+)=(?=\S)", word, message)


def _between(start: float, end: float, share: float) -> float:
    return (1 - share) * start + share * end  # exact at both ends
