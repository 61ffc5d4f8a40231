"""Plain DDIM sampling (Song et al. 2021, Eq. 12 with eta = 0): what a prior does to each picture by itself.

    x   = (x_t - sigma_t eps_hat) / alpha_t
    x_s = alpha_s x + sigma_s eps_hat          for the next lower timestep s

Timesteps are Stable Diffusion's: `steps` of them, spaced by T // steps from 1 upwards (from 0 if they are all T), and
below the lowest one abar = abar_0. A descent that begins at a given noise level has them evenly below that one. With
`ImageTextGuidance` this is the plain InstructPix2Pix baseline, sample for sample what diffusers' pipeline gives with
`DDIMScheduler`; with `start` it is SDEdit (Meng et al. 2022).
"""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from csd_nerf.distill.distiller import evaluate
from csd_nerf.distill.noise import IndependentNoise
from csd_nerf.distill.schedule import NoiseSchedule
from csd_nerf.distill.types import Guidance, NoiseSource, ScorePrior, Target

INDEPENDENT = IndependentNoise()


def ddim_timesteps(total: int, steps: int) -> Int[Tensor, " steps"]:
    """`steps` different timesteps of `total`, in descending order. Raises `ValueError` unless 1 <= steps <= total."""
    if not 1 <= steps <= total:
        raise ValueError(f"steps={steps}: give 1 to {total}, the timesteps of the prior's schedule")
    spaced = torch.arange(steps).flip(0) * (total // steps)
    return spaced + min(1, total - 1 - int(spaced[0]))  # an offset of 1 would leave the schedule where it is used up


def timesteps_from(first: int, steps: int) -> Int[Tensor, " steps"]:
    """`steps` different timesteps in descending order, evenly from `first` to just above 0: `floor(first k / steps)`.

    Raises `ValueError` unless 1 <= steps <= first.
    """
    if not 1 <= steps <= first:
        raise ValueError(f"steps={steps}: give 1 to {first}, the timesteps from the first one down to 1")
    return torch.arange(steps, 0, -1) * first // steps


@torch.no_grad()
def descend(
    prior: ScorePrior,
    guidance: Guidance,
    target: Target,
    x: Float[Tensor, "n c h w"],
    timesteps: Int[Tensor, " steps"],
) -> Iterator[Float[Tensor, "n c h w"]]:
    """The DDIM states after each of `timesteps` (descending), from `x` at the first one to noise level 0 at the end."""
    for t, below in zip(timesteps, torch.cat([timesteps[1:], timesteps.new_zeros(1)]), strict=True):
        (eps,) = evaluate(prior, t, [guidance.estimate(x, t, target)])
        alpha, sigma = prior.schedule.alpha(t).to(x), prior.schedule.sigma(t).to(x)
        x = add_noise(prior.schedule, below, (x - sigma * eps) / alpha, eps)
        yield x


@torch.no_grad()
def sample(
    prior: ScorePrior,
    guidance: Guidance,
    target: Target,
    steps: int,
    generator: torch.Generator,
    *,
    start: Float[Tensor, "n c h w"] | None = None,
    strength: float = 1.0,
    shape: tuple[int, int, int] | None = None,
    noise: NoiseSource = INDEPENDENT,
    on_step: Callable[[int, int], None] | None = None,
) -> Float[Tensor, "n c h w"]:
    """Sample one latent for each row of `target`.

    Args:
        prior: The model.
        guidance: How its estimates combine.
        target: What to sample; its number of rows is the number of samples.
        steps: Network calls for a whole descent; `strength` takes the last share of them.
        generator: On the CPU; one seed gives one result.
        start: Latents to start from, noised to the first timestep; None starts from pure noise.
        strength: With `start`, the share of the descent to run, in (0, 1].
        shape: `c h w` of the samples; None takes that of `start`, the image condition or the source.
        noise: Where the first noise comes from.
        on_step: Called as `on_step(done, total)`.

    Raises `ValueError` for steps or strength out of range, and where no shape is known.
    """
    timesteps = ddim_timesteps(prior.schedule.steps, steps)
    if not 0 < strength <= 1 or (start is None and strength != 1):
        raise ValueError(f"strength={strength}: give a share in (0, 1], and below 1 only together with start latents")
    timesteps = timesteps[steps - max(1, round(steps * strength)) :]
    x = start if start is not None else target.null_text.new_empty((len(target.null_text), *_shape(target, shape)))
    eps = noise(x, generator)
    x = eps if start is None else add_noise(prior.schedule, timesteps[0], start, eps)
    for done, state in enumerate(descend(prior, guidance, target, x, timesteps), start=1):
        x = state
        if on_step is not None:
            on_step(done, len(timesteps))
    return x


def add_noise(
    schedule: NoiseSchedule, t: Int[Tensor, ""], x: Float[Tensor, "n c h w"], eps: Float[Tensor, "n c h w"]
) -> Float[Tensor, "n c h w"]:
    """alpha_t x + sigma_t eps."""
    return schedule.alpha(t).to(x) * x + schedule.sigma(t).to(x) * eps


def _shape(target: Target, shape: tuple[int, int, int] | None) -> tuple[int, ...]:
    if shape is not None:
        return shape
    for like in (target.image, target.source):
        if like is not None:
            return tuple(like.shape[1:])
    raise ValueError("the shape of the samples is unknown: give shape=(channels, height, width)")
