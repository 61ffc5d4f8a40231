"""Where the object is: a grid of densities, so that empty space costs nothing (Mueller et al. 2022, Appendix C).

Each cell keeps a running maximum of the density somewhere in it, `d <- max(decay d, sigma(x))`. A cell counts as
occupied where d is above a threshold, or above the mean where that is lower; so do its neighbours, for the object must
be able to grow.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from csd_nerf.scenes.generation.seeds import Stream, step_generator

_ROWS = 1 << 17
"""Cells that are looked up in one call of the field."""


class OccupancyGrid(nn.Module):
    """A cube of `resolution`^3 cells from -1 to 1. Before its first update all of it counts as occupied."""

    density: Tensor
    occupied: Tensor

    def __init__(self, resolution: int = 32, threshold: float = 0.5, decay: float = 0.9, every: int = 8) -> None:
        """`threshold` in units of the density; the grid is updated each `every` steps."""
        super().__init__()
        self.resolution, self.threshold, self.decay, self.every = resolution, threshold, decay, every
        self.register_buffer("density", torch.zeros(resolution, resolution, resolution))
        self.register_buffer("occupied", torch.ones(resolution, resolution, resolution, dtype=torch.bool))

    @torch.no_grad()
    def update(self, density: Callable[[Tensor], Tensor], seed: int, step: int) -> None:
        """Look densities up at one random point in each cell, if this step is one for it.

        Raises `FloatingPointError` if they are not finite.
        """
        if step % self.every:
            return
        generator = step_generator(seed, Stream.OCCUPANCY, step)
        side = torch.arange(self.resolution)
        corners = torch.stack(torch.meshgrid(side, side, side, indexing="ij"), dim=-1).reshape(-1, 3)
        inside = torch.rand(corners.shape, generator=generator)
        points = ((corners + inside) / self.resolution * 2 - 1).to(self.density.device)
        found = torch.cat([density(rows) for rows in points.split(_ROWS)]).reshape(self.density.shape)
        if not torch.isfinite(found).all():  # it would count as empty, and nothing would ever be rendered again
            raise FloatingPointError("the object's density is not finite")
        self.density.copy_(torch.maximum(self.decay * self.density, found.to(self.density)))
        # Never all empty: what starts as thin fog must be able to grow.
        above = (self.density >= (0.99 * self.density.mean()).clamp(max=self.threshold)).float()
        self.occupied.copy_(F.max_pool3d(above[None], kernel_size=3, stride=1, padding=1)[0] > 0)

    def __call__(self, points: Float[Tensor, "*n 3"]) -> Bool[Tensor, "*n"]:
        """Whether points are in occupied cells; outside of the cube nothing is."""
        cells = ((points + 1) / 2 * self.resolution).floor().long()
        inside = ((cells >= 0) & (cells < self.resolution)).all(dim=-1)
        x, y, z = cells.clamp(0, self.resolution - 1).unbind(dim=-1)
        return self.occupied[x, y, z] & inside
