"""Priors whose score is known in closed form: what tests and benchmarks measure the method against.

For a sample x ~ sum_k w_k N(mu_k, s_k^2 I) the noisy sample is x_t ~ sum_k w_k N(alpha mu_k, v_k I) with
v_k = alpha^2 s_k^2 + sigma^2, and the ideal noise estimate -sigma grad log p_t is

    eps_hat(x_t) = sigma sum_k r_k(x_t) (x_t - alpha mu_k) / v_k,
    r_k proportional to w_k v_k^(-D/2) exp(-|x_t - alpha mu_k|^2 / (2 v_k)),    D = c h w.

Both compute in the precision of x_t, float64 included.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from csd_nerf.distill.schedule import NoiseSchedule
from csd_nerf.distill.types import Condition


@dataclass(frozen=True)
class GaussianPrior:
    """N(mean, std^2): `eps_hat = sigma (x_t - alpha mean) / (alpha^2 std^2 + sigma^2)`, whatever the condition says."""

    mean: Float[Tensor, "c h w"]
    std: Float[Tensor, "*chw"] | float
    """Standard deviation: one number, or one per element."""
    schedule: NoiseSchedule

    def predict_noise(
        self, x_t: Float[Tensor, "n c h w"], t: Int[Tensor, ""], condition: Condition
    ) -> Float[Tensor, "n c h w"]:
        """The exact noise estimate."""
        alpha, sigma = self.schedule.alpha(t).to(x_t), self.schedule.sigma(t).to(x_t)
        std = torch.as_tensor(self.std).to(x_t)
        return sigma * (x_t - alpha * self.mean.to(x_t)) / (alpha**2 * std**2 + sigma**2)


@dataclass(frozen=True)
class MixturePrior:
    """A mixture of isotropic Gaussians; the text can name modes.

    A text encoding has shape `n 1 k` and holds how much each row asks for each mode, at least 0. The weights are then
    `w_k` times that, normalised; a row of zeros (the null text) asks for nothing and gets the mixture as it is.
    """

    means: Float[Tensor, "k c h w"]
    std: Float[Tensor, " k"] | float
    """Standard deviation of the modes: one number, or one per mode."""
    weights: Float[Tensor, " k"]
    """Positive; they need not sum to 1."""
    schedule: NoiseSchedule

    def __post_init__(self) -> None:
        """Refuse weights that do not fit the modes."""
        if len(self.weights) != len(self.means) or not (self.weights > 0).all():
            raise ValueError(f"{len(self.means)} modes need as many positive weights, got {self.weights.tolist()}")

    @property
    def modes(self) -> int:
        """Number of modes."""
        return len(self.means)

    def text(self, modes: Sequence[int], n: int) -> Float[Tensor, "n 1 k"]:
        """Encoding of 'one of these modes' for n rows; of the null text if `modes` is empty."""
        wanted = torch.zeros(self.modes, dtype=self.means.dtype)
        wanted[list(modes)] = 1
        return wanted.expand(n, 1, self.modes).clone()

    def predict_noise(
        self, x_t: Float[Tensor, "n c h w"], t: Int[Tensor, ""], condition: Condition
    ) -> Float[Tensor, "n c h w"]:
        """The exact noise estimate."""
        alpha, sigma = self.schedule.alpha(t).to(x_t), self.schedule.sigma(t).to(x_t)
        variance = alpha**2 * torch.as_tensor(self.std).to(x_t).expand(self.modes) ** 2 + sigma**2
        away = x_t[:, None] - alpha * self.means.to(x_t)
        logits = -0.5 * (away.flatten(2).square().sum(dim=2) / variance + away[0, 0].numel() * variance.log())
        share = (logits + self._log_weights(condition.text.to(x_t))).softmax(dim=1)
        return sigma * torch.einsum("nk,nkchw->nchw", share / variance, away)

    def _log_weights(self, text: Float[Tensor, "n 1 k"]) -> Float[Tensor, "n k"]:
        asked = text[:, 0]
        asked = torch.where(asked.sum(dim=1, keepdim=True) > 0, asked, torch.ones_like(asked))
        return (asked * self.weights.to(asked)).log()
