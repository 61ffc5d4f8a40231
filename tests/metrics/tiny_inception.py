"""Networks with as many features as Inception-v3, all but a few of which are 0, so that FIDs are known."""

from pathlib import Path

import torch
from torch import Tensor, nn

from csd_nerf.metrics.frechet import WIDTH


class MeanColours(nn.Module):
    """Mean colour of 8-bit pictures, in 0..1, with zeros behind it."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.width = width

    def forward(self, pictures: Tensor) -> Tensor:
        if pictures.dtype != torch.uint8:
            raise ValueError("8-bit pictures are expected")
        means = pictures.float().mean(dim=[2, 3]) / 255
        return torch.cat([means, torch.zeros(len(means), self.width - 3)], dim=1)


def save_mean_colours(file: Path, width: int = WIDTH) -> Path:
    """Write it as TorchScript; returns the file."""
    torch.jit.script(MeanColours(width)).save(str(file))
    return file
