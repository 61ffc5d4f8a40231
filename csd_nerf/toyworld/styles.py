"""Picture styles as deterministic functions of pictures (0..1 sRGB, any size).

Lengths in pixels are for a picture of 64 pixels and grow with its height. Nothing is drawn at random: what looks like
noise (dabs, hatching) is a fixed pattern, so one picture always gives the same styled picture.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def luminance(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1 h w"]:
    """Luma of sRGB pictures, 0..1."""
    return (images * torch.tensor([0.299, 0.587, 0.114], device=images.device)[:, None, None]).sum(1, keepdim=True)


def blur(images: Float[Tensor, "n c h w"], sigma: float) -> Float[Tensor, "n c h w"]:
    """Gaussian blur, sigma in pixels, borders repeated."""
    reach = max(1, int(math.ceil(2.5 * sigma)))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=images.device) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, -1)
    padded = F.pad(images, (reach, reach, reach, reach), mode="replicate")
    across = F.conv2d(padded, kernel[:, :, None, :], groups=images.shape[1])
    return F.conv2d(across, kernel[:, :, :, None], groups=images.shape[1])


def gradients(images: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n c h w"]]:
    """Horizontal and vertical central differences, per pixel."""
    p = F.pad(images, (1, 1, 1, 1), mode="replicate")
    return (p[:, :, 1:-1, 2:] - p[:, :, 1:-1, :-2]) / 2, (p[:, :, 2:, 1:-1] - p[:, :, :-2, 1:-1]) / 2


def pencil_sketch(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """Grey lines at edges and diagonal hatching in the shadows, on warm white paper."""
    unit = images.shape[2] / 64
    grey = luminance(images)
    fine = blur(images, 0.45 * unit)
    gx, gy = gradients(fine)
    edge = (gx.square() + gy.square()).sum(1, keepdim=True).sqrt() * unit
    lines = ((edge - 0.045) / 0.24).clamp(0, 1)
    rows = torch.arange(images.shape[2], device=images.device)[:, None] / unit
    columns = torch.arange(images.shape[3], device=images.device)[None] / unit
    first = 0.5 + 0.5 * torch.sin((rows + columns) * (2 * math.pi / 4.0))
    second = 0.5 + 0.5 * torch.sin((rows - columns) * (2 * math.pi / 4.0))
    soft = blur(grey, 0.8 * unit)
    hatch = ((0.60 - soft) / 0.35).clamp(0, 1) * first + ((0.34 - soft) / 0.25).clamp(0, 1) * second
    tone = 0.93 - 0.17 * (1 - soft) - 0.30 * hatch - 0.66 * lines
    paper = torch.tensor([1.0, 0.985, 0.955], device=images.device)[:, None, None]
    return (tone.clamp(0.06, 1) * paper).clamp(0, 1)


def oil_painting(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """Rich warm paint in flat patches (Kuwahara filter), smeared along the shapes and lit across its ridges.

    The strokes come from the picture and from a pattern of dabs that repeats every 16 pixels, not from noise: where
    noise puts a stroke nobody could tell from the picture, so no model could learn it.
    """
    unit = images.shape[2] / 64
    grey = luminance(images)
    flat = _kuwahara(images, max(1, round(2 * unit)))
    level = luminance(flat)
    flat = (level + 1.6 * (flat - level)).clamp(0, 1)
    flat = (flat + 0.4 * (flat - 0.5) * (1 - (2 * flat - 1).abs())).clamp(0, 1)
    paint = _smear(flat, grey, unit)
    gx, gy = gradients(luminance(paint))
    ridges = (2.0 * unit * (gx + gy)).clamp(-0.14, 0.14)  # light from the upper left
    bristles = _smear(grey - blur(grey, 1.6 * unit), grey, unit).clamp(-0.1, 0.1)
    dabs = _dabs(*images.shape[2:], unit).to(images)
    warm = torch.tensor([1.06, 1.0, 0.88], device=images.device)[:, None, None]
    return (paint * warm * (1 + ridges + 1.5 * bristles + 0.09 * dabs) + 0.027 * dabs).clamp(0, 1)


def _kuwahara(images: Float[Tensor, "n 3 h w"], radius: int) -> Float[Tensor, "n 3 h w"]:
    """Mean of the least varied of four squares around each pixel, softly chosen."""
    padded = F.pad(images, (radius,) * 4, mode="replicate")
    mean = F.avg_pool2d(padded, radius + 1, 1)
    square = F.avg_pool2d(padded.square(), radius + 1, 1)
    spread = (square - mean.square()).sum(1, keepdim=True)
    h, w = images.shape[2:]
    corners = [(0, 0), (0, radius), (radius, 0), (radius, radius)]
    means = torch.stack([mean[:, :, y : y + h, x : x + w] for y, x in corners])
    spreads = torch.stack([spread[:, :, y : y + h, x : x + w] for y, x in corners])
    weight = torch.softmax(-spreads / (0.1 * spreads.mean(0) + 2e-5), 0)
    return (weight * means).sum(0)


def _smear(images: Float[Tensor, "n c h w"], grey: Float[Tensor, "n 1 h w"], unit: float) -> Float[Tensor, "n c h w"]:
    """Pictures averaged over five pixels along the contours of `grey` (its structure tensor's weak direction)."""
    gx, gy = gradients(blur(grey, 1.0 * unit))
    xx, yy, xy = (blur(product, 2.0 * unit) for product in (gx * gx, gy * gy, gx * gy))
    # A trace of across: where the picture is flat the smear runs down, and not wherever rounding points.
    angle = 0.5 * torch.atan2(2 * xy, xx + 1e-5 - yy) + math.pi / 2
    step_x, step_y = torch.cos(angle)[:, 0], torch.sin(angle)[:, 0]
    h, w = grey.shape[2:]
    y, x = torch.meshgrid(torch.arange(h, device=grey.device), torch.arange(w, device=grey.device), indexing="ij")
    total = torch.zeros_like(images)
    for reach in (-2, -1, 0, 1, 2):
        u = (x + reach * unit * step_x + 0.5) / w * 2 - 1
        v = (y + reach * unit * step_y + 0.5) / h * 2 - 1
        total = total + F.grid_sample(images, torch.stack([u, v], -1), align_corners=False, padding_mode="reflection")
    return total / 5


@lru_cache(maxsize=16)
def _dabs(height: int, width: int, unit: float) -> Float[Tensor, "h w"]:
    """Short curved strokes from lower left to upper right, -1..1, eight pixels apart."""
    row = torch.arange(height)[:, None] * (2 * math.pi / unit)
    column = torch.arange(width)[None] * (2 * math.pi / unit)
    strokes = torch.sin((row + column) / 8 + 1.4 * torch.sin(column / 16) + 0.9 * torch.sin(row / 16))
    length = 0.55 + 0.45 * torch.sin((row - column) / 16 + torch.sin((row + column) / 16))
    return strokes * length


_POP_CHANNELS = (2, 0, 1)
_POP_LIMITS = ((0.24, 0.66), (0.52, 0.84), (0.30, 0.58))  # a pair per channel, so that greys become colourful too


def pop_art(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """Colours swapped around the wheel and printed in three flat tones per channel."""
    grey = luminance(images)
    vivid = blur(grey + 1.5 * (images - grey), 0.45 * images.shape[2] / 64)[:, _POP_CHANNELS]
    limits = torch.tensor(_POP_LIMITS, device=images.device)[:, :, None, None]
    low = ((vivid - limits[:, 0]) / 0.03 + 0.5).clamp(0, 1)
    high = ((vivid - limits[:, 1]) / 0.03 + 0.5).clamp(0, 1)
    return 0.06 + 0.47 * low + 0.47 * high


def day_for_night(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """A photo as if taken by moonlight: dark, blue, little colour left, bright skies dimmed most."""
    faded = 0.6 * luminance(images) + 0.4 * images
    moon = torch.tensor([0.55, 0.72, 1.25], device=images.device)[:, None, None]
    return (0.6 * faded**1.3 * (1 - 0.5 * faded.square()) * moon).clamp(0, 1)


STYLES: dict[str, Callable[[Tensor], Tensor]] = {"sketch": pencil_sketch, "oil": oil_painting, "popart": pop_art}
PHOTO_STYLES: dict[str, Callable[[Tensor], Tensor]] = {"night": day_for_night}
"""Edits that are true in 3D on a toy scene and only imitated on a photo."""
