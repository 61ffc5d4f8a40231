"""Distillation into views of one thing: the gradient on rendered pictures, for encoders and kernels between views.

A prior sees views `x_i = g(theta, camera_i)` as particles `z_i = E(x_i)`, for latent diffusion through its encoder. CSD
on theta (CSD Eq. 3, D.2) then is, with J the derivatives of what is rendered,

    dL/dtheta = 1/N sum_i [ (dz_i/dtheta)^T g_i  -  (dx_i/dtheta)^T w(t) r(t) / z_i  sum_j grad_{x_j} k(x_j, x_i) ]

where g_i is the mixed score of `Distiller`. With LPIPS as the kernel's distance, k compares the *rendered views* at
64 x 64 pixels, not the noisy particles, which for latents are no pictures: its repulsion is a gradient on pictures. The
kernel of a `Distiller` on particles (RBF, independent) is used as it is.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from csd_nerf.distill.distiller import Distiller, check_finite
from csd_nerf.distill.types import Distillation, Kernel, Target

KERNEL_SIZE = 64
"""Pixels along a side at which LPIPS compares views (CSD D.2)."""


@dataclass(frozen=True)
class GivenKernel:
    """A Gram matrix that is known already; it repels nothing."""

    gram: Float[Tensor, "n n"]

    def __call__(self, particles: Float[Tensor, "n ..."]) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n ..."]]:
        """The matrix and zeros."""
        return self.gram.to(particles), torch.zeros_like(particles)


@dataclass(frozen=True)
class ViewGradient:
    """Where views should go, for one draw of timestep and noise."""

    on_particles: Float[Tensor, "n c h w"]
    """Descent direction on the particles."""
    on_pictures: Float[Tensor, "n 3 H W"] | None
    """Descent direction on the pictures beside that: the repulsion of a kernel between pictures."""
    distillation: Distillation


@dataclass(frozen=True)
class ViewDistiller:
    """A distiller whose kernel may compare the pictures instead of the particles."""

    distiller: Distiller
    between_pictures: Kernel | None = None
    """Takes the place of the distiller's kernel; sees pictures in [0, 1] at `KERNEL_SIZE` pixels."""

    def __call__(
        self,
        pictures: Float[Tensor, "n 3 H W"],
        particles: Float[Tensor, "n c h w"],
        target: Target,
        generator: torch.Generator,
    ) -> ViewGradient:
        """Gradients on detached pictures and particles. Raises `NonFiniteError`."""
        pictures, particles = pictures.detach(), particles.detach()
        if self.between_pictures is None:
            distillation = self.distiller(particles, target, generator)
            return ViewGradient(distillation.gradient, None, distillation)
        gram, repulsion = self._compare(pictures)
        check_finite("the kernel between views", repulsion, None)
        chosen = replace(self.distiller, kernel=GivenKernel(gram))
        distillation = chosen(particles, target, generator)
        schedule, t = chosen.prior.schedule, torch.tensor(distillation.t)
        push = schedule.weight(t).to(pictures) * repulsion
        if chosen.repulsion == "sigma":
            push = schedule.sigma(t).to(pictures) * push
        share = gram.sum(dim=0) if chosen.mixing == "row" else gram.new_full((len(gram),), len(gram))
        return ViewGradient(distillation.gradient, -push / share[:, None, None, None].to(push), distillation)

    def _compare(self, pictures: Float[Tensor, "n 3 H W"]) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n 3 H W"]]:
        """Gram matrix and repulsion on the pictures, through their change of size."""
        assert self.between_pictures is not None
        with torch.enable_grad():
            full = pictures.requires_grad_(True)
            small = full
            if full.shape[-2:] != (KERNEL_SIZE, KERNEL_SIZE):
                size = (KERNEL_SIZE, KERNEL_SIZE)
                small = F.interpolate(full, size, mode="bilinear", align_corners=False, antialias=True)
            gram, repulsion = self.between_pictures(small.detach())
            (at_full,) = torch.autograd.grad(small, full, repulsion) if small is not full else (repulsion,)
        return gram.detach(), at_full.detach()


def surrogate(
    gradient: ViewGradient, pictures: Float[Tensor, "n 3 H W"], particles: Float[Tensor, "n c h w"]
) -> Float[Tensor, ""]:
    """`1/N sum_i <g_i, z_i> + <p_i, x_i>`: its derivative by theta is the one above, its value says nothing."""
    total = (gradient.on_particles * particles).sum()
    if gradient.on_pictures is not None:
        total = total + (gradient.on_pictures * pictures).sum()
    return total / len(pictures)
