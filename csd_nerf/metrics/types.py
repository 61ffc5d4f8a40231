"""What metrics take and give.

Pictures are `n 3 h w`, sRGB values in [0, 1], float32, or 8-bit levels (`levels.py`). A metric returns a `Score`: the
mean and the values behind it, so that whoever reports it can give an interval.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Real
from torch import Tensor


@dataclass(frozen=True)
class Score:
    """One metric of one set of pictures."""

    name: str
    """Name in the table, the JSON and the CSV."""
    values: list[float]
    """One value per picture, pair or prompt; a single one for metrics of the whole set."""
    better: str
    """`higher` or `lower`."""
    note: str = ""
    """What a reader must know to compare it: model, backbone, sample count."""
    mean: float = field(init=False)
    """Mean of the values."""

    def __post_init__(self) -> None:
        """Average the values. Raises `ValueError` when there are none, or one is not finite."""
        if not self.values:
            raise ValueError(f"{self.name}: there is nothing to average over")
        if not all(math.isfinite(value) for value in self.values):
            raise ValueError(f"{self.name} is not finite: is there a NaN in the pictures or the weights?")
        object.__setattr__(self, "mean", sum(self.values) / len(self.values))


@runtime_checkable
class ImageTextEncoder(Protocol):
    """CLIP, or whatever embeds pictures and texts in one space."""

    name: str
    """Architecture and weights, for the reports."""

    def encode_images(self, images: Real[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Embeddings of pictures in [0, 1] or in 8 bits; unit length."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """Embeddings of texts; unit length."""
        ...


def first_line(error: Exception) -> str:
    """What an exception of some library says, in one line."""
    said = str(error).strip()
    return said.splitlines()[0] if said else type(error).__name__
