"""Kernels between particles, each with its own repulsion.

SVGD (CSD Eq. 8) moves particle i by `sum_j [k(x_j, x_i) grad log p(x_j) + grad_{x_j} k(x_j, x_i)]`. The second term is
the repulsion that a kernel returns here. It equals `-grad_{x_i} sum_j k(x_j, x_i)` for the RBF kernel only, because
that one depends on x_j - x_i; a kernel on features has to compute it for itself.

RBF kernel: `k(x, y) = exp(-|x - y|^2 / h)`, `grad_{x_j} k(x_j, x_i) = 2/h k (x_i - x_j)`, so that
`repulsion_i = 2/h (x_i sum_j k_ij - sum_j k_ij x_j)`: a Gram matrix product, no n x n x d tensor.
Bandwidth by the median heuristic, over noisy particles: `h = med^2 / log N`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class IndependentKernel:
    """`k = 1` for a particle with itself, else 0: particles do not talk. CSD without SVGD, and SDS."""

    def __call__(self, particles: Float[Tensor, "n ..."]) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n ..."]]:
        """Identity Gram matrix, no repulsion."""
        n = len(particles)
        return torch.eye(n, dtype=particles.dtype, device=particles.device), torch.zeros_like(particles)


def pairwise_squared_distances(flat: Float[Tensor, "n d"]) -> Float[Tensor, "n n"]:
    """|x_i - x_j|^2 by the Gram matrix of the centred particles, exactly 0 on the diagonal.

    Centring keeps the differences of large inner products accurate; latents of one scene share most of their norm.
    """
    centred = flat - flat.mean(dim=0)
    gram = centred @ centred.T
    squares = gram.diagonal()
    distances = (squares[:, None] + squares[None, :] - 2 * gram).clamp_min(0)
    return distances.masked_fill(torch.eye(len(flat), dtype=torch.bool, device=flat.device), 0)


def median_bandwidth(squared: Float[Tensor, "n n"]) -> Float[Tensor, ""]:
    """`h = med^2 / log N`, the median over pairs of different particles (CSD D.2; Liu & Wang 2016).

    One particle: infinite (nothing to compare with). Two: log 2, as the formula says.
    """
    n = len(squared)
    if n < 2:
        return squared.new_tensor(math.inf)
    above = squared[torch.triu_indices(n, n, offset=1, device=squared.device).unbind()]
    return torch.quantile(above, 0.5) / math.log(n)


def released_bandwidth(squared: Float[Tensor, "n n"]) -> Float[Tensor, ""]:
    """The CSD authors' code: lower median of the whole matrix, its zero diagonal included, over `log(N + 1)`.

    For one and two particles that median is a diagonal zero and their kernel 0/0; one particle is SDS here, and two
    raise `ValueError`.
    """
    n = len(squared)
    if n == 1:
        return squared.new_tensor(math.inf)
    if n == 2:
        raise ValueError(
            "preset 'released' has no kernel for 2 particles (its median is 0): use another preset or 3 views or more"
        )
    return torch.median(squared) / math.log(n + 1)


@dataclass(frozen=True)
class RBFKernel:
    """The paper's kernel. Particles that coincide (h = 0) count as equal: k = 1 and no repulsion."""

    bandwidth: Callable[[Tensor], Tensor] = median_bandwidth
    """From squared distances (n n) to h."""

    def __call__(self, particles: Float[Tensor, "n ..."]) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n ..."]]:
        """Gram matrix and repulsion in closed form. Computed in float32 at least."""
        flat = particles.reshape(len(particles), -1)
        if flat.dtype in (torch.float16, torch.bfloat16):
            flat = flat.float()  # |x - y|^2 overflows in half precision
        squared = pairwise_squared_distances(flat)
        h = self.bandwidth(squared)
        if not torch.isfinite(h) or h <= 0:
            gram = (squared == 0).to(flat) if h <= 0 else torch.ones_like(squared)
            return gram, torch.zeros_like(particles)
        gram = torch.exp(-squared / h)
        centred = flat - flat.mean(dim=0)
        repulsion = (2 / h) * (gram.sum(dim=0)[:, None] * centred - gram.T @ centred)
        return gram, repulsion.reshape(particles.shape).to(particles.dtype)


@dataclass(frozen=True)
class FeatureKernel:
    """`k = exp(-d(x, y)^2 / h)` for any differentiable distance d, such as LPIPS (CSD D.2).

    d is symmetric in its arguments, but `k` depends on more than x - y: the repulsion differentiates each `k(x_j, x_i)`
    with respect to x_j, and sums these over j at fixed i.
    """

    distance: Callable[[Tensor, Tensor], Tensor]
    """From two batches (m ...) and (m ...) to m distances."""
    bandwidth: Callable[[Tensor], Tensor] = median_bandwidth

    def __call__(self, particles: Float[Tensor, "n ..."]) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n ..."]]:
        """Gram matrix and repulsion, by one differentiation per particle."""
        n = len(particles)
        with torch.no_grad():
            i, j = torch.triu_indices(n, n, offset=1, device=particles.device)
            squared = particles.new_zeros(n, n)
            if n > 1:
                squared[i, j] = squared[j, i] = self.distance(particles[i], particles[j]).square().to(squared)
            h = self.bandwidth(squared)
        if not torch.isfinite(h) or h <= 0:
            gram = (squared == 0).to(particles) if h <= 0 else torch.ones_like(squared)
            return gram, torch.zeros_like(particles)
        repulsion = torch.zeros_like(particles)
        for index in range(n):
            others = [k for k in range(n) if k != index]
            with torch.enable_grad():
                x_j = particles[others].detach().requires_grad_(True)
                x_i = particles[index].detach().expand_as(x_j)
                similarity = torch.exp(-self.distance(x_j, x_i).square() / h)
                (gradient,) = torch.autograd.grad(similarity.sum(), x_j)
            repulsion[index] = gradient.sum(dim=0)
        return torch.exp(-squared / h), repulsion
