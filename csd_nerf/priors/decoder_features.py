"""Features of a frozen autoencoder's decoder, for feature matching (LDP Section 3.2).

Levels are named as in diffusers' `AutoencoderKL`: `conv_in`, `mid_block`, `up_blocks.0`, ... A block's features are
what leaves it, its upsampling included: with Stable Diffusion's 4 x 64 x 64 latents

    up_blocks.0   512 x 128 x 128      up_blocks.1   512 x 256 x 256
    up_blocks.2   256 x 512 x 512      up_blocks.3   128 x 512 x 512

`AutoencoderTiny` (TAESD) is one sequence of layers: there `conv_in` is its first convolution and `up_blocks.i` ends
with the convolution after the i-th upsampling, or before the output; it has no `mid_block`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from csd_nerf.distill.types import ImagePrior
from csd_nerf.priors.autoencoder import Autoencoder

DEFAULT_LEVELS = ("up_blocks.0", "up_blocks.1", "up_blocks.2")
"""LDP takes "three different layers" and does not say which."""

MATCHED_PIXELS = 1 << 19
"""In one call of the decoder that keeps what its gradient needs (some GB): v and v' of one of Stable Diffusion's
pictures, or of many small ones."""


def matched_together(height: int, width: int) -> int:
    """How many particles may be matched in one call, by the size of their pictures in pixels: memory stays bounded."""
    return max(1, MATCHED_PIXELS // (2 * height * width))


class DecoderFeatures:
    """A `FeatureDecoder`: scaled latents to features, differentiable although the network is frozen.

    Nothing deeper than the deepest level is computed. The network runs in its own precision; features and the gradient
    into the latents are float32.
    """

    def __init__(self, autoencoder: Autoencoder, levels: Sequence[str] = DEFAULT_LEVELS) -> None:
        """Raises `ValueError` for levels that the decoder does not have, or none."""
        self.autoencoder, self.levels = autoencoder, tuple(levels)
        vae = autoencoder.vae
        blocks = _kl_blocks(vae) if autoencoder.has_posterior else _tiny_blocks(vae)
        unknown = [level for level in self.levels if level not in blocks]
        if unknown or not self.levels or len(set(self.levels)) != len(self.levels):
            raise ValueError(
                f"levels {list(self.levels)} of a {type(vae).__name__} decoder: choose from {', '.join(blocks)}, "
                "each once and at least one"
            )
        last = max(list(blocks).index(level) for level in self.levels)
        self._blocks = dict(list(blocks.items())[: last + 1])

    def __call__(self, latents: Float[Tensor, "n c h w"]) -> list[Float[Tensor, "n f H W"]]:
        """Features at each level, in the order in which they were asked for; all rows go through in one call."""
        codec = self.autoencoder
        with torch.autocast(codec.device.type, enabled=False):
            hidden = latents.to(codec.device, torch.float32) / codec.scaling_factor + codec.shift_factor
            if not codec.has_posterior:
                hidden = 3 * torch.tanh(hidden / 3)  # as TAESD clamps its input
            hidden, found = hidden.to(codec.dtype), {}
            for name, block in self._blocks.items():
                hidden = block(hidden)
                if name in self.levels:
                    found[name] = hidden.float()
        return [found[level] for level in self.levels]


def decoder_of(prior: ImagePrior, levels: Sequence[str] = DEFAULT_LEVELS) -> DecoderFeatures:
    """The decoder of a latent diffusion model. Raises `ValueError` for levels it has not, and for models on pixels."""
    autoencoder = getattr(prior, "autoencoder", None)
    if not isinstance(autoencoder, Autoencoder):
        raise ValueError(
            f"prior {prior.name!r} works on pixels and has no decoder to match features in: set lambda_fm=0, or take a "
            "latent diffusion model"
        )
    return DecoderFeatures(autoencoder, levels)


def _kl_blocks(vae: Any) -> dict[str, nn.Module]:
    decoder = vae.decoder
    first = decoder.conv_in if vae.post_quant_conv is None else nn.Sequential(vae.post_quant_conv, decoder.conv_in)
    ups = {f"up_blocks.{i}": block for i, block in enumerate(decoder.up_blocks)}
    return {"conv_in": first, "mid_block": decoder.mid_block, **ups}


def _tiny_blocks(vae: Any) -> dict[str, nn.Module]:
    """Cut the sequence behind the first activation and behind each convolution that follows an upsampling."""
    *layers, _ = vae.decoder.layers
    ends = [2, *(place + 2 for place, layer in enumerate(layers) if isinstance(layer, nn.Upsample)), len(layers)]
    names = ["conv_in", *(f"up_blocks.{i}" for i in range(len(ends) - 1))]
    return {name: nn.Sequential(*layers[start:end]) for name, start, end in zip(names, [0, *ends], ends, strict=False)}
