"""Plain InstructPix2Pix sampling with DDIM, of networks that are being trained.

eps = e(0, "") + w_s (e(I, "") - e(0, "")) + w_y (e(I, y) - e(I, "")), three UNet samples per step.
"""

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from csd_nerf.toyworld.judging.errors import relative_errors
from csd_nerf.toyworld.judging.gates import IMAGE_GUIDANCE, STEPS, TEXT_GUIDANCE
from csd_nerf.toyworld.training.autoencoder import to_bytes, to_signed
from csd_nerf.toyworld.training.denoiser import Denoiser
from csd_nerf.toyworld.training.networks import AutoencoderKL, DDIMScheduler, decode, posterior, scaling_factor

__all__ = ["TEXT_GUIDANCE", "relative_errors", "sample_edits"]


@torch.no_grad()
def sample_edits(
    autoencoder: AutoencoderKL,
    denoiser: Denoiser,
    scheduler: DDIMScheduler,
    sources: UInt8[Tensor, "n h w 3"],
    tokens: Int64[Tensor, "n l"],
    empty: Int64[Tensor, " l"],
    seed: int = 0,
    steps: int = STEPS,
    text_guidance: float = TEXT_GUIDANCE,
    image_guidance: float = IMAGE_GUIDANCE,
    batch: int = 16,
) -> UInt8[Tensor, "n h w 3"]:
    """Edited pictures. Every picture has noise of its own, drawn in order from `seed`."""
    device = next(denoiser.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    results = []
    for source, text in zip(sources.split(batch), tokens.split(batch), strict=True):
        image = posterior(autoencoder, to_signed(source).to(device)).mode()
        z = torch.randn(image.shape, generator=generator).to(device)
        condition = torch.cat([image, image, torch.zeros_like(image)])
        nothing = empty.expand_as(text)
        words = torch.cat([text, nothing, nothing]).to(device)
        scheduler.set_timesteps(steps)
        for t in scheduler.timesteps:
            times = t.to(device).expand(len(words))
            edited, kept, free = denoiser(z.repeat(3, 1, 1, 1), times, condition, words).chunk(3)
            eps = free + image_guidance * (kept - free) + text_guidance * (edited - kept)
            (z,) = scheduler.step(eps, t, z, return_dict=False)[:1]  # pyright: ignore[reportArgumentType]
        results.append(to_bytes(decode(autoencoder, z / scaling_factor(autoencoder))).cpu())
    return torch.cat(results)
