"""Shading of an object whose light moves while it grows, so that shapes cannot be painted on (DreamFusion 3.1).

    albedo        rho
    lambertian    rho * (l_a + (1 - l_a) max(0, n . l))
    textureless   the same with rho = 1

rho is the albedo of a point, n its normal, l the direction to a point light near the camera, l_a the ambient share.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

ShadingMode = Literal["albedo", "lambertian", "textureless"]


@dataclass(frozen=True)
class Shading:
    """How one step's views are lit."""

    mode: ShadingMode = "albedo"
    light: Float[Tensor, "3"] | None = None
    """Position of the light relative to the camera, in scene units; None for albedo."""
    ambient: float = 1.0
    """l_a, share of the light that comes from everywhere."""

    @property
    def lit(self) -> bool:
        """Whether normals are needed."""
        return self.mode != "albedo"


@dataclass(frozen=True)
class ShadingPolicy:
    """How often which shading is drawn, after a first share of the training with plain albedo."""

    albedo_share: float = 0.1
    """Share of the training in which only the albedo is shown (DreamFusion's first 1,000 steps of 10,000)."""
    lit_probability: float = 0.75
    """How often a step is lit at all after that."""
    textureless_probability: float = 0.2
    """How often a lit step shows the shape alone."""
    least_ambient: float = 0.1
    """l_a is uniform between this and 1."""

    def __post_init__(self) -> None:
        """Raise `ValueError`, which names the field, for what is no share."""
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name}={value}: give a share from 0 to 1")

    def draw(self, progress: float, generator: torch.Generator) -> Shading:
        """The shading of a step, after a share `progress` of the training."""
        lit, bare, ambient = torch.rand(3, generator=generator).tolist()
        light = torch.randn(3, generator=generator)
        if progress < self.albedo_share or lit >= self.lit_probability:
            return Shading()
        mode: ShadingMode = "textureless" if bare < self.textureless_probability else "lambertian"
        return Shading(mode, light, self.least_ambient + (1 - self.least_ambient) * ambient)


def shade(
    albedo: Float[Tensor, "n 3"],
    normals: Float[Tensor, "n 3"],
    positions: Float[Tensor, "n 3"],
    cameras: Float[Tensor, "n 3"],
    shading: Shading,
) -> Float[Tensor, "n 3"]:
    """Colours of points with unit normals, seen from `cameras`."""
    if not shading.lit:
        return albedo
    assert shading.light is not None
    towards = F.normalize(cameras + shading.light.to(positions) - positions, dim=1)
    facing = (normals * towards).sum(dim=1, keepdim=True).clamp_min(0)
    level = shading.ambient + (1 - shading.ambient) * facing
    return level.expand_as(albedo) if shading.mode == "textureless" else albedo * level
