"""The object as a nerfstudio model: nerfstudio's viewer, renderer and exporter see it through this."""

import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.model_components import renderers
from nerfstudio.models.base_model import Model, ModelConfig
from torch import Tensor
from torch.nn import Parameter

from csd_nerf.scenes.generation.cameras import Rays
from csd_nerf.scenes.generation.fields import (
    FIELDS,
    BackgroundField,
    FieldKind,
    FieldSettings,
    JacobianField,
)
from csd_nerf.scenes.generation.occupancy import OccupancyGrid
from csd_nerf.scenes.generation.rendering import FAR, ObjectRenderer, Rendered


@dataclass
class ObjectModelConfig(ModelConfig):
    """An object and its background."""

    _target: type = field(default_factory=lambda: ObjectModel)
    """Target class to instantiate."""
    field: FieldKind = "mlp"
    """mlp: a coordinate MLP with residual blocks (CSD D.2). hash-grid: the fast choice on a GPU. voxel-grid: that on
    a CPU. sjc: the voxel grid of Score Jacobian Chaining, for latents."""
    blob_density: float = 10.0
    """The object grows out of a blob at the origin: its density in the middle, before the softplus."""
    blob_radius: float = 0.5
    """Where the blob ends; the object fits into the cube from -1 to 1."""
    width: int = 96
    """Units of a hidden layer."""
    blocks: int = 5
    """Residual blocks of the MLP."""
    frequencies: int = 6
    """Octaves of the MLP's positional encoding."""
    levels: int = 16
    """Levels of the hash grid."""
    log2_table: int = 19
    """Entries of a level of the hash grid, as a power of two."""
    finest: int = 2048
    """Cells along a side of the hash grid's finest level."""
    voxels: tuple[int, ...] = (16, 48)
    """Cells along a side of each level of the voxel grid."""
    voxel_features: int = 6
    """Features of a cell of the voxel grid, at each level."""
    implementation: Literal["torch", "tcnn"] = "torch"
    """What computes the hash grid: torch, or tcnn (needs CUDA and tinycudann)."""
    background_frequencies: int = 3
    """Octaves of the background's encoding of directions: fewer make it smoother."""
    samples_per_ray: int = 64
    """Samples of a ray."""
    occupancy_resolution: int = 48
    """Cells along a side of the grid that says where the object is."""
    occupancy_threshold: float = 0.1
    """Density from which a cell counts as occupied."""
    eval_num_rays_per_chunk: int = 1 << 14
    """Rays rendered at once, outside of training."""

    def problem(self) -> str | None:
        """What cannot work, by the name of the field."""
        counts = (
            "width", "blocks", "frequencies", "levels", "log2_table", "finest", "voxel_features", "samples_per_ray",
            "occupancy_resolution", "eval_num_rays_per_chunk",
        )  # fmt: skip
        for name in counts:
            if getattr(self, name) < 1:
                return f"{name}={getattr(self, name)}: give at least 1"
        if not self.voxels or min(self.voxels) < 2:
            return f"voxels={self.voxels}: give numbers of 2 or more"
        if self.background_frequencies < 1:
            return f"background_frequencies={self.background_frequencies}: give at least 1"
        for name, least in (("blob_density", -math.inf), ("blob_radius", 0.0), ("occupancy_threshold", 0.0)):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > least):
                kind = "a finite number" if least == -math.inf else "a finite number above 0"
                return f"{name}={value}: give {kind}"
        return None

    def field_settings(self) -> FieldSettings:
        """Size and start of the field."""
        return FieldSettings(**{entry.name: getattr(self, entry.name) for entry in fields(FieldSettings)})


class ObjectModel(Model):
    """A field in the cube from -1 to 1 before a background that depends on the direction."""

    config: ObjectModelConfig
    channels = 3
    """Channels that the field has; 3 are colours."""

    def populate_modules(self) -> None:
        """Build field, background and occupancy grid."""
        config = self.config
        self.field = FIELDS[config.field](config.field_settings(), self.channels)
        if isinstance(self.field, JacobianField):
            self.background = self.field.grid.background
        else:
            self.background = BackgroundField(self.channels, frequencies=config.background_frequencies)
        self.occupancy = OccupancyGrid(config.occupancy_resolution, config.occupancy_threshold)
        # nerfstudio's own, for crops in its viewer and renderer: they override the background through it.
        self.renderer_rgb = renderers.RGBRenderer(background_color="random")
        # nerfstudio names intersections with the cube itself; nothing is cut off before.
        self.collider = None

    @property
    def renderer(self) -> ObjectRenderer:
        """What turns rays into pictures."""
        return ObjectRenderer(self.field, self.background, self.occupancy, self.config.samples_per_ray)

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """Field and background, each with its optimiser."""
        if isinstance(self.field, JacobianField):
            behind = [self.field.grid.background_picture]
        else:
            assert isinstance(self.background, BackgroundField)
            behind = list(self.background.parameters())
        known = {id(weight) for weight in behind}
        return {"fields": [w for w in self.field.parameters() if id(w) not in known], "background": behind}

    def get_outputs(self, ray_bundle: RayBundle | Cameras) -> dict[str, Tensor | list[Tensor]]:
        """Colour, object without background, opacity, depth and normals (in [0, 1]) of rays."""
        assert isinstance(ray_bundle, RayBundle)
        rays = Rays(ray_bundle.origins.reshape(-1, 3), ray_bundle.directions.reshape(-1, 3))
        seen = self.renderer(rays, normals=True)
        outputs = self.outputs(seen)
        override = renderers.BACKGROUND_COLOR_OVERRIDE
        if override is not None:
            outputs["rgb"] = outputs["foreground"] + (1 - seen.opacity)[:, None] * override.to(seen.opacity)
        return {name: value.reshape(*ray_bundle.shape, -1) for name, value in outputs.items()}

    def outputs(self, seen: Rendered) -> dict[str, Tensor]:
        """What nerfstudio shows of rendered rays, each n times channels."""
        assert seen.normals is not None
        facing = torch.nn.functional.normalize(seen.normals, dim=1) / 2 + 0.5
        return {
            "rgb": self.to_colour(seen.colour),
            "foreground": self.to_colour(seen.foreground),
            "accumulation": seen.opacity[:, None],
            "depth": seen.depth[:, None],
            "normals": facing,
        }

    def to_colour(self, values: Float[Tensor, "n c"]) -> Float[Tensor, "n 3"]:
        """Colours of what the field has."""
        return values

    def get_rgba_image(self, outputs: dict[str, Tensor], output_name: str = "rgb") -> Tensor:
        """The object without its background, and its opacity."""
        opacity = outputs["accumulation"]
        colour = outputs["foreground"] if output_name == "rgb" else outputs[output_name]
        return torch.cat([(colour / opacity.clamp_min(1e-6)).clamp(0, 1), opacity], dim=-1)

    def get_loss_dict(self, outputs: Any, batch: Any, metrics_dict: Any = None) -> dict[str, Tensor]:
        """No picture is known that a loss could compare with; the pipeline makes the losses."""
        return {}

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """What can be said of a view without a true picture, see `csd_nerf.scenes.generation.view_scores`."""
        from csd_nerf.scenes.generation.view_scores import view_scores

        rgb = outputs["rgb"].permute(2, 0, 1)
        scores = view_scores(rgb, outputs["accumulation"][..., 0])
        near = (outputs["depth"] < FAR).expand_as(outputs["depth"])
        depth = torch.where(near, 1 - (outputs["depth"] - 0.5).clamp(0, 4) / 4, 0.0)
        pictures = {"rgb": outputs["rgb"], "depth": depth, "opacity": outputs["accumulation"]}
        return cast(dict[str, float], scores), pictures | {"normals": outputs["normals"]}
