"""The configurations of `latent-fm` and `latent-fm-lite`, from one factory."""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

from nerfstudio.configs.base_config import LoggingConfig, ViewerConfig
from nerfstudio.engine.optimizers import AdamOptimizerConfig

from csd_nerf.scenes.errors import SceneError
from csd_nerf.scenes.generation.config import TOY_CAMERAS, TOY_FIELD, TOY_WORDS
from csd_nerf.scenes.generation.datamanager import RandomViewDataManagerConfig
from csd_nerf.scenes.generation.latent_model import LatentModelConfig
from csd_nerf.scenes.generation.latent_options import LatentField, LatentPipelineConfig
from csd_nerf.scenes.generation.optimisers import AdamaxOptimizerConfig
from csd_nerf.scenes.generation.options import flag_of
from csd_nerf.scenes.generation.trainer_config import GenerationTrainerConfig

STEPS: dict[LatentField, int] = {"latent-nerf": 7000, "sjc": 10000}
"""LDP Section 5.1; those of latent-nerf with 2,000 of refinement."""
_LITE_REFINED = 200
_RATES = {"fields": (1e-3, 1e-2), "background": (1e-3, 3e-3)}
"""Learning rates of latent-nerf, in full and -lite."""


@dataclass(frozen=True)
class JacobianDefaults:
    """What `--pipeline.field sjc` takes where the flags were left alone: Score Jacobian Chaining's, as released."""

    rate: float = 0.05
    """Learning rate of the voxel grid, for Adamax."""
    background_rate: float = 1e-4
    """A 500th: a background that learns as quickly would draw the object itself."""
    emptiness_weight: float = 1e4
    """Weight of the emptiness loss."""
    voxels: int = 100
    """Voxels along a side."""


@dataclass
class LatentTrainerConfig(GenerationTrainerConfig):
    """A run that makes an object in latent space. Fields that are None take the value of --pipeline.field."""

    pipeline: LatentPipelineConfig = field(default_factory=LatentPipelineConfig)
    """Pipeline configuration."""
    max_num_iterations: int | None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    """Steps of the whole training, refinement included. None: latent-nerf 7000, sjc 10000."""
    jacobian: ClassVar[JacobianDefaults] = JacobianDefaults()

    def check(self) -> None:
        """Settle what depends on the field, then as in the class that this extends."""
        if self.max_num_iterations is None:
            self.max_num_iterations = STEPS[self.pipeline.field]
        options = self.pipeline
        if options.field == "sjc":
            self._settle_jacobian()
        if options.refined >= self.max_num_iterations and options.refined:
            raise SceneError(
                f"{flag_of('refine_steps')} {options.refined} leaves none of the {self.max_num_iterations} steps for "
                "the latents: give fewer, or raise --max-num-iterations."
            )
        super().check()

    def _settle_jacobian(self) -> None:
        options, defaults = self.pipeline, self.jacobian
        if options.refine_steps == _LITE_REFINED:
            options.refine_steps = None  # the -lite default is that of latent-nerf
        if options.emptiness_weight is None:
            options.emptiness_weight = defaults.emptiness_weight
        if options.model.voxels == TOY_FIELD["voxels"]:
            options.model.voxels = (options.model.voxels[0], defaults.voxels)
        self.optimizers = {**self.optimizers, **jacobian_optimizers(self.optimizers, defaults)}


@dataclass
class LatentLiteTrainerConfig(LatentTrainerConfig):
    """The same for the toy prior, whose latents are 16 x 16, whose guidance is 5, and which draws a studio's wall.

    With the released values and 1,000 steps "a yellow duck" was a cloud of voxels: their emptiness loss weighs against
    four times the latents and twenty times the guidance. With a 200th of it the wall was painted onto the cube; with a
    background that learns and voxels of about a latent's size as well, there was a duck.
    """

    jacobian: ClassVar[JacobianDefaults] = JacobianDefaults(background_rate=0.01, emptiness_weight=100.0, voxels=24)


def jacobian_optimizers(given: dict[str, Any], defaults: JacobianDefaults) -> dict[str, Any]:
    """Adamax for the voxel grid and its background; rates that are no defaults of latent-nerf are kept."""
    found = {}
    for name, rate in (("fields", defaults.rate), ("background", defaults.background_rate)):
        optimizer = given[name]["optimizer"]
        if not isinstance(optimizer, AdamaxOptimizerConfig):
            chosen = rate if optimizer.lr in _RATES[name] else optimizer.lr
            found[name] = {"optimizer": AdamaxOptimizerConfig(lr=chosen), "scheduler": None}
    return found


Kind = TypeVar("Kind", bound=LatentTrainerConfig)


def latent_config() -> LatentTrainerConfig:
    """`latent-fm`: latents of Stable Diffusion at 64 x 64, LDP's losses, refinement in colour (LDP Section 5.1)."""
    return _full(LatentTrainerConfig)


def _full(kind: type[Kind]) -> Kind:
    def optimizer(lr: float) -> dict[str, Any]:
        return {"optimizer": AdamOptimizerConfig(lr=lr, eps=1e-15), "scheduler": None}

    return kind(
        method_name="latent-fm",
        steps_per_save=1000,
        mixed_precision=False,
        pipeline=LatentPipelineConfig(
            datamanager=RandomViewDataManagerConfig(resolution=64, views_per_step=1),
            # The release of Score Jacobian Chaining has a grid of 100; the first number is the voxel-grid's.
            model=LatentModelConfig(field="hash-grid", voxels=(16, 100)),
            prior="stable-diffusion",
            kernel="independent",
            guidance_scale=100.0,
            opacity_weight=0.0,
            entropy_weight=5e-4,  # Latent-NeRF's lambda for sparsity, which is the entropy of the opacity
            lit_probability=0.0,
        ),
        optimizers={"fields": optimizer(1e-3), "background": optimizer(1e-3), "colours": optimizer(1e-3)},
        viewer=ViewerConfig(num_rays_per_chunk=1 << 14),
        logging=LoggingConfig(steps_per_log=50),
    )


def latent_lite_config() -> LatentLiteTrainerConfig:
    """`latent-fm-lite`: the same on a machine without a GPU, in minutes: dense grids and the toy prior's latents."""
    full = _full(LatentLiteTrainerConfig)
    model = replace(full.pipeline.model, **TOY_FIELD, samples_per_ray=48)
    views = replace(full.pipeline.datamanager, **TOY_CAMERAS, resolution=16, views_per_step=4)

    def optimizer(lr: float) -> dict[str, Any]:
        return {"optimizer": AdamOptimizerConfig(lr=lr, eps=1e-15), "scheduler": None}

    return replace(
        full,
        method_name="latent-fm-lite",
        steps_per_save=200,
        max_num_iterations=1000,
        pipeline=replace(
            full.pipeline,
            datamanager=views,
            model=model,
            prior="toy",
            guidance_scale=5.0,
            t_max_end=0.5,
            opacity_weight=30.0,
            entropy_weight=0.0,
            refine_steps=_LITE_REFINED,
            refine_resolution=64,
            **TOY_WORDS,
        ),
        optimizers={"fields": optimizer(1e-2), "background": optimizer(3e-3), "colours": optimizer(1e-3)},
    )
