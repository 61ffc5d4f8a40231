"""Pictures of a scene before and after edits, tracing each geometry once."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.toyworld.cameras import Cameras
from csd_nerf.toyworld.edits import Edit
from csd_nerf.toyworld.scene import Hat, Scene
from csd_nerf.toyworld.shading import shade
from csd_nerf.toyworld.style_nets import StyleNet
from csd_nerf.toyworld.trace import GeometryBuffer, trace


@dataclass
class Renderer:
    """Renders one object and its edits from fixed cameras; what was traced is kept."""

    cameras: Cameras
    samples: int = 2
    """Rays along a pixel's side."""
    nets: Mapping[str, StyleNet] = field(default_factory=dict)
    """Painting styles by name."""
    _traced: dict[tuple, list[GeometryBuffer]] = field(default_factory=dict, repr=False)

    def render(self, scene: Scene) -> Float[Tensor, "n 3 h w"]:
        """Pictures of a scene, 0..1 sRGB."""
        return torch.cat([shade(buffer, scene) for buffer in self._buffers(scene)])

    def edited(self, scene: Scene, edit: Edit) -> Float[Tensor, "n 3 h w"]:
        """True pictures of the edited scene."""
        return edit.picture(self.render(edit.scene(scene)), self.nets)

    def _buffers(self, scene: Scene) -> list[GeometryBuffer]:
        hat: Hat | None = scene.hat
        key = (scene.object, scene.proportions, scene.sun_azimuth, hat.kind if hat else None)
        if key not in self._traced:
            self._traced[key] = [
                trace(scene.table, one, scene.sun_azimuth, self.samples) for one in self.cameras.split()
            ]
        # the buffer keeps its own parts; a hat's colour is looked up at shading
        return self._traced[key]


def to_bytes(images: Float[Tensor, "n 3 h w"]) -> Tensor:
    """Pictures 0..1 to uint8 [n, h, w, 3]."""
    return (images.permute(0, 2, 3, 1) * 255).round().clamp(0, 255).to(torch.uint8)
