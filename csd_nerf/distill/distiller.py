"""One distillation step: noise -> score -> baseline -> Stein mixing -> gradient on the particles.

CSD Eq. 3 and CSD-Edit (Section 3.2), as a descent direction on particle i:

    g_i = w(t) / z_i  *  sum_j [ k(x_t^j, x_t^i) (eps_hat_j - baseline_j)  -  r(t) grad_{x_t^j} k(x_t^j, x_t^i) ]

The paper prints `+ grad k`, which under gradient descent would attract; the repulsion must push apart. It also prints
the difference with index i inside the sum over j; it is that of particle j. z_i is N (the paper), or the kernel row
sum `sum_j k(x_t^j, x_t^i)` (row-normalised mixing). With N the step shrinks by about 2 / (N + 1) when the particles are
about equally far apart, so that a learning rate found with one N is wrong for another; row-normalised it does not.
Particles that do not talk (`IndependentKernel`) are N sets of one, so that z_i = 1 under either mixing: N times SDS,
which is the paper's ablation without SVGD.

r(t) is 1 in the paper. SVGD needs the score `-eps_hat / sigma_t` where Eq. 3 puts `-eps_hat` (CSD Eq. 9), so that
consistently scaled the repulsion carries `sigma_t`; with r = 1 the particles' stationary spread is that of the
tempered density `p^sigma_t`.

With one particle k = 1 and the repulsion is zero: the step is SDS (injected-noise baseline) whatever the kernel.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from csd_nerf.distill.kernels import IndependentKernel, TemporalKernel, at_least_float32
from csd_nerf.distill.noise import CanvasNoise, SharedNoise
from csd_nerf.distill.schedule import UniformTimesteps
from csd_nerf.distill.types import (
    Baseline,
    Condition,
    Distillation,
    Estimate,
    Guidance,
    Kernel,
    Noised,
    NoiseSource,
    Query,
    ScorePrior,
    Target,
)


class NonFiniteError(RuntimeError):
    """A score, gradient, latent or decoded picture was NaN or infinite."""

    def __init__(self, what: str, t: int | None, particle: int, step: int | None = None, partial: Any = None) -> None:
        """`t` is None for what has no timestep; `step` counts the steps made before.

        `partial` holds what was reached before, if the caller keeps anything.
        """
        self.what, self.t, self.particle, self.step, self.partial = what, t, particle, step, partial
        at = ("" if step is None else f" at step {step}") + ("" if t is None else f", t = {t}")
        super().__init__(
            f"{what} is not finite{at}, particle {particle}. A half-precision network may overflow: try float32, "
            "a lower guidance scale or a lower learning rate"
        )


@dataclass(frozen=True)
class Distiller:
    """Everything that decides one step. Parts are small objects; see `csd_nerf.distill.types` for their protocols."""

    prior: ScorePrior
    guidance: Guidance
    kernel: Kernel
    baseline: Baseline
    noise: NoiseSource = SharedNoise()
    timesteps: UniformTimesteps = UniformTimesteps()
    mixing: Literal["row", "mean"] = "row"
    """z_i: kernel row sums, or N; no matter with an `IndependentKernel`."""
    repulsion: Literal["sigma", "unit"] = "sigma"
    """r(t): sigma_t, or 1."""

    @torch.no_grad()
    def __call__(self, particles: Float[Tensor, "n c h w"], target: Target, generator: torch.Generator) -> Distillation:
        """Gradient on the particles, float32 at least, for one draw of timestep and noise. Raises `NonFiniteError`."""
        schedule, particles = self.prior.schedule, at_least_float32(particles)
        t = self.timesteps(schedule, generator)
        eps = self.noise(particles, generator)
        alpha, sigma = schedule.alpha(t).to(particles), schedule.sigma(t).to(particles)
        noised = Noised(x_t=alpha * particles + sigma * eps, eps=eps, t=t, alpha=alpha, sigma=sigma)
        estimates = (self.guidance.estimate(noised.x_t, t, target), self.baseline.estimate(noised, target))
        score, baseline = evaluate(self.prior, t, estimates)
        difference = score - baseline
        check_finite("the score", difference, int(t))

        # Somebody else's autocast would take the products in half precision, where distances overflow.
        with torch.autocast(particles.device.type, enabled=False):
            gram, repulsion = self.kernel(noised.x_t)
            mixed = torch.einsum("ji,j...->i...", gram, difference)
        push = sigma * repulsion if self.repulsion == "sigma" else repulsion
        by_row = self.mixing == "row" or isinstance(self.kernel, IndependentKernel)
        share = gram.sum(dim=0) if by_row else gram.new_full((len(particles),), len(particles))
        gradient = schedule.weight(t).to(particles) * (mixed - push) / share[:, None, None, None]
        check_finite("the gradient", gradient, int(t))
        samples = sum(len(query.x_t) for estimate in estimates for query in estimate.queries)
        return Distillation(gradient=gradient, t=int(t), gram=gram, network_samples=samples)

    def for_rows(self, rows: Int[Tensor, " m"]) -> "Distiller":
        """The distiller of a subset of the particles: some noises and kernels have to know which ones they are."""
        noise = self.noise[rows] if isinstance(self.noise, CanvasNoise) else self.noise
        kernel = self.kernel[rows] if isinstance(self.kernel, TemporalKernel) else self.kernel
        return replace(self, noise=noise, kernel=kernel)


def evaluate(prior: ScorePrior, t: Int[Tensor, ""], estimates: Sequence[Estimate]) -> list[Tensor]:
    """Evaluate noise estimates with one call of the network over the queries of all of them."""
    queries = [query for estimate in estimates for query in estimate.queries]
    answers = iter(ask(prior, t, queries) if queries else ())
    return [estimate.combine([next(answers) for _ in estimate.queries]) for estimate in estimates]


def ask(prior: ScorePrior, t: Int[Tensor, "*m"], queries: Sequence[Query]) -> list[Tensor]:
    """Answers of queries, in one network call; `t` is one timestep, or one for each row where the prior takes that."""
    images = [query.condition.image for query in queries]
    pictured = [image for image in images if image is not None]
    if pictured and len(pictured) != len(images):
        raise ValueError("queries with and without an image condition cannot share a network call")
    condition = Condition(
        text=torch.cat([query.condition.text for query in queries]), image=torch.cat(pictured) if pictured else None
    )
    eps = prior.predict_noise(torch.cat([query.x_t for query in queries]), t, condition)
    return list(eps.split([len(query.x_t) for query in queries]))


def check_finite(what: str, values: Float[Tensor, "n c h w"], t: int | None) -> None:
    """Raise `NonFiniteError` that names the first particle with a value that is not finite."""
    finite = torch.isfinite(values).flatten(1).all(dim=1)
    if not finite.all():
        raise NonFiniteError(what, t, int(torch.nonzero(~finite)[0]))
