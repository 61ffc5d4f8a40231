"""Layers of StyleGAN2 (Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN").

Weights are drawn from N(0, 1) and scaled when used, by the gain `1 / sqrt(fan_in)` times the layer's learning-rate
multiplier ("equalised learning rate", Karras et al. 2018). Activations are leaky rectifiers of slope 0.2 times sqrt(2).

Resampling filters with the outer product B of [1, 3, 3, 1] / 8. A convolution W that changes the resolution and the
filter that goes with it are one linear map, and are computed as one: W * B is a 6 x 6 kernel of stride 2, which is
four 3 x 3 kernels, one for each phase of the pixels. So a plain convolution at the *lower* resolution does it, with
pixels taken apart or put together around it; it gives what the two steps give, without filtering at full size.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

SLOPE, GAIN = 0.2, math.sqrt(2)
_BINOMIAL = (0.125, 0.375, 0.375, 0.125)


def activated(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Leaky rectifier that keeps the variance of what goes in."""
    return F.leaky_relu(x, SLOPE) * GAIN


def normalise(z: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Latents of unit second moment: `z / sqrt(mean z^2 + 1e-8)`."""
    return z * (z.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


class EqualLinear(nn.Module):
    """`y = (gain W) x + m b`, gain `m / sqrt(inputs)`, with the learning-rate multiplier m."""

    def __init__(
        self, inputs: int, outputs: int, *, bias: float = 0.0, multiplier: float = 1.0, activate: bool = False
    ) -> None:
        """`bias` is what the bias starts at."""
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / multiplier)
        self.bias = nn.Parameter(torch.full((outputs,), bias))
        self.multiplier, self.gain, self.activate = multiplier, multiplier / math.sqrt(inputs), activate

    def forward(self, x: Float[Tensor, "n i"]) -> Float[Tensor, "n o"]:
        """Apply it."""
        y = F.linear(x, self.weight * self.gain, self.bias * self.multiplier)
        return activated(y) if self.activate else y


class EqualConv(nn.Module):
    """A convolution with bias and activation; with `down` at half the resolution, after a filter."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, down: bool = False, activate: bool = True) -> None:
        """Kernels of 1 x 1 or 3 x 3 weights."""
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.gain, self.down, self.activate = 1 / math.sqrt(inputs * kernel**2), down, activate

    def forward(self, x: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o H W"]:
        """Apply it."""
        weight = (self.weight * self.gain).to(x.dtype)
        if self.down:
            # A single weight in the middle of nine sees what it saw alone.
            y = halved_convolution(x, weight if weight.shape[-1] == 3 else F.pad(weight, (1, 1, 1, 1)))
        else:
            y = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
        y = y + self.bias.to(y.dtype)[:, None, None]
        return activated(y) if self.activate else y


class ModulatedConv(nn.Module):
    """A convolution whose weights are scaled by a style (Karras et al. 2020, Eq. 1 and 3).

    For a sample with the style `s = A w`, its weights are `w'_oikl = gain W_oikl s_i`, and with `demodulate` divided by
    `sqrt(sum_ikl w'^2 + 1e-8)`. Scales are applied to what goes in and comes out instead of to the weights, which is
    the same, so that one convolution serves all samples.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, style: int, *, demodulate: bool = True, up: bool = False
    ) -> None:
        """`up` doubles the resolution: a transposed convolution of stride 2 and a filter; kernels are then 3 x 3."""
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.affine = EqualLinear(style, inputs, bias=1.0)
        self.gain, self.demodulate, self.up = 1 / math.sqrt(inputs * kernel**2), demodulate, up

    def forward(self, x: Float[Tensor, "n i h w"], w: Float[Tensor, "n d"]) -> Float[Tensor, "n o H W"]:
        """Apply it."""
        scales, weight = self.affine(w), self.weight * self.gain
        x = x * scales.to(x.dtype)[:, :, None, None]
        if self.up:
            y = doubled_convolution(x, weight.to(x.dtype))
        else:
            y = F.conv2d(x, weight.to(x.dtype), padding=weight.shape[-1] // 2)
        if self.demodulate:
            energy = scales.square() @ weight.square().sum(dim=(2, 3)).T
            y = y * (energy + 1e-8).rsqrt().to(y.dtype)[:, :, None, None]
        return y


class StyledConv(nn.Module):
    """Modulated convolution, noise of one strength for all channels, bias, activation."""

    def __init__(self, inputs: int, outputs: int, style: int, *, up: bool = False) -> None:
        """3 x 3 kernels."""
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, 3, style, up=up)
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(
        self, x: Float[Tensor, "n i h w"], w: Float[Tensor, "n d"], noise: Float[Tensor, "#n 1 H W"] | None
    ) -> Float[Tensor, "n o H W"]:
        """Apply it; None adds no noise."""
        y = self.conv(x, w)
        if noise is not None:
            y = y + (self.noise_strength * noise).to(y.dtype)
        return activated(y + self.bias.to(y.dtype)[:, None, None])


class ToRGB(nn.Module):
    """Features to colours: a modulated 1 x 1 convolution without demodulation."""

    def __init__(self, inputs: int, style: int) -> None:
        """Three channels come out."""
        super().__init__()
        self.conv = ModulatedConv(inputs, 3, 1, style, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Float[Tensor, "n i h w"], w: Float[Tensor, "n d"]) -> Float[Tensor, "n 3 h w"]:
        """Colours, float32 at least: they are added up over the resolutions."""
        y = self.conv(x, w)
        return (y if y.dtype == torch.float64 else y.float()) + self.bias[:, None, None]


def doubled(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c H W"]:
    """Pictures at twice their size: zeros between the pixels, then the filter 4 B."""
    kernel = 4 * _filter(images)[None, None].expand(images.shape[1], 1, 4, 4)
    return F.conv_transpose2d(images, kernel, stride=2, padding=1, groups=images.shape[1])


def doubled_convolution(x: Float[Tensor, "n i h w"], weight: Float[Tensor, "o i 3 3"]) -> Float[Tensor, "n o H W"]:
    """Transposed convolution of stride 2, then the filter 4 B, cut to twice the size."""
    outputs, inputs = weight.shape[:2]
    kernel = 4 * _with_filter(weight)
    # Pixel (2 y + a, 2 x + b) of the result sees rows y - 1, y, y + 1 of x through rows 4 + a, 2 + a, a of the kernel.
    phases = torch.stack([kernel[:, :, a::2, b::2].flip(2, 3) for a in (0, 1) for b in (0, 1)], dim=1)
    return F.pixel_shuffle(F.conv2d(x, phases.reshape(4 * outputs, inputs, 3, 3), padding=1), 2)


def halved_convolution(x: Float[Tensor, "n i h w"], weight: Float[Tensor, "o i 3 3"]) -> Float[Tensor, "n o H W"]:
    """The filter B, then a convolution of stride 2, so that each side is halved."""
    outputs, inputs = weight.shape[:2]
    kernel = _with_filter(weight)
    phases = torch.stack([kernel[:, :, a::2, b::2] for a in (0, 1) for b in (0, 1)], dim=2)
    return F.conv2d(F.pixel_unshuffle(x, 2), phases.reshape(outputs, 4 * inputs, 3, 3), padding=1)


def _with_filter(weight: Float[Tensor, "o i 3 3"]) -> Float[Tensor, "o i 6 6"]:
    """The kernel of both one after the other: the full convolution of W and B."""
    # As a product with what the convolution makes of the nine unit kernels: W holds thousands of kernels, B is one.
    units = torch.eye(9, dtype=weight.dtype, device=weight.device).reshape(9, 1, 3, 3)
    # B is symmetric, so that torch's correlation is a convolution.
    filtered = F.conv2d(units, _filter(weight)[None, None], padding=3).reshape(9, 36)
    return (weight.reshape(-1, 9) @ filtered).reshape(*weight.shape[:2], 6, 6)


def _filter(like: Tensor) -> Float[Tensor, "4 4"]:
    line = torch.tensor(_BINOMIAL, dtype=like.dtype, device=like.device)
    return torch.outer(line, line)
