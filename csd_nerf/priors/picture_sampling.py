"""The editors that sample every picture by itself, as `Solver`s of `csd_nerf.distill.edit_images`.

- ip2p, InstructPix2Pix (Brooks et al. 2023): DDIM from pure noise, sample for sample what `sample` gives.
- in2n, the dataset update of Instruct-NeRF2NeRF (Haque et al. 2023): the picture as it is now is noised to a level
  t ~ U(0.02, 0.98), one draw for all pictures of a call, and comes down from exactly there in `steps` DDIM steps.

The condition of both is the source picture, the guidance that of CSD Eq. 6.
"""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.distill.banked import AnswerBank
from csd_nerf.distill.distiller import NonFiniteError, check_finite
from csd_nerf.distill.editors import EDITORS, Editor
from csd_nerf.distill.presets import EditSettings
from csd_nerf.distill.solving import Solution, Solver, distil, guidance_of, noise_of, timesteps_of
from csd_nerf.distill.types import ScorePrior, Target
from csd_nerf.priors.sampling import add_noise, ddim_timesteps, descend, timesteps_from


def solver_of(editor: Editor, bank: AnswerBank | None = None) -> Solver:
    """How an editor finds its latents; one that distils keeps what it asks about the source in `bank`."""
    return sample_pictures if EDITORS[editor].samples else partial(distil, bank=bank)


def sample_pictures(
    prior: ScorePrior,
    start: Float[Tensor, "n c h w"],
    target: Target,
    settings: EditSettings,
    generator: torch.Generator,
    on_step: Callable[[int], None],
    should_stop: Callable[[], bool] | None,
) -> Solution:
    """The `Solver` of ip2p and in2n. A descent that does not reach its end has no picture: `start` is returned.

    Raises `ValueError` for editors that distil, and for more steps than there are noise levels.
    """
    if not settings.parts.samples:
        raise ValueError(f"editor={settings.editor} distils: give edit_images its solver, solver_of(editor)")
    if settings.parts.from_noise:
        timesteps = ddim_timesteps(prior.schedule.steps, settings.total_steps)
        x = noise_of(settings)(start, generator)
    else:
        first = timesteps_of(settings)(prior.schedule, generator)
        timesteps = timesteps_from(int(first), settings.total_steps)
        x = add_noise(prior.schedule, first, start, noise_of(settings)(start, generator))
    states = descend(prior, guidance_of(settings, prior.schedule), target, x, timesteps)
    for done, t in enumerate(timesteps.tolist()):
        if should_stop is not None and should_stop():
            return Solution(start, 0)
        x = next(states)
        try:
            check_finite("the sample", x, t)
        except NonFiniteError as error:
            return Solution(start, 0, NonFiniteError(error.what, error.t, error.particle, done))
        on_step(done + 1)
    return Solution(x, settings.total_steps)
