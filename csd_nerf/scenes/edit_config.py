"""The configurations of `csd-edit` and `csd-edit-lite`, from one factory."""

from dataclasses import replace

from nerfstudio.cameras.camera_optimizers import CameraOptimizerConfig
from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
from nerfstudio.models.nerfacto import NerfactoModelConfig

from csd_nerf.scenes.edit_datamanager import EditDataManagerConfig
from csd_nerf.scenes.edit_options import EditPipelineConfig
from csd_nerf.scenes.edit_rhythm import EditRhythm
from csd_nerf.scenes.edit_trainer import EditTrainerConfig


def edit_config() -> EditTrainerConfig:
    """`csd-edit`: nerfstudio's nerfacto, field and optimisers unchanged, and InstructPix2Pix (CSD C.3)."""

    def optimizer(lr: float, lr_final: float, max_steps: int) -> dict[str, object]:
        return {
            "optimizer": AdamOptimizerConfig(lr=lr, eps=1e-15),
            "scheduler": ExponentialDecaySchedulerConfig(lr_final=lr_final, max_steps=max_steps),
        }

    return EditTrainerConfig(
        method_name="csd-edit",
        steps_per_save=2000,
        mixed_precision=True,
        pipeline=EditPipelineConfig(
            datamanager=EditDataManagerConfig(train_num_rays_per_batch=4096, eval_num_rays_per_batch=4096),
            model=NerfactoModelConfig(
                eval_num_rays_per_chunk=1 << 15,
                average_init_density=0.01,
                camera_optimizer=CameraOptimizerConfig(mode="SO3xR3"),
            ),
        ),
        optimizers={
            "proposal_networks": optimizer(1e-2, 1e-4, 200000),
            "fields": optimizer(1e-2, 1e-4, 200000),
            "camera_opt": optimizer(1e-3, 1e-4, 5000),
        },
        viewer=ViewerConfig(num_rays_per_chunk=1 << 15),
        vis="viewer",
    )


def lite_config() -> EditTrainerConfig:
    """`csd-edit-lite`: the same on a machine without a GPU, in minutes: a small field, small views, the toy prior."""
    full = edit_config()
    model = replace(
        full.pipeline.model,
        num_levels=6,
        max_res=256,
        log2_hashmap_size=14,
        hidden_dim=32,
        hidden_dim_color=32,
        num_proposal_iterations=1,
        num_proposal_samples_per_ray=(32,),
        num_nerf_samples_per_ray=12,
        proposal_net_args_list=[
            {"hidden_dim": 16, "log2_hashmap_size": 13, "num_levels": 3, "max_res": 64, "use_linear": False}
        ],
        proposal_warmup=500,
        proposal_weights_anneal_max_num_iters=300,
        use_appearance_embedding=False,
        camera_optimizer=CameraOptimizerConfig(mode="off"),
        eval_num_rays_per_chunk=1 << 13,
    )
    datamanager = replace(
        full.pipeline.datamanager, train_num_rays_per_batch=1024, eval_num_rays_per_batch=1024, view_size=64
    )
    return replace(
        full,
        method_name="csd-edit-lite",
        steps_per_save=500,
        max_num_iterations=700,
        mixed_precision=False,
        pipeline=replace(
            full.pipeline,
            datamanager=datamanager,
            model=model,
            prior="toy",
            rhythm=EditRhythm(edit_every=175, edit_steps=60),
            scene_steps=1000,
            # What is to be added the toy prior puts against the background's colour, the more so the larger the
            # guidance scale, so that views of a hat before sky and before grass disagree (lite.md). With little
            # guidance, and with the low noise levels at which a view sees its own colour, objects keep theirs. So the
            # first pass over the views decides what the edit is, with high levels alone and twice the guidance, and
            # the second keeps what the scene has agreed on (benchmarks/results/study.md, "An object that keeps its
            # colour").
            guidance_scale=2.0,
            guidance_first=2.0,
            t_min_first=0.5,
            method_t_max=0.98,
            t_max_end=0.5,
            t_max_passes=2,
            view_dependence=False,
        ),
        viewer=ViewerConfig(num_rays_per_chunk=1 << 13),
    )
