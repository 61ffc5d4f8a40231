"""Stage 1, the autoencoder: x (n 3 h w, values -1..1) -> posterior N(mu, s^2) over latents (n 4 h/f w/f) -> x_hat.

loss = mean|x_hat - x| + mean|grad x_hat - grad x| + kl_weight * KL(posterior || N(0, 1)), the gradient being the
horizontal and vertical difference of neighbours: edges of small objects weigh little in the first term alone.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from csd_nerf.toyworld.training.networks import AutoencoderKL, decode, posterior
from csd_nerf.toyworld.training.precision import mixed_precision
from csd_nerf.toyworld.training.settings import TrainingSettings


def to_signed(pictures: UInt8[Tensor, "n h w 3"]) -> Float[Tensor, "n 3 h w"]:
    """Bytes 0..255 to the networks' range -1..1."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_bytes(pictures: Float[Tensor, "n 3 h w"]) -> UInt8[Tensor, "n h w 3"]:
    """The networks' range -1..1 to bytes, clipped."""
    return ((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)


def jitter(
    pictures: Float[Tensor, "n 3 h w"], generator: torch.Generator, share: float = 0.3
) -> Float[Tensor, "n 3 h w"]:
    """Flip half of the pictures; in a `share` of them permute the channels and change contrast and brightness."""
    count = len(pictures)
    flip = torch.rand(count, generator=generator) < 0.5
    pictures = torch.where(flip[:, None, None, None], pictures.flip(-1), pictures)
    order = torch.rand(count, 3, generator=generator).argsort(1)
    contrast = 0.7 + 0.5 * torch.rand(count, 3, 1, 1, generator=generator)
    brightness = 0.4 * torch.rand(count, 3, 1, 1, generator=generator) - 0.2
    changed = pictures.gather(1, order[:, :, None, None].expand_as(pictures)) * contrast + brightness
    chosen = torch.rand(count, generator=generator) < share
    return torch.where(chosen[:, None, None, None], changed.clamp(-1, 1), pictures)


def reconstruction_loss(x_hat: Float[Tensor, "n 3 h w"], x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, ""]:
    """Mean absolute error of the pixels plus that of their differences along both axes."""
    error = x_hat - x
    return error.abs().mean() + error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()


def make_loss(
    autoencoder: AutoencoderKL,
    pictures: UInt8[Tensor, "n h w 3"],
    photos: UInt8[Tensor, "m h w 3"],
    settings: TrainingSettings,
) -> Callable[[torch.Generator], Float[Tensor, ""]]:
    """The loss of a random batch: an eighth of it photo crops, when there are photos."""
    photo_count = max(1, settings.autoencoder_batch // 8) if len(photos) else 0
    if not len(pictures):
        photo_count = settings.autoencoder_batch

    def loss_of_batch(generator: torch.Generator) -> Float[Tensor, ""]:
        parts = []
        if photo_count < settings.autoencoder_batch:
            count = settings.autoencoder_batch - photo_count
            parts.append(pictures[torch.randint(len(pictures), (count,), generator=generator)])
        if photo_count:
            parts.append(photos[torch.randint(len(photos), (photo_count,), generator=generator)])
        x = jitter(to_signed(torch.cat(parts)), generator).to(settings.device)
        with mixed_precision(settings.device):
            law = posterior(autoencoder, x)
            noise = torch.randn(law.mean.shape, generator=generator).to(settings.device)
            x_hat = decode(autoencoder, law.mean + law.std * noise).float()
        divergence = 0.5 * (law.mean.square() + law.var - 1 - law.logvar).float().mean()
        return reconstruction_loss(x_hat, x) + settings.kl_weight * divergence

    return loss_of_batch


@torch.no_grad()
def reconstruct(
    autoencoder: AutoencoderKL, pictures: UInt8[Tensor, "n h w 3"], batch: int = 32
) -> UInt8[Tensor, "n h w 3"]:
    """Encode to the posterior's mode and decode."""
    device = next(autoencoder.parameters()).device
    parts = [
        to_bytes(decode(autoencoder, posterior(autoencoder, to_signed(part).to(device)).mode())).cpu()
        for part in pictures.split(batch)
    ]
    return torch.cat(parts)


def peak_signal_to_noise(a: UInt8[Tensor, "n h w 3"], b: UInt8[Tensor, "n h w 3"]) -> float:
    """Mean over the pictures of 10 log10(1 / mean squared error), in dB, of values 0..1."""
    error = ((a.float() - b.float()) / 255).square().flatten(1).mean(1).clamp_min(1e-10)
    return (-10 * error.log10()).mean().item()


@torch.no_grad()
def encode_moments(
    autoencoder: AutoencoderKL, pictures: UInt8[Tensor, "n h w 3"], batch: int = 64
) -> Float[Tensor, "2 n 8 c c"]:
    """Posterior mean and log variance of each picture and of its mirror image, as the encoder gives them.

    A mirrored picture's latents are not its mirrored latents, so both orientations are encoded.
    """
    device = next(autoencoder.parameters()).device
    sides = []
    for flipped in (False, True):
        parts = []
        for part in pictures.split(batch):
            x = to_signed(part.flip(2) if flipped else part).to(device)
            parts.append(posterior(autoencoder, x).parameters.cpu())
        sides.append(torch.cat(parts))
    return torch.stack(sides)


def latent_statistics(moments: Float[Tensor, "2 n 8 c c"]) -> dict[str, float]:
    """Standard deviation, largest share of one channel, kurtosis (3 for a normal law), mean posterior deviation."""
    mean, log_variance = moments.chunk(2, dim=2)
    centred = mean - mean.mean()
    deviation = centred.square().mean().sqrt().item()
    by_channel = mean.std(dim=(0, 1, 3, 4))
    return {
        "std": math.sqrt(deviation**2 + log_variance.clamp(-30, 20).exp().mean().item()),
        "mean": mean.mean().item(),
        "channel_std_min": by_channel.min().item(),
        "channel_std_max": by_channel.max().item(),
        "kurtosis": (centred.pow(4).mean() / deviation**4).item(),
        "posterior_std": (0.5 * log_variance.clamp(-30, 20)).exp().mean().item(),
    }
