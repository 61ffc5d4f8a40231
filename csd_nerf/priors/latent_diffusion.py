"""What all latent diffusion priors share: pictures become particles, and particles pictures, by an autoencoder."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from csd_nerf.priors.autoencoder import Autoencoder
from csd_nerf.priors.diffusion import DiffusionPrior, Networks


@dataclass(frozen=True)
class Components(Networks):
    """The parts of a latent diffusion model, all on one device."""

    autoencoder: Autoencoder


class LatentDiffusionPrior(DiffusionPrior):
    """A frozen latent diffusion model, an `ImagePrior`. Subclasses say what the network's input is."""

    def __init__(self, components: Components, *, name: str, batch_size: int | None = None) -> None:
        """`batch_size` bounds the rows of one network call (and so memory); None sends all rows at once.

        Raises `ValueError` for a batch size below 1.
        """
        super().__init__(components, name=name, factor=components.autoencoder.factor, batch_size=batch_size)
        self.autoencoder = components.autoencoder

    def encode(self, images: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n c h w"]:
        """Latents of pictures in [0, 1] whose sides are multiples of `factor`: the scaled mode of the posterior."""
        return self.autoencoder.encode(images)

    def encode_attached(self, images: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n c h w"]:
        """As `encode`, with autograd from the latents to the pictures; all pictures go through in one call."""
        return self.autoencoder.encode_attached(images)

    def decode(self, latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 H W"]:
        """Pictures, clamped to [0, 1], float32; what overflows becomes NaN."""
        return self.autoencoder.decode(latents)
