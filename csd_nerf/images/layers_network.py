"""Text2LIVE's generator of an edit layer (Bar-Tal et al. 2022, Section 3.1): a skip network of several scales.

The architecture is that of the deep image prior (Ulyanov et al. 2018), with Text2LIVE's sizes: at each scale a
stride-2 and a plain 3x3 convolution lead down, a 1x1 convolution of few channels leads across, and from below come
bilinearly enlarged features; both are concatenated and pass a 3x3 and a 1x1 convolution. A last 1x1 convolution and a
sigmoid give colour and opacity. Normalisation is by the statistics of the batch, always: the network is trained on one
picture and asked about that picture. Features of the largest scale are not normalised after their 1x1 convolution (so
in Text2LIVE's code): of a layer that should cover all of the picture, normalised features can be even in all places but
one, where they then are far off, and opacity there falls into a hole. Text2LIVE's code differs in one place: it mixes
the three colours by a fixed matrix before the sigmoid.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

DOWN_UP, ACROSS, SCALES = 128, 4, 7
"""`skip_n33d` and `skip_n33u`, `skip_n11` and `num_scales` of Text2LIVE's configuration for images."""


class SkipNetwork(nn.Module):
    """A picture in [0, 1] to an RGBA layer in [0, 1] of the same size; any size of at least two pixels a side."""

    def __init__(self, width: int = DOWN_UP, across: int = ACROSS, scales: int = SCALES) -> None:
        """Raises `ValueError` for fewer than one channel or scale."""
        super().__init__()
        if min(width, across, scales) < 1:
            raise ValueError(f"width={width}, across={across}, scales={scales}: give at least 1 of each")
        self.down = nn.ModuleList(
            nn.Sequential(_block(width if i else 3, width, 3, stride=2), _block(width, width, 3)) for i in range(scales)
        )
        self.across = nn.ModuleList(_block(width if i else 3, across, 1) for i in range(scales))
        self.join = nn.ModuleList(
            nn.Sequential(
                _norm(width + across), _block(width + across, width, 3), _block(width, width, 1, norm=scale > 0)
            )
            for scale in range(scales)
        )
        self.out = nn.Conv2d(width, 4, 1)

    def forward(self, picture: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 4 h w"]:
        """Colour (the first three channels, not premultiplied) and opacity."""
        hidden, kept = picture * 2 - 1, []
        for down, across in zip(self.down, self.across, strict=True):
            kept.append(across(hidden))
            # At a side of one pixel there is nothing left to reflect or to normalise over.
            hidden = down(hidden) if min(hidden.shape[-2:]) > 3 else _flat(hidden, self.out.in_channels)
        for side, join in zip(reversed(kept), reversed(self.join), strict=True):  # pyright: ignore[reportArgumentType]
            hidden = interpolate(hidden, size=side.shape[-2:], mode="bilinear", align_corners=False)
            hidden = join(torch.cat([side, hidden], dim=1))
        return torch.sigmoid(self.out(hidden))


def _flat(hidden: Tensor, channels: int) -> Tensor:
    """Nothing from below."""
    return hidden.new_zeros((len(hidden), channels, *hidden.shape[-2:]))


def _block(channels: int, to: int, size: int, stride: int = 1, norm: bool = True) -> nn.Sequential:
    pad = "reflect" if size > 1 else "zeros"
    convolution = nn.Conv2d(channels, to, size, stride, size // 2, padding_mode=pad)
    return nn.Sequential(convolution, _norm(to) if norm else nn.Identity(), nn.LeakyReLU(0.2))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, track_running_stats=False)
