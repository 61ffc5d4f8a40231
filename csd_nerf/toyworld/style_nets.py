"""Feed-forward painting styles (Johnson et al. 2016) read from a folder of weights that is not part of the project.

Sixteen layers of (weight, shift, scale): conv 9x9 to 32, 3x3/2 to 64, 3x3/2 to 128, five residual blocks, two
transposed convs back, conv 9x9 to 3; instance norm after each, ReLU but for second convs of blocks and the last;
input 0..255, output 150 tanh(x) + 127.5. Padding is TensorFlow's "SAME".
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

PAINTINGS = {"wave": "the wave", "rain_princess": "the rain princess", "scream": "the scream", "udnie": "udnie"}


class StyleNet:
    """One painting style as a function of pictures."""

    def __init__(self, path: Path) -> None:
        tensors = load_file(path)
        self.layers = [tuple(tensors[f"{3 * i + j:02d}"].float() for j in range(3)) for i in range(16)]

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "n 3 h w"], work_size: int = 128) -> Float[Tensor, "n 3 h w"]:
        """Paint pictures (0..1), at `work_size` pixels, because strokes have a fixed size in pixels."""
        x = F.interpolate(images, (work_size, work_size), mode="bicubic", align_corners=False).clamp(0, 1) * 255
        for index, stride in ((0, 1), (1, 2), (2, 2)):
            x = F.relu(self._conv(x, index, stride))
        for index in range(3, 13, 2):
            x = x + self._conv(F.relu(self._conv(x, index, 1)), index + 1, 1)
        x = F.relu(self._grow(F.relu(self._grow(x, 13)), 14))
        x = (150 * torch.tanh(self._conv(x, 15, 1)) + 127.5) / 255
        return F.interpolate(x.clamp(0, 1), images.shape[2:], mode="area")

    def _norm(self, x: Tensor, index: int) -> Tensor:
        _, shift, scale = self.layers[index]
        variance, mean = torch.var_mean(x, (2, 3), unbiased=False, keepdim=True)
        return (x - mean) / (variance + 1e-3).sqrt() * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)

    def _conv(self, x: Tensor, index: int, stride: int) -> Tensor:
        weight = self.layers[index][0]
        total = max(weight.shape[2] - (stride if x.shape[2] % stride == 0 else x.shape[2] % stride), 0)
        before = total // 2
        padded = F.pad(x, (before, total - before, before, total - before))
        return self._norm(F.conv2d(padded, weight, stride=stride), index)

    def _grow(self, x: Tensor, index: int) -> Tensor:
        h, w = x.shape[2] * 2, x.shape[3] * 2
        grown = F.conv_transpose2d(x, self.layers[index][0], stride=2)[:, :, :h, :w]
        return self._norm(grown, index)


def load_style_nets(folder: Path | None) -> dict[str, StyleNet]:
    """The styles whose weights lie in `folder` (`<name>.safetensors`), none where there is no folder."""
    if folder is None:
        return {}
    return {name: StyleNet(path) for name in PAINTINGS if (path := Path(folder) / f"{name}.safetensors").is_file()}
