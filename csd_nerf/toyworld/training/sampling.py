"""Plain InstructPix2Pix sampling with DDIM, and how far its pictures are from the true edits.

eps = e(0, "") + w_s (e(I, "") - e(0, "")) + w_y (e(I, y) - e(I, "")), three UNet samples per step.
"""

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from csd_nerf.toyworld.training.autoencoder import to_bytes, to_signed
from csd_nerf.toyworld.training.denoiser import Denoiser
from csd_nerf.toyworld.training.networks import AutoencoderKL, DDIMScheduler, decode, posterior, scaling_factor

TEXT_GUIDANCE = 3.0
"""w_y of the sample grids: a small network's edits are cleaner at 3 than at the 5 and more that the big ones take."""


@torch.no_grad()
def sample_edits(
    autoencoder: AutoencoderKL,
    denoiser: Denoiser,
    scheduler: DDIMScheduler,
    sources: UInt8[Tensor, "n h w 3"],
    tokens: Int64[Tensor, "n l"],
    empty: Int64[Tensor, " l"],
    seed: int = 0,
    steps: int = 20,
    text_guidance: float = TEXT_GUIDANCE,
    image_guidance: float = 1.5,
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


def relative_errors(
    sources: UInt8[Tensor, "n h w 3"],
    edited: UInt8[Tensor, "n h w 3"],
    truths: UInt8[Tensor, "n h w 3"],
    kinds: list[str],
) -> dict[str, float]:
    """Per kind: squared pixel error of the edited pictures divided by that of the unedited sources."""
    table = {}
    for kind in sorted(set(kinds)):
        chosen = torch.tensor([other == kind for other in kinds])
        truth = truths[chosen].float()
        ours = (edited[chosen].float() - truth).square().mean()
        copying = (sources[chosen].float() - truth).square().mean()
        if copying > 0:
            table[kind] = (ours / copying).item()
    return table
