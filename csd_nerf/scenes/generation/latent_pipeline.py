"""The pipeline of `latent-fm`: latents first, colours in the refinement; shape and emptiness as further losses."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.scenes.generation.cameras import generate_rays, turntable
from csd_nerf.scenes.generation.latent_guide import LatentGuide
from csd_nerf.scenes.generation.latent_model import LatentModel
from csd_nerf.scenes.generation.latent_options import LatentPipelineConfig
from csd_nerf.scenes.generation.pipeline import GenerationPipeline
from csd_nerf.scenes.generation.rendering import Rendered
from csd_nerf.scenes.latent_to_rgb import fit_latent_to_rgb
from csd_nerf.scenes.shape_guide import ShapeGuide, load_shape
from csd_nerf.scenes.voxel_field import emptiness_loss, emptiness_weight

FIT_EVERY = 100
"""Steps between two fits of the map to colours, which the viewer shows; the last one begins the refinement."""
_FIT_VIEWS = 8


class LatentPipeline(GenerationPipeline):
    """Renders random views as latents and lets LDP's losses score them."""

    config: LatentPipelineConfig

    def __init__(self, config: LatentPipelineConfig, *arguments: Any, **named: Any) -> None:
        super().__init__(config, *arguments, **named)
        self._shape: tuple[ShapeGuide, ...] = ()
        if config.shape is not None and self.test_mode == "val":
            shape = load_shape(config.shape, scale=config.shape_scale, freedom=config.shape_freedom, up=config.shape_up)
            self._shape = (shape.to(self.device),)

    @property
    def latent_model(self) -> LatentModel:
        """The model."""
        assert isinstance(self.model, LatentModel)
        return self.model

    def refines(self, step: int) -> bool:
        """Whether the views of a step are colours."""
        return step >= self.state.total_steps - self.config.refined

    def resolution(self, step: int) -> int:
        """Pixels of a view: latent pixels, or in the refinement those of a picture."""
        return self.config.refine_resolution if self.refines(step) else super().resolution(step)

    def pictures(self, rendered: Float[Tensor, "n c h w"], step: int) -> Float[Tensor, "n k h w"]:
        """Latents, or in the refinement their colours, which keep their gradient beyond 0 and 1."""
        if not self.refines(step):
            return rendered
        return self.latent_model.colours(rendered.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def get_train_loss_dict(self, step: int) -> tuple[Any, dict[str, Tensor], dict[str, Tensor]]:
        """Fit the map to colours where it is due, then as in the class that this extends."""
        starts = self.refines(step) and (step == 0 or not self.refines(step - 1))
        if starts or (step % FIT_EVERY == 0 and not self.refines(step)):
            self.fit_colours()
        return super().get_train_loss_dict(step)

    @torch.no_grad()
    def fit_colours(self) -> float:
        """Fit the map from latents to colours to the decoded object; returns the share of variance it explains."""
        guide, config = self.guide, self.datamanager.config
        assert isinstance(guide, LatentGuide)
        side = guide.prior.size // guide.prior.factor
        views = turntable(config.ranges(), _FIT_VIEWS, side)
        with self.undisturbed():
            self.eval()
            seen = self.object.renderer(generate_rays(views.cameras.to(self.device)))
        latents = seen.colour.reshape(len(views), side, side, -1).permute(0, 3, 1, 2)
        fitted = fit_latent_to_rgb(latents, guide.prior.decode(latents).to(latents))
        self.latent_model.take_colours(fitted)
        return fitted.explained

    def regularisers(self, seen: Rendered, step: int) -> dict[str, Tensor]:
        """Those of the class that this extends, emptiness and shape."""
        losses = super().regularisers(seen, step)
        if self.config.emptiness:
            weight = emptiness_weight(step, self.state.total_steps, self.config.emptiness)
            losses["emptiness"] = weight * emptiness_loss(seen.weights)
        if self._shape and self.config.shape_weight:
            losses["shape"] = self.config.shape_weight * self._shape[0].loss(seen.points, seen.density)
        return losses
