"""The configurations of `latent-fm` and `latent-fm-lite`, from one factory."""

from dataclasses import dataclass, field, replace
from typing import Any

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


@dataclass
class LatentTrainerConfig(GenerationTrainerConfig):
    """A run that makes an object in latent space. Fields that are None take the value of --pipeline.field."""

    pipeline: LatentPipelineConfig = field(default_factory=LatentPipelineConfig)
    """Pipeline configuration."""
    max_num_iterations: int | None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    """Steps of the whole training, refinement included. None: latent-nerf 7000, sjc 10000."""

    def check(self) -> None:
        """Settle what depends on the field, then as in the class that this extends."""
        if self.max_num_iterations is None:
            self.max_num_iterations = STEPS[self.pipeline.field]
        options = self.pipeline
        if options.field == "sjc" and options.refine_steps == _LITE_REFINED:
            options.refine_steps = None  # the -lite default is that of latent-nerf
        if options.refined >= self.max_num_iterations and options.refined:
            raise SceneError(
                f"{flag_of('refine_steps')} {options.refined} leaves none of the {self.max_num_iterations} steps for "
                "the latents: give fewer, or raise --max-num-iterations."
            )
        if options.field == "sjc":
            self.optimizers = {**self.optimizers, **jacobian_optimizers(self.optimizers)}
        super().check()


def jacobian_optimizers(given: dict[str, Any]) -> dict[str, Any]:
    """Adamax for the voxel grid, 1/500 of its learning rate for the background; rates that are no defaults are kept."""
    found = {}
    for name, rate in (("fields", 0.05), ("background", 1e-4)):
        optimizer = given[name]["optimizer"]
        if not isinstance(optimizer, AdamaxOptimizerConfig):
            chosen = rate if optimizer.lr in _RATES[name] else optimizer.lr
            found[name] = {"optimizer": AdamaxOptimizerConfig(lr=chosen), "scheduler": None}
    return found


def latent_config() -> LatentTrainerConfig:
    """`latent-fm`: latents of Stable Diffusion at 64 x 64, LDP's losses, refinement in colour (LDP Section 5.1)."""

    def optimizer(lr: float) -> dict[str, Any]:
        return {"optimizer": AdamOptimizerConfig(lr=lr, eps=1e-15), "scheduler": None}

    return LatentTrainerConfig(
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


def latent_lite_config() -> LatentTrainerConfig:
    """`latent-fm-lite`: the same on a machine without a GPU, in minutes: dense grids and the toy prior's latents."""
    full = latent_config()
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
