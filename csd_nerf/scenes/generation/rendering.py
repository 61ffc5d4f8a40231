"""Volume rendering of an object before its background, skipping empty space.

Along a ray with samples at t_i, densities sigma_i and intervals d:

    a_i = 1 - exp(-sigma_i d)     w_i = a_i prod_{j < i} (1 - a_j)     opacity = sum_i w_i
    colour = sum_i w_i c_i + (1 - opacity) background                  depth: where sum_{j <= i} w_j passes a half

Samples are evenly spaced where the ray is inside the cube from -1 to 1, jittered in training. Densities are looked up
in occupied cells only, colours and normals only where w_i can be seen.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from nerfstudio.utils.math import intersect_aabb
from torch import Tensor

from csd_nerf.scenes.generation.cameras import Rays
from csd_nerf.scenes.generation.fields import ObjectField
from csd_nerf.scenes.generation.occupancy import OccupancyGrid
from csd_nerf.scenes.generation.shading import Shading, shade

_VISIBLE = 1e-4
"""Weight below which neither colour nor normal of a sample is looked up."""
FAR = 10.0
"""Depth of rays that meet nothing."""
_CUBE = torch.tensor([-1.0, -1, -1, 1, 1, 1])


@dataclass(frozen=True)
class Rendered:
    """What rays see."""

    colour: Float[Tensor, "n c"]
    """Object before background."""
    foreground: Float[Tensor, "n c"]
    """Object alone, multiplied by its opacity."""
    opacity: Float[Tensor, " n"]
    """0..1."""
    depth: Float[Tensor, " n"]
    """Distance along the ray to the median of its weights; FAR where less than half is opaque."""
    normals: Float[Tensor, "n 3"] | None
    """Weighted mean of the unit normals; None unless asked for."""
    orientation: Float[Tensor, ""] | None
    """Mean over rays of `sum_i w_i max(0, n_i . d)^2`: visible surface that faces away; None without normals."""
    weights: Float[Tensor, "n s"]
    """w_i of all samples."""
    points: Float[Tensor, "m 3"]
    """Where densities were looked up."""
    density: Float[Tensor, " m"]
    """What was found there."""


@dataclass(frozen=True)
class _Samples:
    """Samples of all rays; those that do not count have weight 0."""

    points: Float[Tensor, "n s 3"]
    t: Float[Tensor, "n s"]
    interval: Float[Tensor, "n 1"]
    kept: Bool[Tensor, "n s"]


@dataclass(frozen=True)
class ObjectRenderer:
    """A field, its background, and where it is empty."""

    field: ObjectField
    background: Callable[[Tensor], Tensor]
    occupancy: OccupancyGrid
    samples: int
    """Samples of a ray."""

    def __call__(
        self,
        rays: Rays,
        *,
        shading: Shading | None = None,
        normals: bool = False,
        jitter: torch.Generator | None = None,
        behind_shift: Float[Tensor, "n c"] | None = None,
    ) -> Rendered:
        """Render rays; `jitter` moves each sample inside its interval, None leaves it in the middle.

        `behind_shift` is added to the background.
        """
        shading = shading or Shading()
        samples = self._sample(rays, jitter)
        points = samples.points[samples.kept]
        found, features = self.field(points)
        density = torch.zeros_like(samples.t).masked_scatter(samples.kept, found)
        weights, opacity = _weights(density * samples.interval)
        seen = (weights.detach() > _VISIBLE) & samples.kept
        visible = weights[seen]
        chosen = seen[samples.kept]
        ray = torch.nonzero(seen)[:, 0]
        colour = self.field.colour(features[chosen])
        average = orientation = None
        if normals or shading.lit:
            at = points[chosen]
            facing = self.field.normals(at)
            colour = shade(colour, facing, at, rays.origins[ray], shading) if shading.lit else colour
            average = _per_ray(visible[:, None] * facing, ray, len(rays.origins))
            away = (facing * rays.directions[ray]).sum(dim=1).clamp_min(0).square()
            orientation = (visible.detach() * away).sum() / len(rays.origins)
        foreground = _per_ray(visible[:, None] * colour, ray, len(rays.origins))
        behind = self.background(rays.directions)
        if behind_shift is not None:
            behind = behind + behind_shift
        return Rendered(
            colour=foreground + (1 - opacity)[:, None] * behind,
            foreground=foreground,
            opacity=opacity,
            depth=_median_depth(weights.detach(), samples.t),
            normals=average,
            orientation=orientation,
            weights=weights,
            points=points,
            density=found,
        )

    def _sample(self, rays: Rays, jitter: torch.Generator | None) -> _Samples:
        near, far = intersect_aabb(rays.origins, rays.directions, _CUBE.to(rays.origins))
        hit = (far > near) & (near < 1e9)
        near, far = torch.where(hit, near.clamp_min(0.01), 0.0), torch.where(hit, far, 0.0)
        shape = (len(near), self.samples)
        inside = torch.full((1, self.samples), 0.5) if jitter is None else torch.rand(shape, generator=jitter)
        steps = ((torch.arange(self.samples) + inside) / self.samples).to(near)
        t = near[:, None] + (far - near)[:, None] * steps
        points = rays.origins[:, None] + t[..., None] * rays.directions[:, None]
        kept = self.occupancy(points) & hit[:, None]
        return _Samples(points, t, ((far - near) / self.samples)[:, None], kept)


def _weights(optical: Float[Tensor, "n s"]) -> tuple[Float[Tensor, "n s"], Float[Tensor, " n"]]:
    """w_i and the opacity of rays with `optical` depths sigma_i d."""
    through = torch.exp(-torch.cumsum(optical, dim=1))
    before = torch.cat([torch.ones_like(through[:, :1]), through[:, :-1]], dim=1)
    return before - through, 1 - through[:, -1]


def _per_ray(values: Float[Tensor, "m c"], ray: Tensor, count: int) -> Float[Tensor, "n c"]:
    """Sums over the samples of each ray."""
    return values.new_zeros(count, values.shape[1]).index_add(0, ray, values)


def _median_depth(weights: Float[Tensor, "n s"], t: Float[Tensor, "n s"]) -> Float[Tensor, " n"]:
    passed = torch.cumsum(weights, dim=1) >= 0.5
    first = passed.float().argmax(dim=1, keepdim=True)
    return torch.where(passed.any(dim=1), t.gather(1, first)[:, 0], FAR)
