"""InstructPix2Pix (Brooks et al. 2023): the encoded source picture enters as additional input channels."""

import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.distill.types import Condition
from csd_nerf.priors.latent_diffusion import LatentDiffusionPrior


class InstructPix2PixPrior(LatentDiffusionPrior):
    """Edits the picture of its image condition as its text says."""

    takes_image = True

    def network_input(self, x_t: Float[Tensor, "n c h w"], condition: Condition) -> Float[Tensor, "n k h w"]:
        """Noisy latents and the image condition, side by side; without a picture, zeros as in training."""
        image = torch.zeros_like(x_t) if condition.image is None else condition.image.to(x_t)
        if image.shape != x_t.shape:
            raise ValueError(f"image condition of shape {tuple(image.shape)} for particles of shape {tuple(x_t.shape)}")
        return torch.cat([x_t, image], dim=1)

    def encode_condition(
        self, images: Float[Tensor, "n 3 H W"], *, scaled_sample: torch.Generator | None = None
    ) -> Float[Tensor, "n c h w"]:
        """The posterior's mode, not scaled; with a generator, a scaled posterior sample (see `autoencoder`)."""
        return self.autoencoder.encode_condition(images, scaled_sample=scaled_sample)
