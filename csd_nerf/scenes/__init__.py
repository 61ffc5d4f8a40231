"""3D scenes in nerfstudio. Importing this is cheap: the names below load nerfstudio when they are first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from csd_nerf.scenes.errors import SceneError
    from csd_nerf.scenes.rendering import Pinhole, RenderedViews, load_scene, render_views
    from csd_nerf.scenes.run import EditRun, run_edit

_HOMES = {
    "EditRun": "run",
    "run_edit": "run",
    "Pinhole": "rendering",
    "RenderedViews": "rendering",
    "load_scene": "rendering",
    "render_views": "rendering",
    "SceneError": "errors",
}

__all__ = ["EditRun", "Pinhole", "RenderedViews", "SceneError", "load_scene", "render_views", "run_edit"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
