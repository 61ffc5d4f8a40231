"""View-dependent prompts (DreamFusion, Poole et al. 2023, Section 3.2): "a fox, back view".

Views are given by azimuth (degrees around the object, 0 in front of it, any range) and elevation (degrees above the
horizon, -90..90). Each view gets a weight per direction; the weights of a view sum to 1 and go into `Target.weights`
with the prompts as `Target.texts`. Around the object they change linearly,

    front: 1 - |a| / 90,    side: 1 - ||a| - 90| / 90,    back: |a| / 90 - 1       (each at least 0; -180 <= a <= 180)

and above `overhead` degrees of elevation "overhead view" takes over, linearly over `ramp` degrees.
"""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

Direction = Literal["front", "side", "back", "overhead"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
"""Order of the prompts and of the rows of the weights."""


def view_prompts(prompt: str) -> tuple[str, ...]:
    """The prompt seen from each of `DIRECTIONS`: "a fox" becomes "a fox, front view" and so on."""
    prompt = prompt.strip().rstrip(",.")
    return tuple(f"{prompt}, {direction} view" if prompt else f"{direction} view" for direction in DIRECTIONS)


def view_weights(
    azimuth: Float[Tensor, " n"], elevation: Float[Tensor, " n"], *, overhead: float = 60.0, ramp: float = 0.0
) -> Float[Tensor, "4 n"]:
    """Share of each direction's prompt in each view; columns sum to 1.

    `ramp` 0 switches to the overhead prompt at once, as DreamFusion does. Raises `ValueError` for elevations outside
    -90..90 and for a negative ramp.
    """
    if ramp < 0:
        raise ValueError(f"ramp={ramp}: give 0 or more degrees")
    if (elevation.abs() > 90).any():
        raise ValueError("elevations are degrees above the horizon, -90 to 90")
    around = ((azimuth + 180) % 360 - 180).abs()
    front, back = (1 - around / 90).clamp(min=0), (around / 90 - 1).clamp(min=0)
    level = torch.stack([front, 1 - front - back, back])
    if ramp:
        above = ((elevation - overhead) / ramp + 0.5).clamp(0, 1)
    else:
        above = (elevation > overhead).to(elevation)
    return torch.cat([level * (1 - above), above[None]])


def nearest_view(weights: Float[Tensor, "k n"]) -> Float[Tensor, "k n"]:
    """All weight on each view's largest share, the first of equal ones: one network sample per view, no blending."""
    return torch.nn.functional.one_hot(weights.argmax(dim=0), len(weights)).T.to(weights)


def mix_encodings(encodings: Float[Tensor, "k l d"], weights: Float[Tensor, "k n"]) -> Float[Tensor, "n l d"]:
    """Weighted sum of the directions' text encodings: DreamFusion's blending, one network sample per view."""
    return torch.einsum("kn,kld->nld", weights.to(encodings), encodings)
