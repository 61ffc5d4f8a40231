"""The configurations of `csd-dreamfusion` and `csd-dreamfusion-lite`, from one factory."""

from dataclasses import replace

from nerfstudio.configs.base_config import LoggingConfig, ViewerConfig
from nerfstudio.engine.optimizers import AdamOptimizerConfig

from csd_nerf.scenes.generation.datamanager import RandomViewDataManagerConfig
from csd_nerf.scenes.generation.model import ObjectModelConfig
from csd_nerf.scenes.generation.optimisers import AdanOptimizerConfig, WarmupCosineSchedulerConfig
from csd_nerf.scenes.generation.options import GenerationPipelineConfig
from csd_nerf.scenes.generation.trainer_config import GenerationTrainerConfig

TOY_CAMERAS = {
    "radius": (2.75, 3.0),
    "elevation": (6.0, 46.0),
    "field_of_view": (44.0, 46.0),
}
"""From where the toy world's pictures were taken, see `csd_nerf.toyworld.cameras`."""
TOY_FIELD = {
    "field": "voxel-grid",
    "voxels": (16, 48),
    "blob_density": 6.0,
    "blob_radius": 0.6,
    "width": 32,
    "background_frequencies": 2,
    "occupancy_resolution": 32,
    "occupancy_threshold": 0.5,
}
"""The small field of the -lite methods: dense grids, which are quick on a CPU."""
TOY_WORDS = {"prompt_suffix": "in a studio", "overhead": 40.0, "overhead_ramp": 8.0}
"""What the toy world's captions say of the surroundings, and from where they say "overhead view"."""


def dreamfusion_config() -> GenerationTrainerConfig:
    """`csd-dreamfusion`: a coordinate MLP, DeepFloyd IF, four views, LPIPS between them (CSD D.2)."""

    def optimizer() -> dict[str, object]:
        return {"optimizer": AdanOptimizerConfig(lr=2e-3), "scheduler": WarmupCosineSchedulerConfig()}

    return GenerationTrainerConfig(
        method_name="csd-dreamfusion",
        steps_per_save=1000,
        max_num_iterations=10000,
        mixed_precision=False,
        pipeline=GenerationPipelineConfig(
            datamanager=RandomViewDataManagerConfig(), model=ObjectModelConfig(eval_num_rays_per_chunk=1 << 14)
        ),
        optimizers={"fields": optimizer(), "background": optimizer()},
        viewer=ViewerConfig(num_rays_per_chunk=1 << 14),
        logging=LoggingConfig(steps_per_log=50),
    )


def dreamfusion_lite_config() -> GenerationTrainerConfig:
    """`csd-dreamfusion-lite`: the same on a machine without a GPU, in minutes: dense grids and the toy prior."""
    full = dreamfusion_config()
    model = replace(full.pipeline.model, **TOY_FIELD, samples_per_ray=40)
    views = replace(full.pipeline.datamanager, **TOY_CAMERAS, coarse_resolution=32, coarse_share=0.5)

    def optimizer(lr: float) -> dict[str, object]:
        # With Adan, and twice the weight of opacity, grids were hollow in places and poorer in colours (two captions).
        return {"optimizer": AdamOptimizerConfig(lr=lr, eps=1e-15), "scheduler": None}

    return replace(
        full,
        method_name="csd-dreamfusion-lite",
        steps_per_save=200,
        max_num_iterations=1000,
        pipeline=replace(
            full.pipeline,
            datamanager=views,
            model=model,
            prior="toy",
            # With 7.5 and 300 steps a car had no windows, with 5 and more steps it has; which of the two is not known.
            guidance_scale=5.0,
            t_max_end=0.5,
            # The distillation is a sum over latents, this a mean over rays. With less, the background is painted
            # onto what should be empty.
            opacity_weight=30.0,
            orientation_weight=1.0,  # for whoever switches the lights on
            # At 32 pixels lights cost more than they tell.
            lit_probability=0.0,
            **TOY_WORDS,
        ),
        optimizers={"fields": optimizer(1e-2), "background": optimizer(3e-3)},
    )
