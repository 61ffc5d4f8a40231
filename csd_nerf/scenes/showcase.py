"""What one shows of a run: photos with their renders, and a camera path around the scene."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from nerfstudio.cameras.camera_paths import get_interpolated_camera_path
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from csd_nerf.scenes.edit_pipeline import EditPipeline
from csd_nerf.scenes.rendering import render_cameras


@dataclass(frozen=True)
class ComparedViews:
    """Photos beside the scene's renders from the same cameras."""

    photos: list[Float[Tensor, "3 _h _w"]]
    """In [0, 1], at the size that the method trains at."""
    renders: list[Float[Tensor, "3 _h _w"]]
    """The scene from the same cameras."""
    held_out: bool
    """Whether training never saw them."""


def render_compared(pipeline: EditPipeline) -> ComparedViews:
    """Render the views that the data parser keeps from training (nerfstudio's evaluation split).

    It keeps none of a scene of fewer than ten views, unless the scene names some: the training views are then rendered.
    """
    seen, data = pipeline.datamanager.train_dataset, pipeline.datamanager.eval_dataset
    known = set(seen.image_filenames)
    held_out = [view for view, name in enumerate(data.image_filenames) if name not in known] if data else []
    shown, views = (data, held_out) if held_out else (seen, list(range(len(seen))))
    rendered = [render_cameras(pipeline, shown.cameras[view : view + 1]).images[0] for view in views]
    return ComparedViews([shown.original(view) for view in views], rendered, bool(held_out))


def render_path(
    pipeline: EditPipeline, frames: int, on_frame: Callable[[int, int], None] | None = None
) -> list[Float[Tensor, "3 h w"]]:
    """Fly through at most 12 training cameras, in the order of the shortest way between them."""
    cameras = pipeline.datamanager.train_dataset.cameras
    count = len(cameras.camera_to_worlds)
    chosen = cameras[torch.linspace(0, count - 1, min(count, 12)).round().long()]
    path: Cameras = chosen
    if count > 1:
        steps = -(-frames // (len(chosen.camera_to_worlds) - 1))
        path = get_interpolated_camera_path(chosen, steps=steps, order_poses=True)
        path.height = chosen.height[:1].expand(len(path.camera_to_worlds), 1)
        path.width = chosen.width[:1].expand(len(path.camera_to_worlds), 1)
    shown = []
    total = min(frames, len(path.camera_to_worlds))
    for index in range(total):
        shown.append(render_cameras(pipeline, path[index : index + 1].to(pipeline.device)).images[0])
        if on_frame is not None:
            on_frame(index + 1, total)
    return shown
