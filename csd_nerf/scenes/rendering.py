"""Pictures of a trained scene from given cameras, before or after its edit."""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.pipelines.base_pipeline import Pipeline
from torch import Tensor

from csd_nerf.scenes.checkpoints import find_checkpoint, read_checkpoint
from csd_nerf.scenes.edit_pipeline import EditPipeline
from csd_nerf.scenes.edit_trainer import EditTrainer
from csd_nerf.scenes.errors import SceneError


@dataclass(frozen=True)
class RenderedViews:
    """Pictures and depths of a scene."""

    images: Float[Tensor, "n 3 h w"]
    """In [0, 1], on the CPU."""
    depths: Float[Tensor, "n h w"]
    """Distance along each ray to the median of its weights, in units of the data's cameras."""


@dataclass(frozen=True)
class Pinhole:
    """What cameras without distortion share, in pixels."""

    width: int
    height: int
    focal: float
    """Both axes; the principal point is the picture's centre."""


def load_scene(config_path: Path, checkpoint: Path | None = None) -> EditPipeline:
    """The pipeline of a csd-edit run, see `load_run`; its `scene` folder has the scene before the edit.

    Raises `SceneError` for another method's run.
    """
    pipeline = load_run(config_path, checkpoint)
    if not isinstance(pipeline, EditPipeline):
        raise SceneError(f"{config_path} is not the config.yml of a csd-edit run: give that of one.")
    return pipeline


def load_run(config_path: Path, checkpoint: Path | None = None) -> Pipeline:
    """The pipeline of a nerfstudio run, ready to render; neither prior nor pictures are loaded.

    `checkpoint` is a file or a folder of checkpoints; the run's newest one if None. Raises `SceneError` for anything
    but the config.yml of a nerfstudio run, and for a checkpoint that cannot be read.
    """
    config = yaml.load(Path(config_path).read_text(), Loader=yaml.Loader)
    if not isinstance(config, TrainerConfig):
        raise SceneError(f"{config_path} is not the config.yml of a nerfstudio run: ns-train writes one for each.")
    if checkpoint is None:
        checkpoint = Path(config_path).parent / config.relative_model_dir
    path = find_checkpoint(checkpoint) if checkpoint.is_dir() else checkpoint
    device = "cuda" if config.machine.device_type == "cuda" and torch.cuda.is_available() else "cpu"
    pipeline = config.pipeline.setup(device=device, test_mode="inference")
    loaded = read_checkpoint(path)
    if isinstance(pipeline, EditPipeline):
        pipeline.method, pipeline.checkpoint_path = str(config.method_name), path
    pipeline.load_pipeline(loaded["pipeline"], loaded["step"])
    pipeline.eval()
    return pipeline


def render_views(
    scene: EditPipeline | EditTrainer | Path,
    camera_to_worlds: Float[Tensor, "n 3 4"],
    camera: Pinhole,
    *,
    checkpoint: Path | None = None,
) -> RenderedViews:
    """Render a scene from cameras given as in its transforms.json (OpenGL: x right, y up, z backwards).

    nerfstudio's data parser may have rotated, centred and scaled the world; the same is done to these cameras. `scene`
    is a run's config.yml (with `checkpoint` as in `load_scene`), or a pipeline or trainer as it is now.
    """
    if isinstance(scene, Path):
        scene = load_scene(scene, checkpoint)
    pipeline = scene.pipeline if isinstance(scene, EditTrainer) else scene
    outputs = pipeline.datamanager.train_dataparser_outputs
    scale = float(outputs.dataparser_scale)
    rotation, translation = outputs.dataparser_transform[:3, :3], outputs.dataparser_transform[:3, 3:]
    given = camera_to_worlds.float().cpu()
    poses = torch.cat([rotation @ given[:, :, :3], scale * (rotation @ given[:, :, 3:] + translation)], dim=2)
    cameras = Cameras(
        camera_to_worlds=poses,
        fx=camera.focal,
        fy=camera.focal,
        cx=camera.width / 2,
        cy=camera.height / 2,
        width=camera.width,
        height=camera.height,
        camera_type=CameraType.PERSPECTIVE,
    )
    return render_cameras(pipeline, cameras)


def render_cameras(pipeline: Pipeline, cameras: Cameras) -> RenderedViews:
    """Render nerfstudio cameras of one size, in the world that the data parser made."""
    cameras = cameras.to(pipeline.device)
    data: Any = pipeline.datamanager
    scale = float(data.train_dataparser_outputs.dataparser_scale)
    images, depths = [], []
    with pipeline.undisturbed() if isinstance(pipeline, EditPipeline) else nullcontext():
        pipeline.eval()
        for index in range(len(cameras.camera_to_worlds)):
            rendered = pipeline.model.get_outputs_for_camera(cameras[index : index + 1])
            images.append(rendered["rgb"].permute(2, 0, 1).clamp(0, 1).float().cpu())
            depths.append(rendered["depth"][..., 0].float().cpu() / scale)
    return RenderedViews(torch.stack(images), torch.stack(depths))
