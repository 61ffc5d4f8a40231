"""Kernels between particles, each with its own repulsion.

SVGD (CSD Eq. 8) moves particle i by `sum_j [k(x_j, x_i) grad log p(x_j) + grad_{x_j} k(x_j, x_i)]`. The second term is
the repulsion that a kernel returns here. It equals `-grad_{x_i} sum_j k(x_j, x_i)` for the RBF kernel only, because
that one depends on x_j - x_i; a kernel on features has to compute it for itself.

RBF kernel: `k(x, y) = exp(-|x - y|^2 / h)`, `grad_{x_j} k(x_j, x_i) = 2/h k (x_i - x_j)`, so that
`repulsion_i = 2/h (x_i sum_j k_ij - sum_j k_ij x_j)`: a Gram matrix product, no n x n x d tensor. The RBF kernel never
holds more than 4 n d numbers besides the particles.
Bandwidth by the median heuristic, over noisy particles: `h = med^2 / log N`, med the median *distance*.

Kernels compute in float32 at least, and so is what they return: |x - y|^2 of latents overflows in half precision.
Distances that are not finite make the Gram matrix NaN: the distiller reports that, nothing here hides it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor


def at_least_float32(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Half precision as float32; float32 and float64 as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


@dataclass(frozen=True)
class IndependentKernel:
    """`k = 1` for a particle with itself, else 0: particles do not talk. CSD without SVGD, and SDS."""

    def __call__(self, particles: Float[Tensor, "n ..."]) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n ..."]]:
        """Identity Gram matrix, no repulsion."""
        particles = at_least_float32(particles)
        n = len(particles)
        return torch.eye(n, dtype=particles.dtype, device=particles.device), torch.zeros_like(particles)


def pairwise_squared_distances(flat: Float[Tensor, "n d"]) -> Float[Tensor, "n n"]:
    """|x_i - x_j|^2 by the Gram matrix of the centred particles, exactly 0 for equal ones.

    Centring keeps the differences of large inner products accurate; latents of one scene share most of their norm.
    Close pairs are computed once more from their difference, where the product leaves little but rounding. Particles
    that differ by no more than what a network's rounding makes of one picture (64 eps of their norm) count as equal.
    """
    centred = flat - flat.mean(dim=0)
    gram = centred @ centred.T
    squares = gram.diagonal()
    scale = squares[:, None] + squares[None, :]
    distances = (scale - 2 * gram).clamp_min(0)
    distances.fill_diagonal_(0)
    norms = flat.square().sum(dim=1)
    equal = (64 * torch.finfo(flat.dtype).eps) ** 2 * (norms[:, None] + norms[None, :])
    i, j = torch.nonzero(torch.triu(distances <= 1e-3 * scale + 2 * equal, diagonal=1), as_tuple=True)
    # So few pairs at a time that with `centred` no more than 4 n d numbers are held, however many pairs are close.
    pairs = max(1, len(flat) // 2)
    for a, b in zip(i.split(pairs), j.split(pairs), strict=True):
        exact = (flat[a] - flat[b]).square().sum(dim=1)
        distances[a, b] = distances[b, a] = torch.where(exact <= equal[a, b], 0, exact)
    return distances


def median_bandwidth(squared: Float[Tensor, "n n"]) -> Float[Tensor, ""]:
    """`h = med^2 / log N`, med the median of the distances over all pairs i < j (CSD D.2; Liu & Wang 2016).

    With an even number of pairs the median is the mean of the middle two distances, and its square is not the mean of
    their squares. One particle: infinite (nothing to compare with). Where most particles coincide the median is 0, and
    those that do not would no longer be heard: then it is taken over the pairs that differ, and is 0 only if none do.
    """
    n = len(squared)
    if n < 2:
        return squared.new_tensor(math.inf)
    above = squared[torch.triu_indices(n, n, offset=1, device=squared.device).unbind()]
    distances = above.sqrt()
    median = torch.quantile(distances, 0.5)
    if median == 0 and distances.any():
        median = torch.quantile(distances[distances > 0], 0.5)
    return median.square() / math.log(n)


def released_bandwidth(squared: Float[Tensor, "n n"]) -> Float[Tensor, ""]:
    """The CSD authors' code: lower median of the whole matrix, its zero diagonal included, over `log(N + 1)`.

    For one and two particles that median is a diagonal zero and their kernel 0/0; one particle is SDS here, and two
    raise `ValueError`. Where many particles coincide it is 0 as well.
    """
    n = len(squared)
    if n == 1:
        return squared.new_tensor(math.inf)
    if n == 2:
        raise ValueError(
            "the released code has no kernel for 2 particles (its median is 0): take one particle, or 3 or more, or "
            "the bandwidth 'median'"
        )
    return torch.median(squared) / math.log(n + 1)


@dataclass(frozen=True)
class RBFKernel:
    """The paper's kernel. With h = 0 it is its own limit: k = 1 between equal particles, else 0, and no repulsion."""

    bandwidth: Callable[[Tensor], Tensor] = median_bandwidth
    """From squared distances (n n) to h."""

    def __call__(self, particles: Float[Tensor, "n ..."]) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n ..."]]:
        """Gram matrix and repulsion in closed form, float32 at least."""
        return rbf(particles, self.bandwidth)


def rbf(
    particles: Float[Tensor, "n ..."],
    bandwidth: Callable[[Tensor], Tensor],
    share: Float[Tensor, "n n"] | None = None,
) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n ..."]]:
    """Gram matrix and repulsion of `k(x_j, x_i) share_ji`, with the RBF kernel k.

    `share` is symmetric and does not depend on the particles; None is 1.
    """
    particles = at_least_float32(particles)
    flat = particles.reshape(len(particles), -1)
    squared = pairwise_squared_distances(flat)
    h = bandwidth(squared)
    gram = (squared == 0).to(flat) if h == 0 else torch.exp(-squared / h)
    if share is not None:
        gram = gram * share.to(gram)
    if h == 0:
        return gram, torch.zeros_like(particles)
    centred = flat - flat.mean(dim=0)
    pulled = gram.T @ centred
    repulsion = centred.mul_(gram.sum(dim=0)[:, None]).sub_(pulled).mul_(2 / h)
    return gram, repulsion.reshape(particles.shape)


@dataclass(frozen=True)
class TemporalKernel:
    """The RBF kernel of video frames, weighed by their distance in time.

    `k(x_j, x_i) exp(-(tau_j - tau_i)^2 / (2 s^2))`: a product of kernels, and so a kernel. Frames far apart listen less
    to each other than those that show nearly the same; s = inf is the paper's kernel.
    """

    times: Float[Tensor, " n"]
    """tau of each particle, in any unit."""
    scale: float
    """s, in the same unit, above 0."""
    bandwidth: Callable[[Tensor], Tensor] = median_bandwidth
    """Of the RBF kernel, from squared distances (n n) to h."""

    def __post_init__(self) -> None:
        """Refuse scales that are no time."""
        if not self.scale > 0:
            raise ValueError(f"temporal kernel of scale {self.scale}: give a time above 0")

    def __call__(self, particles: Float[Tensor, "n ..."]) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n ..."]]:
        """Gram matrix and repulsion in closed form, float32 at least."""
        if len(self.times) != len(particles):
            raise ValueError(f"{len(particles)} particles, but times of {len(self.times)}")
        apart = (self.times[:, None] - self.times[None, :]) / self.scale
        return rbf(particles, self.bandwidth, torch.exp(-apart.square() / 2))

    def __getitem__(self, rows: Int[Tensor, " m"]) -> "TemporalKernel":
        """The kernel of a subset of the frames."""
        return replace(self, times=self.times[rows.to(self.times.device)])


@dataclass(frozen=True)
class FeatureKernel:
    """`k(x, y) = exp(-d(x, y)^2 / h)` for any differentiable distance d, such as LPIPS (CSD D.2).

    d is symmetric in its arguments, but `k` depends on more than x - y: the repulsion differentiates each `k(x_j, x_i)`
    with respect to x_j, and sums these over j at fixed i.

    d enters squared, as CSD D.2 writes it, although LPIPS is itself a mean of squared differences. d sees what the
    distiller compares, the *noisy* particles at full size in float32: what its network needs instead (three channels,
    a smaller size, another range or precision) is for `distance` to do. It is called with n (n - 1) / 2 pairs at once
    without gradients, then n times with n - 1 pairs and their backward pass, which is where time and memory go.
    """

    distance: Callable[[Tensor, Tensor], Tensor]
    """From two batches (m ...) and (m ...) to m distances, at least 0; row by row, and 0 between equal particles."""
    bandwidth: Callable[[Tensor], Tensor] = median_bandwidth
    """From squared distances (n n) to h."""

    def __call__(self, particles: Float[Tensor, "n ..."]) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n ..."]]:
        """Gram matrix and repulsion, float32 at least, by one differentiation per particle."""
        particles = at_least_float32(particles)
        squared = self._squared_distances(particles)
        h = self.bandwidth(squared)
        repulsion = torch.zeros_like(particles)
        if h == 0:
            return (squared == 0).to(particles), repulsion
        for index, row in enumerate(squared):
            # Between equal particles k is at its maximum; the chain rule through a square root would say 0/0 there.
            others = torch.nonzero(row != 0)[:, 0]
            if len(others) == 0:
                continue
            with torch.enable_grad():
                x_j = particles[others].detach().requires_grad_(True)
                x_i = particles[index].detach().expand_as(x_j)
                similarity = torch.exp(-self.distance(x_j, x_i).square() / h)
                (gradient,) = torch.autograd.grad(similarity.sum(), x_j)
            repulsion[index] = gradient.sum(dim=0)
        return torch.exp(-squared / h), repulsion

    @torch.no_grad()
    def _squared_distances(self, particles: Float[Tensor, "n ..."]) -> Float[Tensor, "n n"]:
        n = len(particles)
        i, j = torch.triu_indices(n, n, offset=1, device=particles.device)
        squared = particles.new_zeros(n, n)
        if n > 1:
            squared[i, j] = squared[j, i] = self.distance(particles[i], particles[j]).to(squared).square()
        return squared


@dataclass(frozen=True)
class EmbeddingKernel:
    """The `FeatureKernel` of a distance that is a squared Euclidean one of features, as LPIPS is.

        d(x, y) = |phi(x) - phi(y)|^2     k(x, y) = exp(-d(x, y)^2 / h)
        repulsion_i = sum_j J_j^T dk_ji / dphi_j,    dk_ji / dphi_j = -4 d_ji k_ji / h (phi_j - phi_i)

    with J_j the derivatives of phi at x_j. The numbers are those of `FeatureKernel`, but the network sees each particle
    once instead of once for each of its pairs; backwards it is n times n rows, since each i has derivatives of its own.
    """

    embed: Callable[[Tensor], Tensor]
    """phi: from particles (n ...) to features (n d), differentiable, row by row."""
    bandwidth: Callable[[Tensor], Tensor] = median_bandwidth
    """From squared distances (n n) to h."""

    def __call__(self, particles: Float[Tensor, "n ..."]) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n ..."]]:
        """Gram matrix and repulsion, float32 at least."""
        particles = at_least_float32(particles)
        with torch.enable_grad():
            x = particles.detach().requires_grad_(True)
            attached = self.embed(x)
        features = attached.detach().to(particles)
        distances = pairwise_squared_distances(features)
        squared = distances.square()
        h, repulsion = self.bandwidth(squared), torch.zeros_like(particles)
        if h == 0:
            return (squared == 0).to(particles), repulsion
        gram = torch.exp(-squared / h)
        pull = -4 / h * distances * gram
        for i in range(len(particles)):
            if pull[:, i].any():
                into = (pull[:, i, None] * (features - features[i])).to(attached)
                (gradient,) = torch.autograd.grad(attached, x, into, retain_graph=True)
                repulsion[i] = gradient.sum(dim=0)
        return gram, repulsion
