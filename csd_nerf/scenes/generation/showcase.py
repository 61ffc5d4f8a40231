"""What one shows of an object: a turntable in colour and in depth, and views from all around."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.scenes.generation.cameras import turntable
from csd_nerf.scenes.generation.pipeline import GenerationPipeline
from csd_nerf.scenes.generation.rendering import FAR


@dataclass(frozen=True)
class Turntable:
    """An object seen from evenly spaced sides, 30 degrees above the horizon (CSD D.2)."""

    colour: list[Float[Tensor, "3 h w"]]
    """In [0, 1]."""
    depth: list[Float[Tensor, "3 h w"]]
    """Grey: near is white, and black is where there is nothing."""
    normals: list[Float[Tensor, "3 h w"]]
    """Normals in [0, 1]; black where there is nothing."""


def render_turntable(
    pipeline: GenerationPipeline,
    frames: int,
    size: int,
    *,
    elevation: float | None = None,
    on_frame: Callable[[int, int], None] | None = None,
) -> Turntable:
    """Render `frames` square views of `size` pixels."""
    ranges = pipeline.datamanager.config.ranges()
    views = pipeline.render(turntable(ranges, frames, size, elevation), on_frame)
    distance = sum(ranges.radius) / 2
    there = [view["depth"].permute(2, 0, 1) < FAR for view in views]
    near = [((distance + 1 - view["depth"].permute(2, 0, 1)) / 2).clamp(0.1, 1) for view in views]
    return Turntable(
        colour=[view["rgb"].permute(2, 0, 1).clamp(0, 1) for view in views],
        depth=[torch.where(mask, grey, 0.0).expand(3, -1, -1) for mask, grey in zip(there, near, strict=True)],
        normals=[view["normals"].permute(2, 0, 1) * mask for mask, view in zip(there, views, strict=True)],
    )
