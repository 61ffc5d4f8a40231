"""From latents to colours by one linear map, where a field that was trained on latents goes on with colours.

Latents of diffusion autoencoders are nearly linear in the mean colour of the pixels that they stand for. Latent-NeRF
(Metzer et al. 2023, Section 3.3) starts its refinement in colour from such a map, with coefficients for Stable
Diffusion; here it is fitted to the object's own decoded views, which works for any autoencoder.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class LatentToRgb:
    """colour = `weight` @ latent + `bias`, colours in 0..1."""

    weight: Float[Tensor, "3 c"]
    bias: Float[Tensor, " 3"]
    explained: float
    """Share of the colours' variance that the map explains on what it was fitted to (R^2), at most 1."""

    def __call__(self, latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 h w"]:
        """Colours, not clamped."""
        return torch.einsum("kc,nchw->nkhw", self.weight, latents) + self.bias[:, None, None]


def fit_latent_to_rgb(latents: Float[Tensor, "n c h w"], pictures: Float[Tensor, "n 3 H W"]) -> LatentToRgb:
    """Least squares between latents and the pictures (0..1) that they decode to, averaged down to their size.

    Raises `ValueError` if the pictures are no multiple of the latents in size, or if there are fewer latent pixels than
    coefficients.
    """
    height, width = latents.shape[-2:]
    if pictures.shape[-2] % height or pictures.shape[-1] % width:
        raise ValueError(f"pictures of {tuple(pictures.shape[-2:])} for latents of {(height, width)}: give a multiple")
    channels = latents.shape[1]
    if len(latents) * height * width <= channels + 1:
        raise ValueError(f"{len(latents) * height * width} latent pixels are too few for {channels + 1} coefficients")
    colours = F.adaptive_avg_pool2d(pictures.double(), (height, width)).movedim(1, -1).reshape(-1, 3)
    flat = latents.double().movedim(1, -1).reshape(-1, channels)
    known = torch.cat([flat, torch.ones_like(flat[:, :1])], 1)
    # A pseudo-inverse, for channels may be constant: an object before plain white.
    solution = torch.linalg.pinv(known, rtol=1e-10) @ colours
    rest = (colours - known @ solution).square().sum()
    spread = (colours - colours.mean(0)).square().sum()
    explained = 1.0 - float(rest / spread) if spread > 0 else 1.0
    solution = solution.to(latents.dtype)
    return LatentToRgb(solution[:channels].T.contiguous(), solution[channels], explained)
