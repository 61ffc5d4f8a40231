"""Flags of the methods that generate objects, checked before anything is loaded."""

import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from nerfstudio.models.base_model import ModelConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipelineConfig

from csd_nerf.distill.schedule import UniformTimesteps
from csd_nerf.distill.types import ViewPrior
from csd_nerf.scenes.errors import SceneError
from csd_nerf.scenes.generation.datamanager import RandomViewDataManagerConfig
from csd_nerf.scenes.generation.model import ObjectModelConfig
from csd_nerf.scenes.generation.shading import ShadingPolicy

ViewKernel = Literal["lpips", "rbf", "independent"]


@dataclass(frozen=True)
class Wish:
    """What is asked for; the viewer can change it while the object grows."""

    prompt: str
    """What the object is: "a red mushroom"."""
    negative_prompt: str = ""
    """What to stay away from."""
    guidance_scale: float = 20.0
    """How strongly the prompt is followed."""

    def problem(self) -> str | None:
        """What cannot work, by the names of the fields."""
        if not self.prompt.strip():
            return 'prompt is empty: say what to make, such as "a red mushroom"'
        if not (math.isfinite(self.guidance_scale) and self.guidance_scale >= 0):
            return f"guidance_scale={self.guidance_scale}: give a finite number, 0 or more"
        return None


def _pipeline() -> type:
    from csd_nerf.scenes.generation.pipeline import GenerationPipeline

    return GenerationPipeline


@dataclass
class GenerationPipelineConfig(VanillaPipelineConfig):
    """An object that grows from a prompt."""

    _target: type = field(default_factory=_pipeline)
    """Target class to instantiate."""
    datamanager: RandomViewDataManagerConfig = field(default_factory=RandomViewDataManagerConfig)
    """Where the cameras are."""
    model: ObjectModelConfig = field(default_factory=ObjectModelConfig)
    """The radiance field."""
    prompt: str = ""
    """What to make, such as "a red mushroom". The viewer can change it."""
    negative_prompt: str = ""
    """What to stay away from; takes the place of the empty prompt in the guidance."""
    prompt_suffix: str = ""
    """Added to the prompt before the view ("in a studio"): what the prior expects to hear of the surroundings."""
    guidance_scale: float = 20.0
    """How strongly the prompt is followed; 20 suits DeepFloyd (CSD D.2), 100 Stable Diffusion (DreamFusion)."""
    kernel: ViewKernel = "lpips"
    """How views listen to each other: lpips compares their pictures at 64 x 64 (CSD D.2), rbf their noisy particles;
    independent is SDS (DreamFusion)."""
    noise: Literal["shared", "independent"] = "independent"
    """Whether the views of a step see the same noise."""
    mixing: Literal["row", "mean"] = "row"
    """Normalise a view's mixed score by its kernel row sum, or by the number of views."""
    t_min: float = 0.02
    """Lowest noise level, a fraction of the diffusion schedule."""
    t_max: float = 0.98
    """Highest noise level, a fraction of the diffusion schedule."""
    t_max_end: float | None = None
    """Highest noise level at the end of the training, to which it falls evenly: first the shape, then details. None: it
    stays at `t_max` (DreamFusion)."""
    overhead: float = 60.0
    """Elevation in degrees from which the prompt says "overhead view"."""
    overhead_ramp: float = 0.0
    """Degrees over which that prompt takes over; 0 switches at once (DreamFusion)."""
    orientation_weight: float = 1e-2
    """Weight of the regulariser against visible surface that faces away from the camera (DreamFusion); counts
    in lit steps, the only ones that have normals."""
    opacity_weight: float = 1e-3
    """Weight of the regulariser on opacity, `mean sqrt(o^2 + 0.01)`, which clears space (DreamFusion)."""
    entropy_weight: float = 0.0
    """Weight of the opacity's binary entropy: rays should meet the object or miss it."""
    background_jitter: float = 0.0
    """Colours behind the object are shifted at random by at most this in each view, so that the object cannot hide by
    taking the background's colour."""
    albedo_share: float = 0.1
    """Share of the training in which only the albedo is shown, before lights move."""
    lit_probability: float = 0.75
    """How often a step is lit after that."""
    textureless_probability: float = 0.2
    """How often a lit step shows the shape alone."""
    least_ambient: float = 0.1
    """The ambient share of a light is between this and 1."""
    seed: int = 0
    """Seed of views, lights, noise and noise levels. --machine.seed is that of the initial field."""
    prior: str = "deepfloyd"
    """The diffusion model: deepfloyd, stable-diffusion, toy, a hub id, or a folder in diffusers layout."""
    prior_device: str | None = None
    """Where it runs; None takes the field's device."""
    prior_dtype: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Its precision; auto is fp16 on a GPU, bf16 on a CPU that gains from it, fp32 elsewhere."""
    prior_batch_size: int | None = None
    """Samples in one call of its network, to bound memory; None: all of a step, halved until they fit."""

    def wish(self) -> Wish:
        """What the flags ask for."""
        return Wish(self.prompt, self.negative_prompt, self.guidance_scale)

    def shading(self) -> ShadingPolicy:
        """How views are lit. Raises `ValueError`."""
        return ShadingPolicy(self.albedo_share, self.lit_probability, self.textureless_probability, self.least_ambient)

    def timesteps(self, progress: float) -> UniformTimesteps:
        """Noise levels after a share `progress` of the training. Raises `ValueError`."""
        end = self.t_max if self.t_max_end is None else self.t_max_end
        return UniformTimesteps(self.t_min, self.t_max + progress * (end - self.t_max))

    def how(self) -> str:
        """How views are scored, in words."""
        return (
            "each view by itself (SDS)"
            if self.kernel == "independent"
            else f"views listen to each other ({self.kernel})"
        )

    def check_prior(self, prior: ViewPrior) -> None:
        """Raise `ValueError` if views cannot be distilled from this prior."""
        if not isinstance(prior, ViewPrior):
            raise ValueError("it cannot pass a gradient on to rendered views: give deepfloyd, stable-diffusion or toy")

    def make_guide(self, prior: ViewPrior) -> Callable[..., Any]:
        """What scores the views, a `csd_nerf.scenes.generation.pipeline.Guide`; loads the kernel's network."""
        from csd_nerf.scenes.generation.guide import ViewGuide

        if self.kernel != "lpips":
            return ViewGuide(prior, self)
        from csd_nerf.scenes.generation.perceptual import perceptual_kernel

        return ViewGuide(prior, self, perceptual_kernel(prior.device))

    def choices(self) -> dict[str, Any]:
        """The flags that decide what a run makes, by name, in plain types; not where the prior runs."""
        elsewhere = {"_target", "datamanager", "model", "prior_device", "prior_batch_size"}
        own = {entry.name: _plain(getattr(self, entry.name)) for entry in fields(self) if entry.name not in elsewhere}
        views, model = asdict(self.datamanager), self.model
        own |= {f"datamanager.{name}": views[name] for name in _VIEW_CHOICES}
        left_out = {entry.name for entry in fields(ModelConfig)} | {"implementation"}
        return own | {
            f"model.{entry.name}": _plain(getattr(model, entry.name))
            for entry in fields(model)
            if entry.name not in left_out
        }

    def check(self) -> None:
        """Raise `SceneError`, naming the flag and the remedy, for values that cannot work."""
        if problem := self.wish().problem():
            raise SceneError(with_flags(problem) + ".")
        try:
            self.timesteps(0.0)
            self.timesteps(1.0)
            self.shading()
        except ValueError as error:
            raise SceneError(with_flags(str(error)) + ".") from error
        if not math.isfinite(self.overhead):
            raise SceneError(f"{flag_of('overhead')} {self.overhead}: give an elevation in degrees.")
        if problem := self.model.problem():
            raise SceneError(renamed(problem, lambda name: f"--pipeline.model.{_dashed(name)}") + ".")
        for name in ("orientation_weight", "opacity_weight", "entropy_weight", "overhead_ramp", "background_jitter"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise SceneError(f"{flag_of(name)} {value}: give a finite number, 0 or more.")
        for name, value in (("prior_batch_size", self.prior_batch_size), ("seed", self.seed)):
            if value is not None and value < (name == "prior_batch_size"):
                raise SceneError(f"{flag_of(name)} {value}: give {int(name != 'seed')} or more.")
        self._check_views()

    def _check_views(self) -> None:
        views = self.datamanager
        try:
            views.ranges()
        except ValueError as error:
            raise SceneError(
                renamed(str(error), lambda name: f"--pipeline.datamanager.{_dashed(name)}") + "."
            ) from error
        for name in ("views_per_step", "resolution", "coarse_resolution", "evaluation_resolution"):
            value = getattr(views, name)
            if value is not None and value < 1:
                raise SceneError(f"--pipeline.datamanager.{_dashed(name)} {value}: give at least 1.")
        if not 0 <= views.coarse_share <= 1:
            raise SceneError(f"--pipeline.datamanager.coarse-share {views.coarse_share}: give a share from 0 to 1.")
        if views.data is not None:
            raise SceneError(f"--data {views.data}: an object is made from the prompt alone; leave the flag out.")


_VIEW_CHOICES = (
    "radius", "elevation", "azimuth", "field_of_view", "views_per_step", "resolution", "coarse_resolution",
    "coarse_share",
)  # fmt: skip


def with_panel_values(wanted: Wish, previous: Wish) -> tuple[Wish, str]:
    """The wish that the viewer's panel shows, field by field, and a complaint about what cannot work."""
    chosen, complaints = previous, []
    for name, value in asdict(wanted).items():
        trial = replace(chosen, **{name: value})
        problem = trial.problem()
        if problem is None:
            chosen = trial
        else:
            complaints.append(f"Not used: {problem}; {getattr(previous, name)} is kept.")
    return chosen, " ".join(complaints)


def flag_of(name: str) -> str:
    """The command line's name for a field of the pipeline's configuration."""
    return f"--pipeline.{_dashed(name)}"


def with_flags(message: str) -> str:
    """`t_max=2` or `prompt is empty` as a command line says it."""
    known = {entry.name for entry in fields(GenerationPipelineConfig)}
    message = re.sub(
        r"^(\w+) is\b", lambda found: f"{flag_of(found[1])} is" if found[1] in known else found[0], message
    )
    return renamed(message, lambda name: flag_of(name) if name in known else None)


def renamed(message: str, rename: Callable[[str], str | None]) -> str:
    """Replace each `name=` that `rename` knows by its answer and a space."""

    def word(match: re.Match[str]) -> str:
        name = rename(match[1])
        return match[0] if name is None else f"{name} "

    return re.sub(r"\b([a-z_]+)=(?=\S)", word, message)


def _plain(value: Any) -> Any:
    """A flag's value in a type that a checkpoint may hold."""
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _dashed(name: str) -> str:
    return name.replace("_", "-")
