"""The views of nerfstudio runs, before and after their edit, as pictures that `csd metrics` compares."""

import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import yaml

from csd_nerf.metrics.pictures import Loaded, Pictures
from csd_nerf.metrics.warp import PinholeViews, nearest_views
from csd_nerf.scenes import SceneError
from csd_nerf.scenes.rendering import load_run

if TYPE_CHECKING:
    from csd_nerf.scenes.rendering import Pipeline

Which = Literal["auto", "held-out", "training"]


def read_runs(
    configs: Sequence[Path], which: Which = "auto", on_view: Callable[[int, int], None] = lambda done, total: None
) -> tuple[Pictures, Pictures]:
    """The scene before and after the edit, rendered when the pictures are first asked for.

    One config.yml is that of an edit, which keeps the scene before its first edit; two are of any two runs of
    nerfstudio's methods that learn from photos, such as nerfacto before and csd-edit after. Views are
    those that training never saw, or the training views where there are none or `which` says so. Lens distortion is
    left out, so that a point is where the pinhole model says. Raises `ValueError` that names --load-config or --views.
    """
    if len(configs) > 2:
        raise ValueError(f"--load-config takes one run or two, before and after the edit; {len(configs)} are given")
    for path in configs:
        if not path.is_file():
            raise ValueError(f"--load-config {path} is no file: give the config.yml of a run of ns-train")
    if len(configs) == 2:
        before, after = (_open(path, None, which, on_view, "") for path in configs)
    else:
        (path,) = configs
        scene = path.parent / "scene"
        if not scene.is_dir():
            raise ValueError(
                f"--load-config {path}: {scene}, the scene before the edit, is missing: give the config.yml of the "
                "scene's own run first"
            )
        before = _open(path, scene, which, on_view, " before the edit")
        after = _open(path, None, which, on_view, " after the edit")
    if before.names != after.names:
        raise ValueError(
            f"{before.source} and {after.source} have different views ({len(before)} and {len(after)}): give runs of "
            "the same data"
        )
    return before, after


def _open(
    config: Path, checkpoint: Path | None, which: Which, on_view: Callable[[int, int], None], when: str
) -> Pictures:
    source = f"--load-config {config}{when}"
    try:
        with contextlib.redirect_stdout(sys.stderr):  # standard output is the table's
            pipeline = load_run(config, checkpoint)
    except SceneError as error:
        raise ValueError(f"{source}: {str(error).removeprefix('csd_nerf: ')}") from error
    except (yaml.YAMLError, AssertionError, OSError) as error:  # nerfstudio asserts that the data is there
        raise ValueError(f"{source} cannot be loaded: {error}. It needs its data where it was trained") from error
    return _views(pipeline, which, source, on_view)


def _views(pipeline: "Pipeline", which: Which, source: str, on_view: Callable[[int, int], None]) -> Pictures:
    from csd_nerf.scenes.rendering import CameraType, render_cameras

    manager: Any = pipeline.datamanager
    seen, data = getattr(manager, "train_dataset", None), getattr(manager, "eval_dataset", None)
    if seen is None:
        raise ValueError(f"{source} learned from no photos, so that it has no views to compare: give runs on a scene")
    known = set(seen.image_filenames)
    held_out = [i for i, name in enumerate(data.image_filenames) if name not in known] if data else []
    if which == "held-out" and not held_out:
        raise ValueError(f"--views held-out: {source} keeps no view from training; give --views training")
    training = which == "training" or not held_out
    chosen = list(range(len(seen))) if training else held_out
    dataset = seen if training else data
    assert dataset is not None
    cameras = dataset.cameras[torch.tensor(chosen)]
    if (cameras.camera_type != CameraType.PERSPECTIVE.value).any():
        raise ValueError(f"{source}: its cameras are not pinhole cameras, and no other kind is compared yet")
    sizes = {(int(h), int(w)) for h, w in zip(cameras.height, cameras.width, strict=True)}
    if len(sizes) > 1:
        raise ValueError(f"{source}: its views have different sizes {sorted(sizes)}, and metrics need one")
    distortion = cameras.distortion_params
    distorted = distortion is not None and bool(distortion.any())
    cameras.distortion_params = None
    count = len(chosen)
    reason = "the scene keeps none from training" if which == "auto" and training else ""
    notes = [f"{count} {'training' if training else 'held-out'} views", reason]
    notes.append("the cameras' lens distortion is left out" if distorted else "")

    def load() -> Loaded:
        scale = float(manager.train_dataparser_outputs.dataparser_scale)
        rendered = []
        for i in range(count):
            rendered.append(render_cameras(pipeline, cameras[i : i + 1]))
            on_view(i + 1, count)
        poses = cameras.camera_to_worlds.float().cpu().clone()
        poses[:, :, 3] /= scale  # depths come in units of the data, these cameras in those of the data parser
        intrinsics = torch.cat([cameras.fx, cameras.fy, cameras.cx, cameras.cy], dim=1).float().cpu()
        images, depths = (torch.cat([getattr(one, name) for one in rendered]) for name in ("images", "depths"))
        return Loaded(images, PinholeViews(poses, intrinsics, depths))

    neighbours = nearest_views(cameras.camera_to_worlds.float().cpu()) if count > 1 else None
    names = tuple(Path(dataset.image_filenames[i]).stem for i in chosen)
    return Pictures(source, "views", names, sizes.pop(), load, neighbours, ", ".join(filter(None, notes)))
