"""DeepFloyd IF, stage I (Shonenkov et al. 2023): text to pictures of 64 x 64 pixels, without an autoencoder.

CSD's text-to-3D experiments use it (CSD D.2, guidance scale 20). The hub has three sizes: DeepFloyd/IF-I-XL-v1.0,
IF-I-L-v1.0 and IF-I-M-v1.0. Particles are pictures in [-1, 1]:

    encode   x = 2 picture - 1        decode   picture = (x + 1) / 2, clamped to [0, 1]

The network answers with six channels, the noise and then a variance for ancestral sampling, which distillation has no
use for. Its schedule is the cosine one, whose last alpha_t is 5e-5: at t near 1 the picture that eps implies, `(x_t -
sigma_t eps) / alpha_t`, is all rounding. SDS stays below t = 0.98; plain `sample` from pure noise does not.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.distill.types import Condition
from csd_nerf.priors.diffusion import DiffusionPrior, Networks
from csd_nerf.priors.text_to_image import check_no_image

CHANNELS = 3


class DeepFloydPrior(DiffusionPrior):
    """Knows what small pictures of its text look like. Particles are the pictures themselves, at any size."""

    def __init__(self, networks: Networks, *, name: str, batch_size: int | None = None) -> None:
        """`batch_size` bounds the rows of one network call (and so memory); None sends all rows at once."""
        super().__init__(networks, name=name, factor=1, batch_size=batch_size)

    def network_input(self, x_t: Float[Tensor, "n c h w"], condition: Condition) -> Float[Tensor, "n c h w"]:
        """The noisy pictures. Raises `ValueError` for an image condition and for anything but three channels."""
        check_no_image(self.name, condition)
        if x_t.shape[1] != CHANNELS:
            raise ValueError(
                f"particles of {x_t.shape[1]} channels: prior {self.name!r} works on pixels, so that they are pictures "
                "of 3 channels"
            )
        return x_t

    def encode(self, images: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n 3 H W"]:
        """Pictures in [0, 1] as pictures in [-1, 1], float32."""
        return self.encode_attached(images.detach())

    def encode_attached(self, images: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n 3 H W"]:
        """As `encode`, with autograd from the particles to the pictures."""
        return images.to(self.device, torch.float32) * 2 - 1

    def decode(self, latents: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n 3 H W"]:
        """Pictures in [-1, 1] as pictures in [0, 1], float32: clamped, but what is not finite becomes NaN."""
        pictures = latents.detach().to(self.device, torch.float32)
        return torch.where(pictures.isfinite(), (pictures / 2 + 0.5).clamp(0, 1), torch.nan)

    def _call(self, inputs: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        return super()._call(inputs, timestep, text)[:, :CHANNELS]
