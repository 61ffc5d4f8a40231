"""The baselines of CSD Section 4.1: pictures of any size by sampling with InstructPix2Pix.

- ip2p-patches: the picture is cut into patches side by side, and each is sampled by itself ("Patch-wise Crop").
- multidiffusion (Bar-Tal et al. 2023): all patches go down together; after each DDIM step every pixel is the mean over
  the patches that show it. A DDIM step is linear in `x_t` and the noise estimate, so that it is the step of the canvas
  with the mean estimate.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.distill import EditSettings, ScorePrior, evaluate
from csd_nerf.distill.distiller import check_finite
from csd_nerf.distill.solving import guidance_of
from csd_nerf.images.canvas import PatchTargets
from csd_nerf.images.patches import cut, normalised, scatter
from csd_nerf.priors.sampling import add_noise, ddim_timesteps

_TOGETHER = 16


@torch.no_grad()
def sample_canvas(
    prior: ScorePrior,
    targets: PatchTargets,
    settings: EditSettings,
    generator: torch.Generator,
    on_step: Callable[[int], None],
    should_stop: Callable[[], bool] | None = None,
) -> Float[Tensor, "c H W"] | None:
    """The canvas of `total_steps` DDIM steps, from one draw of noise for all of it; None if it was stopped.

    Where patches do not overlap it is each patch sampled by itself. Pixels that no patch shows keep the source.
    `settings.batch_size` patches (16 if None) are evaluated in one call of the network. Raises `NonFiniteError`.
    """
    source, corners, patch = targets.source, targets.corners, targets.patch
    height, width = source.shape[-2:]
    guidance = guidance_of(settings, prior.schedule)
    timesteps = ddim_timesteps(prior.schedule.steps, settings.total_steps)
    x = torch.randn(source.shape, generator=generator).to(source)
    visits = torch.zeros(height, width).to(source)
    for done, (t, below) in enumerate(zip(timesteps, torch.cat([timesteps[1:], timesteps.new_zeros(1)]), strict=True)):
        if should_stop is not None and should_stop():
            return None
        total, visits = torch.zeros_like(source), torch.zeros_like(visits)
        for some in torch.arange(len(corners)).split(settings.batch_size or _TOGETHER):
            x_t = cut(x, corners[some], patch)
            (eps,) = evaluate(prior, t, [guidance.estimate(x_t, t, targets[some])])
            check_finite("the score", eps, int(t))
            part, seen = scatter(eps, corners[some], height, width)
            total, visits = total + part, visits + seen
        eps = normalised(total, visits)
        alpha, sigma = prior.schedule.alpha(t).to(x), prior.schedule.sigma(t).to(x)
        x = add_noise(prior.schedule, below, ((x - sigma * eps) / alpha)[None], eps[None])[0]
        on_step(done + 1)
    return torch.where(visits > 0, x, source)
