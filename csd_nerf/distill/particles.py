"""What is optimised: a set of particles `x_i = g_i(theta)` that gives particles and takes descent steps back.

Free latents (views, frames) are their own particles. The patches of a panorama share theta, the canvas; see
`csd_nerf.images.panorama`.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from csd_nerf.distill.distiller import check_finite
from csd_nerf.distill.kernels import at_least_float32
from csd_nerf.distill.types import Target


@runtime_checkable
class ParticleSet(Protocol):
    """Particles of one shape, by number."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, rows: Int[Tensor, " m"]) -> Float[Tensor, "m c h w"]:
        """Some of them as they are now, on the device where they are computed with; float32 at least."""
        ...

    def descend(self, rows: Int[Tensor, " m"], step: Float[Tensor, "m c h w"]) -> None:
        """Change theta so that the particles in `rows` move by `-step`, as far as they can move independently.

        Raises `NonFiniteError`, whose particle is an index into `rows`, and changes nothing, if one would leave the
        range of its numbers.
        """
        ...


@runtime_checkable
class Targets(Protocol):
    """What particles should become, by number. A `Target` is one; others make theirs when they are asked."""

    def __getitem__(self, rows: Int[Tensor, " m"]) -> Target:
        """The target of some of the particles, on the device of the prior."""
        ...


class FreeLatents:
    """Latents that are optimised themselves.

    They may lie elsewhere than where they are computed with: those of a long video in main memory or in a file.
    """

    def __init__(self, latents: Float[Tensor, "n c h w"], device: torch.device | None = None) -> None:
        """`latents` are changed in place; `device` is where particles are given out, by default where they lie."""
        self.latents = latents
        self.device = device or latents.device

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, rows: Int[Tensor, " m"]) -> Float[Tensor, "m c h w"]:
        """A copy of some of them."""
        return at_least_float32(self.latents[rows.to(self.latents.device)].to(self.device))

    def descend(self, rows: Int[Tensor, " m"], step: Float[Tensor, "m c h w"]) -> None:
        """Move them, in place. Raises `NonFiniteError`."""
        there = rows.to(self.latents.device)
        moved = self.latents[there] - step.to(self.latents)
        check_finite("the latent", moved, None)
        self.latents[there] = moved
