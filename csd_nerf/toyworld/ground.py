"""The ground and the sky of each background. Positions in scene units, colours linear RGB 0..1."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.toyworld.textures import linear, noise


@dataclass(frozen=True)
class Backdrop:
    """Sky colours from the horizon up, sRGB `#rrggbb`."""

    low: str
    high: str


BACKDROPS: dict[str, Backdrop] = {
    "studio": Backdrop("#c4c6ca", "#8e949e"),
    "meadow": Backdrop("#cfe8f8", "#5aa2e8"),
    "sand": Backdrop("#fbe6c4", "#8ec4ea"),
    "sea": Backdrop("#e2f4fa", "#48b4e0"),
    "floor": Backdrop("#ecdcc8", "#cfae94"),
}
WINTER = Backdrop("#e9eef4", "#b9c6d6")
STARRY = Backdrop("#223060", "#080d28")


def sky(direction: Float[Tensor, "3 n"], backdrop: Backdrop, stars: bool = False) -> Float[Tensor, "3 n"]:
    """Colour of the sky in a unit direction; below the horizon the horizon's own colour."""
    height = (direction[2] / 0.55).clamp(0, 1)
    low, high = linear(backdrop.low)[:, None], linear(backdrop.high)[:, None]
    colour = low + (high - low) * height
    if stars:
        spark = ((noise(direction * 26.0) - 0.80) / 0.12).clamp(0, 1) * (direction[2] > 0.03)
        colour = colour + 0.7 * spark
    return colour


def ground_albedo(position: Float[Tensor, "3 n"], background: str, snow: bool) -> Float[Tensor, "3 n"]:
    """Paint of the ground plane."""
    if snow:
        tone = 0.86 + 0.05 * noise(position * 2.1)
        return tone * torch.tensor([[0.97], [0.99], [1.03]])
    return _GROUND[background](position)


def _mix(first: str, second: str, share: Float[Tensor, "n"]) -> Float[Tensor, "3 n"]:
    a, b = linear(first)[:, None], linear(second)[:, None]
    return a + (b - a) * share.clamp(0, 1)


def _studio(position: Tensor) -> Tensor:
    return _mix("#b9bbc0", "#b4b6bb", 0.5 + 0.5 * noise(position * 1.0))


def _meadow(position: Tensor) -> Tensor:
    patches = 0.5 + 0.4 * noise(position * 2.4) + 0.4 * noise(position * 8.0)
    return _mix("#3f8f2c", "#86c442", patches)


def _sand(position: Tensor) -> Tensor:
    ripple = torch.sin(position[0] * 9.0 + 5.0 * position[1] + 2.0 * noise(position * 1.6))
    return _mix("#d9b678", "#efd6a0", 0.5 + 0.4 * ripple)


def _sea(position: Tensor) -> Tensor:
    waves = torch.sin(position[1] * 8.0 + 2.6 * noise(position * 1.7)) * noise(position * 2.2 + 5.0)
    return _mix("#1668a8", "#58b8dc", 0.42 + 0.8 * waves)


def _floor(position: Tensor) -> Tensor:
    plank = position[1] / 0.42
    number = plank.floor()
    tone = torch.sin(number * 12.9898) * 0.5 + 0.5
    grain = noise(torch.stack([position[0] * 1.2, position[1] * 9.0, number]))
    colour = _mix("#8a5a34", "#b4804c", 0.25 + 0.5 * tone + 0.22 * grain)
    gap = ((plank - number) < 0.06) | ((plank - number) > 0.96)
    return colour * torch.where(gap, 0.55, 1.0)


_GROUND = {"studio": _studio, "meadow": _meadow, "sand": _sand, "sea": _sea, "floor": _floor}
