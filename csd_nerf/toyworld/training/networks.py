"""The prior's networks, built from a `NetworkSize`, and its noise schedule.

The schedule is Stable Diffusion's: 1000 steps, scaled-linear betas 0.00085..0.012, prediction of the noise. The other
modules take diffusers' classes from here, so that what its type hints leave open is settled in one place.
"""

from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from jaxtyping import Float
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from csd_nerf.toyworld.training.settings import NetworkSize


def build_autoencoder(size: NetworkSize) -> AutoencoderKL:
    """A small `AutoencoderKL` with 4 latent channels and no attention (it costs time and brings nothing at 16x16)."""
    levels = len(size.autoencoder_channels)
    options: dict[str, Any] = {
        "block_out_channels": size.autoencoder_channels,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
    }
    return AutoencoderKL(
        **options,
        layers_per_block=size.autoencoder_layers,
        latent_channels=4,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=size.image_size,
        scaling_factor=1.0,
        force_upcast=False,
    )


def build_denoiser(size: NetworkSize) -> UNet2DConditionModel:
    """An InstructPix2Pix UNet: 4 noisy latent channels and 4 of the source image in, 4 channels of noise out."""
    coarse = len(size.denoiser_channels) - 1
    return UNet2DConditionModel(
        sample_size=size.latent_size,
        in_channels=8,
        out_channels=4,
        block_out_channels=size.denoiser_channels,
        layers_per_block=size.denoiser_layers,
        down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * coarse),
        up_block_types=(*("CrossAttnUpBlock2D",) * coarse, "UpBlock2D"),
        cross_attention_dim=size.text_width,
        # The UNet reads this as the NUMBER of heads (a naming accident that diffusers keeps for old checkpoints).
        attention_head_dim=size.attention_heads,
        norm_num_groups=16,
    )


def posterior(autoencoder: AutoencoderKL, x: Float[Tensor, "n 3 H W"]) -> DiagonalGaussianDistribution:
    """The encoder's normal law over unscaled latents of pictures in -1..1."""
    output: Any = autoencoder.encode(x)  # pyright: ignore[reportArgumentType]
    return output.latent_dist


def decode(autoencoder: AutoencoderKL, z: Float[Tensor, "n 4 h w"]) -> Float[Tensor, "n 3 H W"]:
    """Pictures, about -1..1, of unscaled latents."""
    output: Any = autoencoder.decode(z)  # pyright: ignore[reportArgumentType]
    return output.sample


def scaling_factor(autoencoder: AutoencoderKL) -> float:
    """What latents are multiplied with to have unit variance."""
    config: Any = autoencoder.config
    return config.scaling_factor


def build_text_encoder(size: NetworkSize, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A CLIP text encoder for a tokenizer's vocabulary."""
    marks: Any = tokenizer
    start, end = marks.bos_token_id, marks.eos_token_id
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.text_width,
            intermediate_size=4 * size.text_width,
            projection_dim=size.text_width,
            num_hidden_layers=size.text_layers,
            num_attention_heads=4,
            max_position_embeddings=size.text_length,
            bos_token_id=start,
            eos_token_id=end,
            pad_token_id=end,
        )
    )


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )
