"""A toy scene as a NeRF dataset: views, true edited views, and nerfstudio's folder layout.

folder/transforms.json          cameras, and which pictures are for training, validation and test
folder/images/00000.png ...
folder/edited/<instruction>/00000.png ...   ground truth, same numbers as the images
folder/edited/<instruction>/edit.json       what an ambiguous instruction came to mean here
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from csd_nerf.toyworld.cameras import Cameras, ring_cameras
from csd_nerf.toyworld.edits import Edit
from csd_nerf.toyworld.render import Renderer, to_bytes
from csd_nerf.toyworld.scene import Scene


@dataclass(frozen=True)
class SceneViews:
    """Pictures of one scene from known cameras."""

    cameras: Cameras
    images: Float[Tensor, "n 3 h w"]
    """0..1 sRGB."""
    edited: dict[str, Float[Tensor, "n 3 h w"]]
    """True pictures after each edit, by instruction."""
    test: tuple[int, ...]
    """Which views are held out from training."""


def orbit_views(
    scene: Scene,
    edits: Sequence[Edit] = (),
    count: int = 24,
    test_count: int = 6,
    size: int = 64,
    seed: int = 0,
    samples: int = 2,
) -> SceneViews:
    """A scene and its true edits from `scene_cameras`, with `samples` x `samples` rays in every pixel."""
    cameras = scene_cameras(count, test_count, size, seed)
    renderer = Renderer(cameras, samples)
    edited = {edit.instruction: renderer.edited(scene, edit) for edit in edits}
    return SceneViews(cameras, renderer.render(scene), edited, tuple(range(count, count + test_count)))


def scene_cameras(count: int = 24, test_count: int = 6, size: int = 64, seed: int = 0) -> Cameras:
    """`count` training views in two rings around the object, then `test_count` held-out views between the rings.

    Args:
        count: at least 1.
        test_count: 0 or more.
        size: pixels along a side.
        seed: of the jitter of the camera positions.

    Raises:
        ValueError: fewer than one training view.
    """
    if count < 1:
        raise ValueError(f"a scene needs at least one training view, got count={count}")
    train = ring_cameras(count, seed, size)
    return train if test_count == 0 else _joined(train, ring_cameras(test_count, seed + 1, size, (24.0, 30.0)))


def _joined(first: Cameras, second: Cameras) -> Cameras:
    return replace(
        first,
        camera_to_world=torch.cat([first.camera_to_world, second.camera_to_world]),
        azimuth=first.azimuth + second.azimuth,
        elevation=first.elevation + second.elevation,
    )


def write_nerfstudio(
    folder: Path,
    scene: Scene,
    edits: Sequence[Edit] = (),
    count: int = 24,
    test_count: int = 6,
    size: int = 64,
    seed: int = 0,
    samples: int = 2,
) -> SceneViews:
    """Render a scene and write it as a nerfstudio dataset (see the module's docstring); arguments as `orbit_views`."""
    folder = Path(folder)
    views = orbit_views(scene, edits, count, test_count, size, seed, samples)
    names = [f"images/{index:05d}.png" for index in range(len(views.cameras))]
    _write_images(folder / "images", views.images)
    for edit in edits:
        target = folder / "edited" / edit.instruction.replace("/", " ")
        _write_images(target, views.edited[edit.instruction])
        (target / "edit.json").write_text(json.dumps(asdict(edit), indent=1))
    (folder / "transforms.json").write_text(json.dumps(_transforms(views, names, scene), indent=1))
    return views


def _transforms(views: SceneViews, names: list[str], scene: Scene) -> dict:
    cameras = views.cameras
    frames = [
        {"file_path": name, "transform_matrix": pose.tolist()}
        for name, pose in zip(names, cameras.camera_to_world, strict=True)
    ]
    test = [names[index] for index in views.test]
    train = [name for index, name in enumerate(names) if index not in views.test]
    described = {name: value for name, value in vars(scene).items() if name in type(scene).__dataclass_fields__}
    return {
        "camera_model": "OPENCV",
        "w": cameras.width,
        "h": cameras.height,
        "fl_x": cameras.focal,
        "fl_y": cameras.focal,
        "cx": cameras.width / 2,
        "cy": cameras.height / 2,
        "k1": 0.0,
        "k2": 0.0,
        "p1": 0.0,
        "p2": 0.0,
        "train_filenames": train,
        "val_filenames": test or train,
        "test_filenames": test or train,
        "toy_scene": {k: asdict(v) if is_dataclass(v) and not isinstance(v, type) else v for k, v in described.items()},
        "frames": frames,
    }


def _write_images(folder: Path, images: Float[Tensor, "n 3 h w"]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(to_bytes(images)):
        Image.fromarray(image.numpy()).save(folder / f"{index:05d}.png")
