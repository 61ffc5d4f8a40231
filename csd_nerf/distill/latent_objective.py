"""LDP Eq. 4: latent score distillation, feature matching and the KL regulariser, as one gradient into the latents.

    lambda_1 L_FM + lambda_2 L_KL + lambda_3 L_LSD,   dL_LSD/dv = w(t) (eps_hat - eps)

LSD is SDS on latents (LDP Section 3.1); for the other two see `latent_losses`.

**Reductions.** L_FM and L_KL are means, over features and over latent elements, and the SDS gradient is that of a sum
over latent elements: added as they are, the first two would be weaker by the number of elements (10^4 for Stable
Diffusion). Their gradients are therefore multiplied by that number. All three are then the same mean, up to one factor
that leaves LSD the SDS gradient, and none depends on how many particles there are. The paper does not state its
reductions and took its lambdas from three code bases: read `LossRecord.ratio` before trusting them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from csd_nerf.distill.baselines import InjectedNoise
from csd_nerf.distill.distiller import Distiller, check_finite
from csd_nerf.distill.guidance import TextGuidance
from csd_nerf.distill.kernels import IndependentKernel, at_least_float32
from csd_nerf.distill.latent_losses import Distance, FeatureDecoder, LossGradient, feature_matching, kl_regulariser
from csd_nerf.distill.noise import IndependentNoise
from csd_nerf.distill.schedule import UniformTimesteps
from csd_nerf.distill.types import Distillation, ScorePrior, Target


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """The lambdas of LDP Eq. 4. A loss of weight 0 is not computed."""

    feature_matching: float
    """lambda_1."""
    kl: float
    """lambda_2."""
    lsd: float = 1.0
    """lambda_3."""

    def __post_init__(self) -> None:
        """Refuse negative weights and those that are no numbers."""
        for name, value in vars(self).items():
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name}={value}: give a finite weight, 0 or more")


LDP_WEIGHTS: dict[str, LossWeights] = {
    "jacobian-nerf": LossWeights(feature_matching=1e-1, kl=1e-1),
    "latent-nerf": LossWeights(feature_matching=1e-2, kl=1e-1),
    "stylegan": LossWeights(feature_matching=3.0, kl=0.5e-1),
    "layers": LossWeights(feature_matching=1e-5, kl=1e-7, lsd=1e-6),
    "synthesis": LossWeights(feature_matching=3.0, kl=1e-1),
}
"""LDP Sections 5.1 (the first two), 5.2, 5.3 and 5.4."""


@dataclass(frozen=True)
class LossPart:
    """What one loss did in a step."""

    value: float
    """The loss itself, without its lambda; of LSD, which has none, w(t) mean d^2."""
    gradient_norm: float
    """Euclidean norm of its share of the total gradient, over all particles; with its lambda."""


_PART = ("value", "gradient_norm")


@dataclass(frozen=True)
class LossRecord:
    """What each loss did in a step; None for those that are switched off."""

    feature_matching: LossPart | None = None
    kl: LossPart | None = None
    lsd: LossPart | None = None

    @property
    def ratio(self) -> float | None:
        """|grad FM| / |grad LSD|: what dominates. None if one is switched off or LSD's gradient is zero."""
        if self.feature_matching is None or self.lsd is None or self.lsd.gradient_norm == 0:
            return None
        return self.feature_matching.gradient_norm / self.lsd.gradient_norm


def mean_losses(records: Sequence[LossRecord]) -> LossRecord:
    """Mean of what each loss did over several steps with the same losses. Raises `ValueError` for no step."""
    if not records:
        raise ValueError("there is no step to average over")
    means: dict[str, LossPart | None] = {}
    for name in ("feature_matching", "kl", "lsd"):
        parts = [part for record in records if (part := getattr(record, name)) is not None]
        value, norm = (sum(getattr(part, of) for part in parts) / max(1, len(parts)) for of in _PART)
        means[name] = LossPart(value, norm) if parts else None
    return LossRecord(**means)


@dataclass(frozen=True)
class LatentStep:
    """One step of `LatentLosses`."""

    gradient: Float[Tensor, "n c h w"]
    """Descent direction: `v <- v - lr * gradient`, or to be propagated into theta."""
    losses: LossRecord
    t: int | None
    """Timestep of this step; None if no loss asked the network."""
    network_samples: int
    """Network samples that the step cost, over all particles."""


@dataclass(frozen=True)
class LatentLosses:
    """LDP Eq. 4: the total gradient into the latents, for one draw of timestep and noise."""

    distiller: Distiller
    """Gives the residual, see `latent_score_distiller`: its gradient over w(t), so that other kernels mix FM's, too."""
    weights: LossWeights
    decoder: FeatureDecoder | None = None
    """Needed for feature matching only."""
    distance: Distance = "l1"
    rows_per_call: int | None = None
    """Particles per call of the decoder, to bound memory."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for feature matching without a decoder."""
        if self.weights.feature_matching and self.decoder is None:
            raise ValueError("feature matching needs a decoder: give one, or set its weight to 0")

    @torch.no_grad()
    def __call__(self, latents: Float[Tensor, "n c h w"], target: Target, generator: torch.Generator) -> LatentStep:
        """Total gradient, float32 at least. Raises `NonFiniteError` that names the loss at fault."""
        latents = at_least_float32(latents.detach())
        total, weights, record = torch.zeros_like(latents), self.weights, LossRecord()
        distillation = None
        if weights.lsd or weights.feature_matching:
            distillation = self.distiller(latents, target, generator)
            record = self._distil(total, latents, distillation)
        if weights.kl:
            loss = _per_element(kl_regulariser(latents))
            record = replace(record, kl=_add(total, loss, weights.kl, "the KL gradient", None))
        return LatentStep(
            gradient=total,
            losses=record,
            t=None if distillation is None else distillation.t,
            network_samples=0 if distillation is None else distillation.network_samples,
        )

    def for_rows(self, rows: Int[Tensor, " m"]) -> "LatentLosses":
        """The losses of a subset of the particles."""
        return replace(self, distiller=self.distiller.for_rows(rows))

    def _distil(self, total: Tensor, latents: Tensor, distillation: Distillation) -> LossRecord:
        """Add to the total what is derived from the residual: LSD and feature matching."""
        schedule, t, gradient = self.distiller.prior.schedule, torch.tensor(distillation.t), distillation.gradient
        weight, lsd, matching = schedule.weight(t).to(latents), None, None
        if self.weights.lsd:
            loss = LossGradient(gradient.square().mean() / weight, gradient)
            lsd = _add(total, loss, self.weights.lsd, "the gradient", distillation.t)
        if self.weights.feature_matching:
            assert self.decoder is not None
            loss = feature_matching(
                self.decoder,
                latents,
                gradient / weight,
                schedule.alpha(t).to(latents),
                distance=self.distance,
                rows_per_call=self.rows_per_call,
            )
            what = "the feature-matching gradient"
            matching = _add(total, _per_element(loss), self.weights.feature_matching, what, distillation.t)
        return LossRecord(feature_matching=matching, lsd=lsd)


def _per_element(loss: LossGradient) -> LossGradient:
    """The gradient of a mean, as strong as that of the sum over latent elements that SDS is."""
    return replace(loss, gradient=loss.gradient.numel() * loss.gradient)


def _add(total: Tensor, loss: LossGradient, weight: float, what: str, t: int | None) -> LossPart:
    """Add a loss to the total, in place. Raises `NonFiniteError`."""
    check_finite(what, loss.gradient, t)
    total += weight * loss.gradient
    return LossPart(float(loss.value), weight * float(loss.gradient.norm()))


def latent_score_distiller(
    prior: ScorePrior, *, guidance_scale: float = 7.5, timesteps: UniformTimesteps | None = None
) -> Distiller:
    """LSD: SDS on latents, w(t) (eps_hat - eps). Text guidance, every particle alone and with its own noise.

    `timesteps` is t ~ U(0.2, 0.98) by default, SDS's range (CSD C); LDP states neither it nor its guidance scale.
    """
    return Distiller(
        prior,
        TextGuidance(guidance_scale),
        IndependentKernel(),
        InjectedNoise(),
        noise=IndependentNoise(),
        timesteps=timesteps or UniformTimesteps(0.2, 0.98),
    )
