"""A voxel grid of densities and latent channels (Score Jacobian Chaining, Wang et al. 2023; LDP's "Jacobian NeRF").

    density(p)  = softplus(exp(s) * D[p] + shift)      channels(p) = C[p]      background(u) = B[u]

`D`, `C` and the background's picture `B` are grids that are interpolated linearly, `s` is one learned number. Channels
are rendered as they are: they are latents, not colours, and have no bounds.

The emptiness loss keeps space empty (their Eq. 13): mean of log(1 + beta w) over the rendering weights `w` of all
samples. It grows fastest at w = 0, so that faint fog costs more than its share and opaque things hardly any.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class VoxelField(nn.Module):
    """Densities and channels in the cube [-1, 1]^3."""

    def __init__(self, resolution: int = 100, channels: int = 4, background: int = 4, shift: float = -1.0) -> None:
        """`resolution` voxels along each side; the background has `background` pixels along each side.

        Channels start as unit normal noise, the distribution of latents, and densities at softplus(`shift`).
        """
        super().__init__()
        self.shift = shift
        self.density_grid = nn.Parameter(torch.zeros(1, 1, resolution, resolution, resolution))
        self.channel_grid = nn.Parameter(torch.randn(1, channels, resolution, resolution, resolution))
        self.background_picture = nn.Parameter(torch.randn(1, channels, background, background))
        self.log_scale = nn.Parameter(torch.zeros(()))

    def density(self, points: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n"]:
        """Density at points in the cube; 0 outside of it."""
        raw = _at(self.density_grid, points)[..., 0]
        inside = (points.abs() <= 1).all(-1)
        return F.softplus(raw * self.log_scale.exp() + self.shift) * inside

    def channels(self, points: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n c"]:
        """Latent channels at points in the cube."""
        return _at(self.channel_grid, points)

    def background(self, directions: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n c"]:
        """Channels of what lies behind the cube, by the direction (unit length) of the ray: azimuth and elevation."""
        x, y, z = directions.unbind(-1)
        place = torch.stack([torch.atan2(y, x) / math.pi, torch.asin(z.clamp(-1, 1)) * 2 / math.pi], -1)
        flat = place.reshape(1, -1, 1, 2)
        sampled = F.grid_sample(self.background_picture, flat, align_corners=False, padding_mode="border")
        return sampled[0, :, :, 0].T.reshape(*directions.shape[:-1], -1)

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """For an optimiser: everything with `lr`, the background with 1/500 of it, lest it draws the object itself."""
        slow = [self.background_picture]
        fast = [value for value in self.parameters() if value is not self.background_picture]
        return [{"params": fast, "lr": lr}, {"params": slow, "lr": lr / 500}]


def emptiness_loss(weights: Float[Tensor, "*n"], scale: float = 10.0) -> Float[Tensor, ""]:
    """Mean of log(1 + `scale` * w) over the rendering weights (0..1) of all samples of all rays."""
    return torch.log1p(scale * weights).mean()


def emptiness_weight(
    step: int, steps: int, weight: float = 1e4, multiplier: float = 20.0, change: float = 0.5
) -> float:
    """Weight of the emptiness loss: `weight`, and from the fraction `change` of all steps on `multiplier` times it.

    The shape may form first and is cleaned then (Wang et al. 2023, released code).
    """
    return weight * (multiplier if step >= change * steps else 1.0)


def _at(grid: Float[Tensor, "1 c r r r"], points: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n c"]:
    """Values of a grid over [-1, 1]^3, indexed x y z, interpolated linearly."""
    places = points.flip(-1).reshape(1, -1, 1, 1, 3)  # grid_sample wants the last axis first
    sampled = F.grid_sample(grid, places, align_corners=False, padding_mode="border")
    return sampled[0, :, :, 0, 0].T.reshape(*points.shape[:-1], grid.shape[1])
