"""Every choice of an edit, and what the paper, the authors' released code and this project choose differently.

| choice          | paper          | released                  | corrected      | why corrected differs            |
|-----------------|----------------|---------------------------|----------------|----------------------------------|
| noise           | shared         | independent               | independent    | the kernel works better (study)  |
| mixing          | mean (1/N)     | mean                      | row            | lr hardly depends on N           |
| bandwidth       | med^2 / log N  | lower median / log(N + 1) | med^2 / log N  | released fails at N = 1, 2       |
| repulsion       | unit           | unit                      | sigma          | Eq. 9: the score is -eps / sigma |
| image condition | posterior mode | scaled sample             | posterior mode | as InstructPix2Pix was trained   |
| image guidance  | 1.5            | 5.0                       | 1.5            | 5.0 makes up for the scaled one  |
| t range         | 0.2 .. 0.5     | 0.02 .. 0.5               | 0.2 .. 0.5     | CSD Section C                    |
| learning rate   | 2.0            | 2.0                       | 0.5            | row mixing takes larger steps    |
| keep detail     | 0              | 0                         | 0.1            | what is unchanged stays sharp    |

Noise: where all particles see one noise, all are moved alike, whatever they show, and the kernel has little left to
average. With noise of their own it makes the views of scenes and the frames of videos agree more, and the results are
better (benchmarks/results/study.md and pictures.md). Editors that sample start from one noise unless told otherwise.

Without SVGD (kernel 'independent') each particle is a set of its own and takes its full step under either mixing. With
mixing 'mean' and the same learning rate that is about (N + 1) / 2 times the step with SVGD; the paper finds that its
ablation "radically alters the image" (CSD E).

The sign of the repulsion and the index inside the sum are corrected in all three: printed as they are, they contradict
the paper's own text, and the released code has them right.
"""

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from csd_nerf.distill.detail import DETAIL_THRESHOLD
from csd_nerf.distill.editors import EDITORS, BaselineName, Editor, EditorParts, KernelName, check_editor

Preset = Literal["paper", "released", "corrected"]

_CHOICES: dict[str, dict[str, Any]] = {
    "paper": {
        "noise": "shared",
        "mixing": "mean",
        "bandwidth": "median",
        "repulsion": "unit",
        "image_condition": "mode",
        "image_guidance_scale": 1.5,
        "t_min": 0.2,
        "t_max": 0.5,
        "lr": 2.0,
        "keep_detail": 0.0,
    },
    "released": {
        "noise": "independent",
        "mixing": "mean",
        "bandwidth": "released",
        "repulsion": "unit",
        "image_condition": "scaled-sample",
        "image_guidance_scale": 5.0,
        "t_min": 0.02,
        "t_max": 0.5,
        "lr": 2.0,
        "keep_detail": 0.0,
    },
    "corrected": {
        "noise": "independent",
        "mixing": "row",
        "bandwidth": "median",
        "repulsion": "sigma",
        "image_condition": "mode",
        "image_guidance_scale": 1.5,
        "t_min": 0.2,
        "t_max": 0.5,
        "lr": 0.5,
        "keep_detail": DETAIL_THRESHOLD,
    },
}
DEFAULT_STEPS = 200
"""Of sets of pictures as large as the paper's."""


@dataclass(frozen=True)
class EditSettings:
    """How pictures are edited. A field that is None takes the editor's or the preset's value (see their tables)."""

    preset: Preset = "corrected"
    """Where the paper, the authors' code and this project differ: whose choice to take."""
    steps: int | None = None
    """Optimisation steps (CSD C.2: 200 to 500); None is 200, for panoramas and videos as many as fit their size."""
    guidance_scale: float = 7.5
    """Text guidance w_y (CSD Section C: 3 to 15)."""
    image_guidance_scale: float | None = None
    """Image guidance w_s (CSD Section C: 1.5 to 5)."""
    lr: float | None = None
    """Learning rate of SGD on the latents (CSD C.1, C.2: 0.25 to 2 with mixing 'mean')."""
    lr_decay: float = 0.9
    """Factor of the step decay."""
    lr_decay_every: int = 20
    """Steps between decays."""
    t_min: float | None = None
    """Lower end of the timestep range, a fraction of the schedule."""
    t_max: float | None = None
    """Upper end of the timestep range."""
    text_t_min: float | None = None
    """With `text_t_max`: noise levels, fractions of the schedule, at which the instruction has a guidance of its own
    (w_y). At others picture and instruction are one condition, scaled by w_s, and a step takes 4 samples of the network
    instead of 5. None: no lower end."""
    text_t_max: float | None = None
    """Upper end of those noise levels; None: no upper end."""
    editor: Editor | None = None
    """Which method edits, see `editors`; None is CSD-Edit with any kernel and baseline."""
    source_prompt: str = ""
    """Caption of the pictures as they are, for Delta Denoising Score."""
    kernel: KernelName | None = None
    """How pictures listen to each other."""
    baseline: BaselineName | None = None
    """What is subtracted from the score: the estimate of the source, or the injected noise."""
    noise: Literal["shared", "independent", "canvas"] | None = None
    """Whether all particles see the same noise, each its own, or each its part of a canvas (panoramas only)."""
    mixing: Literal["row", "mean"] | None = None
    """Normalise each particle's mixed score by its kernel row sum, or by N. Nothing is mixed without SVGD."""
    bandwidth: Literal["median", "released"] | None = None
    """Median heuristic over pairs, or the released code's variant."""
    repulsion: Literal["sigma", "unit"] | None = None
    """Scale of the repulsion."""
    image_condition: Literal["mode", "scaled-sample"] | None = None
    """How the source picture is given to the network."""
    keep_detail: float | None = None
    """Places that an edit changes by less than about this, in colours of [0, 1], get back what the autoencoder loses of
    their source (see `detail`); 0: none do. It decides what is made of the latents, not the latents."""
    batch_size: int | None = None
    """Particles per step, drawn at random; None takes all. Of panoramas and videos that are sampled: patches or frames
    in one call of the network."""

    def resolved(self) -> "EditSettings":
        """These settings with every None replaced by the preset's value. Raises `ValueError` for unknown choices."""
        for name, hint in get_type_hints(type(self)).items():
            value, allowed = getattr(self, name), _allowed(hint)
            if allowed and value not in allowed and not (value is None and type(None) in get_args(hint)):
                raise ValueError(f"{name}={value!r} is unknown: choose {', '.join(allowed)}")
        defaults = {"steps": DEFAULT_STEPS} | _CHOICES[self.preset] | self.parts.defaults()
        return replace(self, **{name: value for name, value in defaults.items() if name not in self._given()})

    @property
    def total_steps(self) -> int:
        """`steps`, where they are given."""
        return DEFAULT_STEPS if self.steps is None else self.steps

    @property
    def parts(self) -> EditorParts:
        """What the editor is made of."""
        return EDITORS[self.editor or "csd-edit"]

    def used(self) -> dict[str, Any]:
        """The resolved settings that mean something to the editor, by name."""
        left_out = self.parts.unused | {name for name in ("text_t_min", "text_t_max") if getattr(self, name) is None}
        return {name: value for name, value in vars(self.resolved()).items() if name not in left_out}

    def _given(self) -> dict[str, Any]:
        """What is not left to the editor or the preset."""
        return {entry.name: value for entry in fields(self) if (value := getattr(self, entry.name)) is not None}

    def validate(self) -> None:
        """Raise `ValueError`, naming the field and the remedy, for values that cannot work."""
        full = self.resolved()
        t_min, t_max, image = full.t_min, full.t_max, full.image_guidance_scale
        assert t_min is not None and t_max is not None and image is not None and full.lr is not None
        assert full.keep_detail is not None
        low, high = full.text_t_min or 0.0, 1.0 if full.text_t_max is None else full.text_t_max
        problems = [
            (full.total_steps < 1, f"steps={full.steps}: give at least 1"),
            (
                not 0 <= full.guidance_scale < math.inf,
                f"guidance_scale={full.guidance_scale}: give 0 or more (3 to 15 is usual)",
            ),
            (not 0 <= image < math.inf, f"image_guidance_scale={image}: give 0 or more (1 to 5 is usual)"),
            (not 0 < full.lr < math.inf, f"lr={full.lr}: give a positive learning rate"),
            (not 0 < full.lr_decay <= 1, f"lr_decay={full.lr_decay}: give a factor in (0, 1]"),
            (full.lr_decay_every < 1, f"lr_decay_every={full.lr_decay_every}: give at least 1 step"),
            (not 0 <= t_min <= 1, f"t_min={t_min}: give a fraction of the schedule in [0, 1]"),
            (not 0 <= t_max <= 1, f"t_max={t_max}: give a fraction of the schedule in [0, 1]"),
            (t_min > t_max, f"t_min={t_min} is above t_max={t_max}, the highest noise level: change one of them"),
            (not 0 <= low <= 1, f"text_t_min={low}: give a fraction of the schedule in [0, 1]"),
            (not 0 <= high <= 1, f"text_t_max={high}: give a fraction of the schedule in [0, 1]"),
            (low > high, f"text_t_min={low} is above text_t_max={high}: swap them"),
            (
                not 0 <= full.keep_detail < math.inf,
                f"keep_detail={full.keep_detail}: give a difference of colours in [0, 1], such as 0.1; 0 keeps none",
            ),
            (full.batch_size is not None and full.batch_size < 1, f"batch_size={full.batch_size}: give at least 1"),
        ]
        for wrong, message in problems:
            if wrong:
                raise ValueError(message)
        if self.editor is not None:
            check_editor(self.editor, self._given())
        if full.batch_size is not None:
            self.check_particles(full.batch_size)

    def check_particles(self, together: int) -> None:
        """Raise `ValueError` where the kernel is not defined for a set of `together` particles.

        That of the released code is not for 2 in one step: the median of their distances is that of the diagonal, 0.
        """
        full = self.resolved()
        in_step = together if full.batch_size is None else min(full.batch_size, together)
        if in_step != 2 or full.kernel != "rbf" or full.bandwidth != "released":
            return
        where = f"bandwidth={full.bandwidth}" if self.bandwidth else f"preset={full.preset}"
        if full.batch_size == 2:
            where = "batch_size=2"
        raise ValueError(
            f"{where}: the released code's kernel is not defined for 2 pictures in one step: edit one or at least 3 "
            "together, or take another preset (bandwidth 'median')"
        )


def _allowed(hint: Any) -> tuple[str, ...]:
    """The values of a `Literal`, alone or in a union; empty for other types."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    return tuple(value for part in get_args(hint) for value in _allowed(part))
