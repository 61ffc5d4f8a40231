"""The discriminator of StyleGAN2: residual blocks down to 4 x 4 pixels, and the spread within the batch."""

import math
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from csd_nerf.images.stylegan.layers import EqualConv, EqualLinear

_GROUP = 4


class ResidualBlock(nn.Module):
    """Two convolutions, the second at half the resolution, and a 1 x 1 shortcut; their sum over sqrt(2).

    Unlike StyleGAN2's, the shortcut has a bias that is trained.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        """From `inputs` to `outputs` features."""
        super().__init__()
        self.first = EqualConv(inputs, inputs, 3)
        self.second = EqualConv(inputs, outputs, 3, down=True)
        self.shortcut = EqualConv(inputs, outputs, 1, down=True, activate=False)

    def forward(self, x: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o H W"]:
        """Apply it."""
        return (self.second(self.first(x)) + self.shortcut(x)) / math.sqrt(2)


class Discriminator(nn.Module):
    """Pictures in -1..1 to one number each: the logit of being real."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        """`channels` at 4 x 4, 8 x 8, ... pixels, as those of a generator."""
        super().__init__()
        last = channels[0]
        self.from_rgb = EqualConv(3, channels[-1], 1)
        self.blocks = nn.Sequential(*(ResidualBlock(a, b) for a, b in pairwise(reversed(channels))))
        self.final = EqualConv(last + 1, last, 3)
        self.dense = EqualLinear(last * 16, last, activate=True)
        self.logit = EqualLinear(last, 1)

    def forward(self, images: Float[Tensor, "n 3 s s"]) -> Float[Tensor, " n"]:
        """Logits, float32."""
        x = self.blocks(self.from_rgb(images.contiguous(memory_format=torch.channels_last)))
        x = self.final(with_batch_spread(x))
        return self.logit(self.dense(x.flatten(1).float()))[:, 0]


def with_batch_spread(x: Float[Tensor, "n c h w"], group: int = _GROUP) -> Float[Tensor, "n d h w"]:
    """One more channel: the mean standard deviation of the features within groups (Karras et al. 2018).

    Groups are of `group` samples, or all of a batch that cannot be split into such.
    """
    n, _, height, width = x.shape
    size = group if n % group == 0 else n
    spread = (x.reshape(size, n // size, -1).float().var(dim=0, correction=0) + 1e-8).sqrt().mean(dim=1)
    return torch.cat([x, spread.repeat(size).to(x.dtype)[:, None, None, None].expand(n, 1, height, width)], dim=1)
