"""Pictures in 8 bits, as files and videos hold them, or in [0, 1].

Metrics take both, and convert them part by part: in float32 a video takes four times the memory.
"""

import torch
from jaxtyping import Float, Real, UInt8
from torch import Tensor


def unit(images: Real[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n 3 h w"]:
    """8-bit pictures in [0, 1], as float32; others as they are."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


def eight_bit(images: Real[Tensor, "*n 3 h w"]) -> UInt8[Tensor, "*n 3 h w"]:
    """Pictures in [0, 1], cut to it, as the nearest of 256 levels; 8-bit ones as they are.

    Raises `ValueError` for what is not finite: as a level it would be black, and get a score like any other.
    """
    if images.dtype == torch.uint8:
        return images
    if not torch.isfinite(images).all():
        raise ValueError("a picture holds numbers that are not finite: there is nothing in it to score")
    return (255 * images.clamp(0, 1)).round().byte()
