"""Text-to-image latent diffusion (Rombach et al. 2022): Stable Diffusion 1.x and 2.x and models of their shape."""

from jaxtyping import Float
from torch import Tensor

from csd_nerf.distill.types import Condition
from csd_nerf.priors.latent_diffusion import LatentDiffusionPrior


def check_no_image(name: str, condition: Condition) -> None:
    """Raise `ValueError` if a text-to-image model is given a picture, since it would be ignored."""
    if condition.image is not None:
        raise ValueError(
            f"prior {name!r} is a text-to-image model and has no image input: give no image condition, or "
            "use 'toy', 'instruct-pix2pix' or another InstructPix2Pix"
        )


class TextToImagePrior(LatentDiffusionPrior):
    """Knows what pictures of its text look like."""

    def network_input(self, x_t: Float[Tensor, "n c h w"], condition: Condition) -> Float[Tensor, "n c h w"]:
        """The noisy latents. Raises `ValueError` if a picture is given, since it would be ignored."""
        check_no_image(self.name, condition)
        return x_t
