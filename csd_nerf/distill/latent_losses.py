"""The losses of "Text-driven Visual Synthesis with Latent Diffusion Prior" (LDP) on latents v = g(theta).

With the distiller's residual `d = eps_hat - eps` at the timestep t that it drew, and `v' = v + d`:

    feature matching   L_FM = sum_l mean |G_l(v) - G_l(v')|                                   (LDP Section 3.2)
                       dL_FM/dv := (1 + alpha_t) dL_FM/dv' + dL_FM/dv                         (LDP Eq. 2)
    KL regulariser     L_KL = (mu^2 + s^2 - log s^2 - 1) / 2 = KL(N(mu, s^2) || N(0, 1))      (LDP Eq. 3)

G_l is level l of the frozen decoder. On the right of Eq. 2 the derivatives are partial: each holds the other argument
of the distance fixed. `latent_objective` adds latent score distillation and puts the three together.

**alpha_t** is `sqrt(abar_t)`, the signal scale of `z_t = alpha_t v + sigma_t eps`. The paper calls it a constant "of
DDPM", where that letter means `1 - beta_t`; but in Eq. 1 it is what the chain rule through z_t gives, dz_t/dv. Eq. 2
then sets the network's Jacobian d eps_hat / d z_t to the identity: "ignoring" the term would leave no alpha_t.

**Why not plain autograd.** For a linear decoder dL/dv = -dL/dv', so that autograd with d detached gives zero, and with
v' detached gives dL/dv, which *ascends*: it moves v along +d. Eq. 2 leaves alpha_t dL/dv', a step along -d as in SDS.

The paper's Eq. 3 prints `+ 1`; with it the minimum, at mean 0 and variance 1, would be 1 instead of 0. Its mu and s^2
are of "the latent code v", that of one picture. One mean and variance for all particles would let a dull picture pay
for a garish one: of eight pictures at once it took an eighth of the over-saturation that it takes of each alone.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.distill.kernels import at_least_float32

Distance = Literal["l1", "l2"]


@runtime_checkable
class FeatureDecoder(Protocol):
    """A frozen decoder, differentiable with respect to its latents."""

    def __call__(self, latents: Float[Tensor, "n c h w"]) -> list[Float[Tensor, "n ..."]]:
        """Features of each row at the levels that were chosen, float32 at least; what lies deeper is not computed."""
        ...


@dataclass(frozen=True)
class LossGradient:
    """A loss and its gradient into the latents."""

    value: Float[Tensor, ""]
    gradient: Float[Tensor, "n c h w"]


def feature_matching(
    decoder: FeatureDecoder,
    latents: Float[Tensor, "n c h w"],
    residual: Float[Tensor, "n c h w"],
    alpha: Float[Tensor, ""],
    *,
    distance: Distance = "l1",
    rows_per_call: int | None = None,
) -> LossGradient:
    """L_FM and the gradient of LDP Eq. 2, differentiated from both sides: `(1 + alpha) dL/dv' + dL/dv`.

    Args:
        decoder: Called with v and v' of the same particles in one batch.
        latents: v.
        residual: `d = eps_hat - eps`; `v' = v + d`.
        alpha: `sqrt(abar_t)` at the timestep of the residual.
        distance: Absolute ('l1', the paper's) or squared ('l2') difference; the mean over particles and features of a
            level, summed over levels.
        rows_per_call: Particles per call of the decoder (it sees twice as many rows), to bound memory; None for all.

    Raises `ValueError` for a decoder that gives no features or does not let gradients through.
    """
    if rows_per_call is not None and rows_per_call < 1:
        raise ValueError(f"rows_per_call={rows_per_call}: give at least 1, or None for all particles in one call")
    latents, residual = at_least_float32(latents.detach()), residual.detach()
    size, value, gradients = rows_per_call or max(1, len(latents)), latents.new_zeros(()), []
    for v, d in zip(latents.split(size), residual.to(latents).split(size), strict=True):
        loss, by_v, by_updated = _partial_gradients(decoder, v, v + d, distance)
        share = len(v) / len(latents)
        value = value + share * loss
        gradients.append(share * ((1 + alpha.to(v)) * by_updated + by_v))
    return LossGradient(value, torch.cat(gradients))


def _partial_gradients(
    decoder: FeatureDecoder, v: Tensor, updated: Tensor, distance: Distance
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, dL/dv with v' fixed, and dL/dv' with v fixed: one backward pass for both."""
    with torch.enable_grad():
        pair = torch.cat([v, updated]).requires_grad_()
        levels = decoder(pair)
        if not levels or not all(level.requires_grad for level in levels):
            raise ValueError("the decoder's features are empty or do not depend on its latents through autograd")
        loss = torch.stack([_mean_distance(level, distance) for level in levels]).sum()
        # A mean over millions of features has gradients that a half-precision decoder would round to zero.
        scale = min(level.numel() for level in levels)
        (gradient,) = torch.autograd.grad(loss * scale, pair)
    by_v, by_updated = (gradient / scale).chunk(2)
    return loss.detach(), by_v, by_updated


def _mean_distance(level: Tensor, distance: Distance) -> Tensor:
    """Between the features of v, in the first half of the rows, and those of v'."""
    before, after = level.chunk(2)
    difference = before - after
    return difference.abs().mean() if distance == "l1" else difference.square().mean()


def kl_regulariser(latents: Float[Tensor, "n c h w"]) -> LossGradient:
    """KL(N(mu, s^2) || N(0, 1)) for the scalar mean mu and variance s^2 of each latent code (LDP Eq. 3 with `- 1`).

    The mean over the codes, and its gradient `(mu + (v - mu) (1 - 1 / s^2)) / numel`. Raises `ValueError` where all
    elements of a code are equal, since the divergence is infinite there and has no direction.
    """
    v = at_least_float32(latents.detach())
    rows = v.flatten(1)
    variance, mean = torch.var_mean(rows, dim=1, correction=0)
    if (variance.sqrt() <= 4 * torch.finfo(v.dtype).eps * mean.abs()).any():
        raise ValueError("the KL regulariser needs latents that are not all equal: start from noise or from a picture")
    value = ((mean.square() + variance - variance.log() - 1) / 2).mean()
    mean, variance = mean[:, None], variance[:, None]
    return LossGradient(value, ((mean + (rows - mean) * (1 - 1 / variance)) / v.numel()).view_as(v))
