"""Where the particles' noise comes from.

Each particle's noise is unit normal; sources differ in how the particles' noises depend on each other. Noise is drawn
on the CPU, so that one seed gives one result whatever device the prior runs on.

Shared noise alone makes particles agree (particles that look alike then get scores that look alike), so it must be
told apart from what the kernel does.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class IndependentNoise:
    """Every particle draws its own noise, as the CSD authors' released code does."""

    def __call__(self, particles: Float[Tensor, "n c h w"], generator: torch.Generator) -> Float[Tensor, "n c h w"]:
        """Draw noise for the particles."""
        return torch.randn(particles.shape, generator=generator, dtype=particles.dtype).to(particles.device)


@dataclass(frozen=True)
class SharedNoise:
    """All particles get the same noise: CSD Eq. 3 has one eps outside the sum over particles."""

    def __call__(self, particles: Float[Tensor, "n c h w"], generator: torch.Generator) -> Float[Tensor, "n c h w"]:
        """Draw noise once and repeat it."""
        eps = torch.randn((1, *particles.shape[1:]), generator=generator, dtype=particles.dtype)
        return eps.to(particles.device).expand_as(particles)


@dataclass(frozen=True)
class CanvasNoise:
    """Particles are patches of one canvas; where patches overlap they see the same noise."""

    height: int
    """Canvas height in latent pixels."""
    width: int
    """Canvas width in latent pixels."""
    corners: Int[Tensor, "n 2"]
    """Top and left of each particle on the canvas; positions past an edge continue on the opposite one."""

    def __call__(self, particles: Float[Tensor, "n c h w"], generator: torch.Generator) -> Float[Tensor, "n c h w"]:
        """Draw noise for the canvas and cut the patches out of it."""
        n, channels, h, w = particles.shape
        if len(self.corners) != n:
            raise ValueError(f"{n} particles, but canvas corners for {len(self.corners)}")
        canvas = torch.randn((channels, self.height, self.width), generator=generator, dtype=particles.dtype)
        rows = (self.corners[:, 0, None] + torch.arange(h)) % self.height
        columns = (self.corners[:, 1, None] + torch.arange(w)) % self.width
        patches = canvas[:, rows[:, :, None], columns[:, None, :]]
        return patches.transpose(0, 1).to(particles.device)

    def __getitem__(self, rows: Int[Tensor, " m"]) -> "CanvasNoise":
        """The noise of a subset of the patches, on the same canvas."""
        return replace(self, corners=self.corners[rows.to(self.corners.device)])
