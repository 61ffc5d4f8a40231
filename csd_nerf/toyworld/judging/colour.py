"""CIE Lab, where distances follow the eye."""

import torch
from jaxtyping import Float
from torch import Tensor

_TO_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
_WHITE = (0.95047, 1.0, 1.08883)  # D65


def to_lab(images: Float[Tensor, "n 3 h w"], lightness: float = 1.0) -> Float[Tensor, "n 3 h w"]:
    """Lab (D65) of sRGB pictures (0..1, clipped), divided by 100; `lightness` weighs L against a and b."""
    srgb = images.clamp(0, 1)
    linear = torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    matrix = torch.tensor(_TO_XYZ).to(images) / torch.tensor(_WHITE).to(images)[:, None]
    xyz = torch.einsum("ij,njhw->nihw", matrix, linear)
    f = torch.where(xyz > 0.008856, xyz.clamp_min(1e-6) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = f.unbind(1)
    return torch.stack([lightness * (1.16 * y - 0.16), 5 * (x - y), 2 * (y - z)], 1)
