"""The data of `csd demo`: 32 views of a held-out toy scene, and 8 between them that training never sees."""

from dataclasses import replace
from pathlib import Path

from csd_nerf.toyworld.cameras import Cameras
from csd_nerf.toyworld.nerf_scene import SceneViews, scene_cameras, write_nerfstudio
from csd_nerf.toyworld.scene import demo_scene

VIEWS, HELD_OUT, SEED = 32, 8, 0


def demo_cameras(held_out: bool = False) -> Cameras:
    """All cameras of the demo scene, or those kept from training."""
    cameras = scene_cameras(VIEWS, HELD_OUT, seed=SEED)
    if not held_out:
        return cameras
    return replace(
        cameras,
        camera_to_world=cameras.camera_to_world[VIEWS:],
        azimuth=cameras.azimuth[VIEWS:],
        elevation=cameras.elevation[VIEWS:],
    )


def write_demo_scene(folder: Path) -> SceneViews:
    """Render the demo scene as a nerfstudio dataset; the package carries the result as `data/demo_scene`."""
    return write_nerfstudio(folder, demo_scene(), count=VIEWS, test_count=HELD_OUT, seed=SEED)
