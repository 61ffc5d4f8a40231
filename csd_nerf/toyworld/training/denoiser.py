"""Stage 2, the denoiser: text encoder and UNet, trained together on cached latents.

With z the scaled latents of the target, c_I the UNscaled posterior mode of the source, c_T the encoded instruction and
t uniform:  z_t = sqrt(abar_t) z + sqrt(1 - abar_t) eps,  loss = w(t) |UNet([z_t, c_I], t, c_T) - eps|^2,
w(t) = min(snr, gamma) / snr with snr = abar_t / (1 - abar_t) (Hang et al. 2023, for prediction of the noise).
Parts of the condition are dropped as in InstructPix2Pix: c_I becomes zero, c_T the encoded empty text.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from csd_nerf.toyworld.training.data import EditData
from csd_nerf.toyworld.training.networks import DDIMScheduler, UNet2DConditionModel
from csd_nerf.toyworld.training.precision import mixed_precision
from csd_nerf.toyworld.training.settings import ConditioningDropout, TrainingSettings
from csd_nerf.toyworld.training.tokenizer import tokenize


class Denoiser(nn.Module):
    """The trained networks: eps = unet([z_t, c_I], t, text_encoder(tokens))."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> None:
        """Hold both networks, so that one optimiser and one average serve them."""
        super().__init__()
        # A fifth faster on a CPU with one thread.
        self.unet = unet.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.text_encoder = text_encoder

    def forward(
        self,
        z_t: Float[Tensor, "n 4 h w"],
        t: Int64[Tensor, " n"],
        condition: Float[Tensor, "n 4 h w"],
        tokens: Int64[Tensor, "n l"],
    ) -> Float[Tensor, "n 4 h w"]:
        """Predicted noise; `condition` is the unscaled posterior mode of the source image."""
        # Equal texts are encoded once.
        distinct, where = tokens.unique(dim=0, return_inverse=True)
        text = self.text_encoder(distinct)[0][where]
        pixels = torch.cat([z_t, condition], dim=1).contiguous(memory_format=torch.channels_last)
        return self.unet(pixels, t, text).sample


@dataclass(frozen=True)
class LatentPairs:
    """Everything a training step reads, on the CPU."""

    moments: Float[Tensor, "2 n 8 h w"]
    """Posterior mean and log variance of every picture and of its mirror image."""
    pairs: Int64[Tensor, "p 2"]
    """Source and target of each edit."""
    instructions: Int64[Tensor, "p l"]
    """Tokens of each edit's instruction."""
    captions: Int64[Tensor, "n l"]
    """Tokens of each picture's caption."""
    empty: Int64[Tensor, " l"]
    """Tokens of the empty text."""
    scale: float
    """The latents' scaling factor."""

    def __len__(self) -> int:
        return len(self.pairs)

    def subset(self, chosen: Bool[Tensor, " p"]) -> "LatentPairs":
        """Only the chosen edits."""
        return LatentPairs(
            self.moments, self.pairs[chosen], self.instructions[chosen], self.captions, self.empty, self.scale
        )


def make_latent_pairs(
    data: EditData, moments: Float[Tensor, "2 n 8 h w"], scale: float, tokenizer: CLIPTokenizer
) -> LatentPairs:
    """Tokenise the texts of the data set once."""
    return LatentPairs(
        moments=moments,
        pairs=data.pairs,
        instructions=torch.tensor(tokenize(tokenizer, data.instructions)),
        captions=torch.tensor(tokenize(tokenizer, data.captions)),
        empty=torch.tensor(tokenize(tokenizer, [""])[0]),
        scale=scale,
    )


@dataclass(frozen=True)
class NoisedBatch:
    """One training batch."""

    z_t: Float[Tensor, "n 4 h w"]
    eps: Float[Tensor, "n 4 h w"]
    t: Int64[Tensor, " n"]
    condition: Float[Tensor, "n 4 h w"]
    tokens: Int64[Tensor, "n l"]

    def to(self, device: str) -> "NoisedBatch":
        """The batch on another device."""
        return NoisedBatch(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def drop_conditions(
    condition: Float[Tensor, "n 4 h w"],
    instructions: Int64[Tensor, "n l"],
    captions: Int64[Tensor, "n l"],
    empty: Int64[Tensor, " l"],
    dropout: ConditioningDropout,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "n 4 h w"], Int64[Tensor, "n l"]]:
    """Condition and tokens with each sample's parts dropped or replaced, one draw per sample."""
    draw = torch.rand(len(condition), generator=generator)
    no_text = draw < dropout.no_text
    no_image = ~no_text & (draw < dropout.no_text + dropout.no_image)
    neither = ~no_text & ~no_image & (draw < dropout.no_text + dropout.no_image + dropout.neither)
    caption = draw >= 1 - dropout.caption
    tokens = torch.where((no_text | neither)[:, None], empty, instructions)
    tokens = torch.where(caption[:, None], captions, tokens)
    blank = no_image | neither | caption
    return torch.where(blank[:, None, None, None], torch.zeros_like(condition), condition), tokens


def draw_batch(
    data: LatentPairs,
    chosen: Int64[Tensor, " n"],
    alphas: Float[Tensor, " T"],
    dropout: ConditioningDropout,
    generator: torch.Generator,
) -> NoisedBatch:
    """Noise the chosen edits' targets; `alphas` is the schedule's abar. A mirrored source has a mirrored target."""
    count = len(chosen)
    source, target = data.pairs[chosen].unbind(1)
    side = torch.randint(2, (count,), generator=generator)
    condition = data.moments[side, source].chunk(2, dim=1)[0]
    mean, log_variance = data.moments[side, target].chunk(2, dim=1)
    spread = (0.5 * log_variance.clamp(-30, 20)).exp()
    z = data.scale * (mean + spread * torch.randn(mean.shape, generator=generator))
    condition, tokens = drop_conditions(
        condition, data.instructions[chosen], data.captions[target], data.empty, dropout, generator
    )
    t = torch.randint(len(alphas), (count,), generator=generator)
    eps = torch.randn(z.shape, generator=generator)
    alpha = alphas[t][:, None, None, None]
    return NoisedBatch(alpha.sqrt() * z + (1 - alpha).sqrt() * eps, eps, t, condition, tokens)


def loss_per_sample(
    denoiser: Denoiser, batch: NoisedBatch, alphas: Float[Tensor, " T"], gamma: float
) -> Float[Tensor, " n"]:
    """Weighted squared error of the noise, mean over latent elements."""
    error = (denoiser(batch.z_t, batch.t, batch.condition, batch.tokens) - batch.eps).square().mean(dim=(1, 2, 3))
    snr = alphas / (1 - alphas)
    weight = (snr.clamp(max=gamma) / snr).to(batch.t.device)
    return weight[batch.t] * error


def make_loss(
    denoiser: Denoiser, data: LatentPairs, scheduler: DDIMScheduler, settings: TrainingSettings
) -> Callable[[torch.Generator], Float[Tensor, ""]]:
    """The loss of a random batch of edits."""
    alphas = scheduler.alphas_cumprod

    def loss_of_batch(generator: torch.Generator) -> Float[Tensor, ""]:
        chosen = torch.randint(len(data), (settings.denoiser_batch,), generator=generator)
        batch = draw_batch(data, chosen, alphas, settings.dropout, generator).to(settings.device)
        with mixed_precision(settings.device):
            return loss_per_sample(denoiser, batch, alphas, settings.snr_gamma).mean()

    return loss_of_batch


def make_evaluation(
    denoiser: Denoiser,
    data: LatentPairs,
    kinds: list[str],
    scheduler: DDIMScheduler,
    settings: TrainingSettings,
    per_kind: int = 12,
) -> Callable[[], dict[str, float]]:
    """Held-out loss, in all and per kind of edit, at the same noise and timesteps every time, nothing dropped."""
    alphas = scheduler.alphas_cumprod
    chosen = [i for kind in sorted(set(kinds)) for i in [j for j, k in enumerate(kinds) if k == kind][:per_kind]]
    names = [kinds[i] for i in chosen]
    keep = ConditioningDropout(0.0, 0.0, 0.0, 0.0)
    batch = draw_batch(data, torch.tensor(chosen), alphas, keep, torch.Generator().manual_seed(1)).to(settings.device)

    @torch.no_grad()
    def evaluate() -> dict[str, float]:
        losses = loss_per_sample(denoiser, batch, alphas, settings.snr_gamma).cpu()
        values = {"held_out": losses.mean().item()}
        for kind in sorted(set(names)):
            values[kind] = losses[torch.tensor([name == kind for name in names])].mean().item()
        return values

    return evaluate
