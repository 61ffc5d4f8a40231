"""Pixels of pictures with more than 8 bits a channel, which Pillow would cut down to 8."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import ImageFile
from torch import Tensor

_PHOTOMETRIC, _EXTRA_SAMPLES = 262, 338
_WHITE_IS_ZERO, _ASSOCIATED = 0, 1


def is_deep(opened: ImageFile.ImageFile) -> bool:
    """More than 8 bits a channel. Pillow decodes 16-bit colour to 8 bits, and says so in the raw mode alone.

    Of CMYK it is right to: OpenCV does not read that.
    """
    deep = opened.mode.startswith(("I", "F")) or any(";16" in str(tile) for tile in opened.tile or [])
    return deep and opened.mode != "CMYK"


def read_deep(
    path: Path, opened: ImageFile.ImageFile
) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "h w"] | None, int]:
    """Colours in [0, 1], not premultiplied, opacity if there is one, and bits a channel; TIFFs are turned already.

    OpenCV keeps 16 bits, but passes over what is missing of a file cut short: Pillow decodes it first. Raises
    `ValueError` that names the file for more than 16 bits.
    """
    import cv2

    opened.load()
    level = cv2.getLogLevel()
    cv2.setLogLevel(0)  # it prints what is wrong, and what is said of it here is enough
    try:
        pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    finally:
        cv2.setLogLevel(level)
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"{path} has more than 16 bits a channel or no levels that are known: save it with 16 or 8 bits"
        )
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    colours = unit(pixels[..., 2::-1] if pixels.shape[-1] > 2 else pixels[..., :1])
    alpha = unit(pixels[..., 3]) if pixels.shape[-1] == 4 else None
    tags = getattr(opened, "tag_v2", {})
    if is_inverted(opened):
        colours = 1 - colours
    if alpha is not None and _ASSOCIATED in tags.get(_EXTRA_SAMPLES, ()):
        colours = torch.where(alpha > 0, colours / alpha.clamp(min=1e-6), colours).clamp(max=1)
    return colours, alpha, 16 if pixels.dtype == np.uint16 else 8


def is_inverted(opened: ImageFile.ImageFile) -> bool:
    """A TIFF in grey whose 0 is white, which is not turned over where its bits are read as they are."""
    return getattr(opened, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO


def unit(pixels: Any) -> Float[Tensor, "..."]:
    """Integer pixels (h w, or h w c with c of 1 or 3) in [0, 1], as (h w) or (3 h w), with no second copy in float."""
    levels = float(np.iinfo(pixels.dtype).max)
    if pixels.ndim == 2:
        return torch.from_numpy(pixels.astype(np.float32)).div_(levels)
    image = np.empty((3, *pixels.shape[:2]), np.float32)
    for channel in range(3):
        image[channel] = pixels[..., channel if pixels.shape[-1] == 3 else 0]
    return torch.from_numpy(image).div_(levels)
