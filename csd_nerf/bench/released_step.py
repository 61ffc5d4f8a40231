"""The released code's schedule of one CSD-Edit step, re-derived, for timing against ours.

Particle by particle: a network call of three rows for the edited particle and one of three for its source, whose third
row is a copy of the second (with an empty source prompt the text branch is the image branch); attention in slices.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.distill.presets import EditSettings
from csd_nerf.distill.types import Condition, Target
from csd_nerf.priors.diffusion import DiffusionPrior


@torch.no_grad()
def released_step(
    prior: DiffusionPrior,
    particles: Float[Tensor, "n c h w"],
    target: Target,
    settings: EditSettings,
    generator: torch.Generator,
) -> Float[Tensor, "n c h w"]:
    """The gradient that the distiller gives under the preset `released`, from the same draws. Needs 3 particles."""
    full = settings.resolved()
    assert full.t_min is not None and full.t_max is not None and full.image_guidance_scale is not None
    image_scale, text_scale = full.image_guidance_scale, full.guidance_scale
    x, steps = particles, prior.schedule.steps
    t = torch.randint(round(full.t_min * steps), round(full.t_max * steps) + 1, (), generator=generator)
    eps = torch.randn(x.shape, generator=generator).to(x)
    alpha, sigma = prior.schedule.alpha(t).to(x), prior.schedule.sigma(t).to(x)
    assert target.image is not None and target.source is not None
    noised, differences = alpha * x + sigma * eps, []
    for i in range(len(x)):
        image, null = target.image[i : i + 1], target.null_text[i : i + 1]
        images = torch.cat([image, image, torch.zeros_like(image)])

        def guided(x_t: Tensor, text: Tensor, images: Tensor = images, null: Tensor = null) -> Tensor:
            condition = Condition(torch.cat([text, null, null]), images)
            told, pictured, nothing = prior.predict_noise(x_t.expand(3, -1, -1, -1), t, condition)
            return nothing + image_scale * (pictured - nothing) + text_scale * (told - pictured)

        source_t = alpha * target.source[i : i + 1] + sigma * eps[i : i + 1]
        differences.append(guided(noised[i : i + 1], target.texts[0][i : i + 1]) - guided(source_t, null))
    difference, flat = torch.stack(differences).flatten(1), noised.flatten(1)
    squared = (flat[:, None] - flat[None, :]).square().sum(dim=2)
    h = squared.flatten().sort().values[(squared.numel() - 1) // 2] / torch.log(squared.new_tensor(len(x) + 1.0))
    k = torch.exp(-squared / h)
    repulsion = 2 / h * (flat * k.sum(dim=1, keepdim=True) - k @ flat)
    weight = prior.schedule.weight(t).to(x)
    return (weight * (k @ difference - repulsion) / len(x)).reshape(x.shape)


@contextmanager
def attention_in_slices(prior: DiffusionPrior) -> Iterator[None]:
    """Within, attention is computed in slices, as the released code asks for."""
    before = dict(prior.unet.attn_processors)
    try:
        prior.unet.set_attention_slice("auto")
        yield
    finally:
        prior.unet.set_attn_processor(before)
