"""An object whose field has latents instead of colours (Latent-NeRF, Score Jacobian Chaining; LDP Section 5.1).

nerfstudio sees it through one linear map from latents to colours. The map is fitted to decoded views while the object
grows; in the refinement it is trained with the rest, and the field is then one of colours.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import Parameter

from csd_nerf.scenes.generation.model import ObjectModel, ObjectModelConfig
from csd_nerf.scenes.latent_to_rgb import LatentToRgb


@dataclass
class LatentModelConfig(ObjectModelConfig):
    """An object of latents."""

    _target: type = field(default_factory=lambda: LatentModel)
    """Target class to instantiate."""


class LatentModel(ObjectModel):
    """`ObjectModel` with four latent channels."""

    channels = 4

    def populate_modules(self) -> None:
        """Build field, background, occupancy grid, and the map to colours."""
        super().populate_modules()
        self.colours = nn.Linear(self.channels, 3)
        nn.init.constant_(self.colours.bias, 0.5)

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """Field, background, and the map to colours."""
        return {**super().get_param_groups(), "colours": list(self.colours.parameters())}

    def to_colour(self, values: Float[Tensor, "n c"]) -> Float[Tensor, "n 3"]:
        """Colours of rendered latents."""
        return self.colours(values).clamp(0, 1)

    @torch.no_grad()
    def take_colours(self, fitted: LatentToRgb) -> None:
        """Use a fitted map from now on."""
        self.colours.weight.copy_(fitted.weight)
        self.colours.bias.copy_(fitted.bias)
