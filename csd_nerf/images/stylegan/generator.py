"""The generator of StyleGAN2: a mapping network z -> w, and a synthesis network of skip architecture w -> picture.

A generator of size 2^k has 2 k - 2 styles w_0, w_1, ...: convolution i takes w_i, the colours of resolution 2^(r + 2)
take w_(2r + 1). Pictures come out in about -1..1; `pictures` brings them to [0, 1].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from csd_nerf.images.stylegan.layers import EqualLinear, StyledConv, ToRGB, doubled, normalise

Noise = Literal["fixed", "random", "none"]
MAPPING_RATE = 0.01
"""Learning-rate multiplier of the mapping network, in all published checkpoints."""


@dataclass(frozen=True)
class GeneratorShape:
    """What decides the shapes of a generator's weights."""

    channels: tuple[int, ...]
    """Features at 4 x 4, 8 x 8, ... pixels, one for each resolution."""
    style: int = 512
    """Length of z and of w."""
    mapping_layers: int = 8

    def __post_init__(self) -> None:
        """Raise `ValueError`, naming the field, for what has no weights."""
        if not self.channels or min(self.channels) < 1:
            said = " ".join(map(str, self.channels)) or "nothing"
            raise ValueError(f"channels={said}: give one number of features, 1 or more, for each resolution")
        for name in ("style", "mapping_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: give at least 1")

    @property
    def size(self) -> int:
        """Pixels along a side."""
        return 4 * 2 ** (len(self.channels) - 1)

    @property
    def styles(self) -> int:
        """How many styles w a picture takes."""
        return 2 * len(self.channels)


class MappingNetwork(nn.Module):
    """z of any length, normalised, through linear layers with activation."""

    def __init__(self, shape: GeneratorShape) -> None:
        """All layers are of one width."""
        super().__init__()
        self.layers = nn.Sequential(
            *(
                EqualLinear(shape.style, shape.style, multiplier=MAPPING_RATE, activate=True)
                for _ in range(shape.mapping_layers)
            )
        )

    def forward(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Styles w."""
        return self.layers(normalise(z))


class Generator(nn.Module):
    """StyleGAN2's generator."""

    mean_w: Tensor

    def __init__(self, shape: GeneratorShape) -> None:
        """Random weights."""
        super().__init__()
        self.shape = shape
        self.mapping = MappingNetwork(shape)
        first, *others = shape.channels
        self.constant = nn.Parameter(torch.randn(first, 4, 4))
        self.convs = nn.ModuleList([StyledConv(first, first, shape.style)])
        self.to_rgb = nn.ModuleList([ToRGB(first, shape.style)])
        before = first
        for channels in others:
            self.convs.append(StyledConv(before, channels, shape.style, up=True))
            self.convs.append(StyledConv(channels, channels, shape.style))
            self.to_rgb.append(ToRGB(channels, shape.style))
            before = channels
        self.register_buffer("mean_w", torch.zeros(shape.style))
        for index in range(len(self.convs)):
            side = self.noise_side(index)
            self.register_buffer(f"noise_{index}", torch.randn(side, side))

    def noise_side(self, index: int) -> int:
        """Side of convolution `index`'s result."""
        return 4 * 2 ** ((index + 1) // 2)

    def styles(self, z: Float[Tensor, "n d"], truncation: float = 1.0) -> Float[Tensor, "n l d"]:
        """Styles w of all layers, drawn towards their mean: `mean_w + truncation (w - mean_w)`."""
        w = self.mapping(z)
        if truncation != 1:
            w = torch.lerp(self.mean_w.to(w), w, truncation)
        return w[:, None].expand(-1, self.shape.styles, -1)

    def noise(
        self, kind: Noise, count: int, generator: torch.Generator | None = None
    ) -> list[Float[Tensor, "_n 1 _h _w"] | None]:
        """What is added after each convolution: the checkpoint's own noise, new noise for each sample, or nothing.

        Random noise is drawn on the CPU from `generator`.
        """
        if kind == "none":
            return [None] * len(self.convs)
        sides = [self.noise_side(index) for index in range(len(self.convs))]
        if kind == "fixed":
            return [self.get_buffer(f"noise_{index}")[None, None] for index in range(len(sides))]
        return [torch.randn(count, 1, side, side, generator=generator).to(self.constant.device) for side in sides]

    def synthesise(
        self, styles: Float[Tensor, "n l d"], noise: Sequence[Float[Tensor, "_n 1 _h _w"] | None]
    ) -> Float[Tensor, "n 3 s s"]:
        """Pictures, about -1..1."""
        x = self.constant.expand(len(styles), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        colours = None
        for index, conv in enumerate(self.convs):
            x = conv(x, styles[:, index], noise[index])
            if index % 2 == 0:
                level = index // 2
                own = self.to_rgb[level](x, styles[:, 2 * level + 1])
                colours = own if colours is None else doubled(colours) + own
        assert colours is not None
        return colours

    def forward(
        self,
        z: Float[Tensor, "n d"],
        *,
        truncation: float = 1.0,
        noise: Noise = "fixed",
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "n 3 s s"]:
        """Pictures of latents, about -1..1."""
        return self.synthesise(self.styles(z, truncation), self.noise(noise, len(z), generator))

    @torch.no_grad()
    def measure_mean_w(self, generator: torch.Generator, samples: int = 4096) -> Float[Tensor, " d"]:
        """The mean of w over random z, which truncation draws towards; it is kept in `mean_w`."""
        z = torch.randn(samples, self.shape.style, generator=generator).to(self.constant.device)
        self.mean_w.copy_(self.mapping(z).mean(dim=0))
        return self.mean_w


def pictures(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """What a generator gives as pictures in [0, 1]; colours outside are cut."""
    return (images / 2 + 0.5).clamp(0, 1)
