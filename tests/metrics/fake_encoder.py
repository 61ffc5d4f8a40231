"""An encoder whose features are made by hand."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize


class ColourEncoder:
    """Pictures embed as their mean colour, texts as the colour that they name; both of unit length."""

    name = "colours"
    _COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "grey": (1, 1, 1), "yellow": (1, 1, 0)}

    def __init__(self) -> None:
        self.pictures_seen = 0

    def encode_images(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        self.pictures_seen += len(images)
        return normalize(images.mean(dim=(2, 3)), dim=1)

    def _colour(self, text: str) -> tuple[int, int, int]:
        (colour,) = (self._COLOURS[word] for word in text.split() if word in self._COLOURS)
        return colour

    def encode_texts(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        return normalize(torch.tensor([self._colour(text) for text in texts]).float(), dim=1)


def plain(*colours: tuple[float, float, float], size: int = 4) -> Float[Tensor, "n 3 h w"]:
    """Pictures of one colour each."""
    return torch.tensor(colours).float()[:, :, None, None].expand(-1, 3, size, size).clone()
