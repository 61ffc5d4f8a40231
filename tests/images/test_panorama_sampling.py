"""The baselines of CSD Section 4.1 that sample a panorama: patches by themselves, and MultiDiffusion."""

import torch
from torch import Tensor

from csd_nerf.distill import Condition, EditSettings
from csd_nerf.images.panorama import edit_panorama
from csd_nerf.priors.sampling import ddim_timesteps
from tests.distill.analytic import FormulaPrior, seeded
from tests.images.test_panorama import picture


def slow_descent(prior: FormulaPrior, x: Tensor, image: Tensor, steps: int, scale: float) -> Tensor:
    """InstructPix2Pix on one patch, sample by sample."""
    text, null = prior.encode_text(["make it red", ""])
    timesteps = [*ddim_timesteps(1000, steps).tolist(), 0]
    for t, below in zip(timesteps, timesteps[1:], strict=False):
        e_text, e_image, e_none = (
            prior.predict_noise(x[None], torch.tensor(t), Condition(words[None], shown[None]))[0]
            for words, shown in ((text, image), (null, image), (null, torch.zeros_like(image)))
        )
        eps = e_none + 1.5 * (e_image - e_none) + scale * (e_text - e_image)
        a, b = (prior.schedule.alphas_cumprod[i].to(x) for i in (t, below))
        x = b.sqrt() * (x - (1 - a).sqrt() * eps) / a.sqrt() + (1 - b).sqrt() * eps
    return x


def test_patches_side_by_side_are_sampled_each_by_itself() -> None:
    prior, source = FormulaPrior(), picture(8, 24)
    settings = EditSettings(steps=5, guidance_scale=4.0)
    result = edit_panorama(prior, source, "make it red", editor="ip2p-patches", settings=settings, seed=2)
    noise, condition = torch.randn((4, 4, 12), generator=seeded(2)), prior.encode_condition(source[None])[0]
    expected = torch.cat(
        [slow_descent(prior, noise[..., x : x + 4], condition[..., x : x + 4], 5, 4.0) for x in (0, 4, 8)], dim=-1
    )
    torch.testing.assert_close(result.checkpoint.latents, expected, rtol=1e-4, atol=1e-5)
    assert result.patches == 3 and result.checkpoint.network_samples == 3 * 3 * 5


def test_multidiffusion_is_the_mean_of_the_patches_after_every_step() -> None:
    prior, source = FormulaPrior(), picture(8, 12)
    settings = EditSettings(steps=5, guidance_scale=4.0)
    result = edit_panorama(prior, source, "make it red", editor="multidiffusion", settings=settings, stride=2, seed=2)
    x, condition = torch.randn((4, 4, 6), generator=seeded(2)), prior.encode_condition(source[None])[0]
    timesteps = [*ddim_timesteps(1000, 5).tolist(), 0]
    text, null = prior.encode_text(["make it red", ""])
    for t, below in zip(timesteps, timesteps[1:], strict=False):
        moved, count = torch.zeros_like(x), torch.zeros(4, 6)
        for left in (0, 2):
            part, image = x[..., left : left + 4], condition[..., left : left + 4]
            e_text, e_image, e_none = (
                prior.predict_noise(part[None], torch.tensor(t), Condition(words[None], shown[None]))[0]
                for words, shown in ((text, image), (null, image), (null, torch.zeros_like(image)))
            )
            eps = e_none + 1.5 * (e_image - e_none) + 4.0 * (e_text - e_image)
            a, b = (prior.schedule.alphas_cumprod[i].to(x) for i in (t, below))
            moved[..., left : left + 4] += b.sqrt() * (part - (1 - a).sqrt() * eps) / a.sqrt() + (1 - b).sqrt() * eps
            count[:, left : left + 4] += 1
        x = moved / count
    torch.testing.assert_close(result.checkpoint.latents, x, rtol=1e-4, atol=1e-5)
