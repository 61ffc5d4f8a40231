"""A nerfacto scene whose training views are edited while it trains: model, data and the state of the edits.

The frozen prior is not here but with the trainer: a module of the pipeline would enter every checkpoint, and
evaluation, rendering and export, which build the pipeline too, must not load it.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from nerfstudio.models.nerfacto import NerfactoModel
from nerfstudio.pipelines.base_pipeline import VanillaPipeline
from torch import Tensor, nn
from torch.cuda.amp.grad_scaler import GradScaler

from csd_nerf.scenes.checkpoints import fitting_weights
from csd_nerf.scenes.edit_datamanager import EditDataManager
from csd_nerf.scenes.edit_options import EditPipelineConfig
from csd_nerf.scenes.edit_session import EditSession
from csd_nerf.scenes.quick_field import quicken
from csd_nerf.scenes.random_state import capture_random_state, preserved_random_state
from csd_nerf.scenes.viewer_panel import EditPanel

STATE_VERSION = 1
_RAYS_AT_ONCE = 1 << 20
"""Rays are made for as many views at a time as have so many pixels."""


def _from_above(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
    """Give the encoding of view directions one and the same direction, +z; nerfacto hands them in [0, 1] (n 3)."""
    return (torch.tensor([0.5, 0.5, 1.0]).to(inputs[0]).expand_as(inputs[0]),)


class EditPipeline(VanillaPipeline):
    """Vanilla pipeline with the state of the edits in its checkpoints."""

    config: EditPipelineConfig
    datamanager: EditDataManager

    def __init__(
        self,
        config: EditPipelineConfig,
        device: str | torch.device,
        test_mode: Literal["test", "val", "inference"] = "val",
        world_size: int = 1,
        local_rank: int = 0,
        grad_scaler: GradScaler | None = None,
    ) -> None:
        if config.datamanager.background is None:
            # nerfacto shows "random" and "last_sample" on black.
            background = "white" if config.model.background_color == "white" else "black"
            config = replace(config, datamanager=replace(config.datamanager, background=background))
        super().__init__(config, str(device), test_mode, world_size, local_rank, grad_scaler)
        quicken(self.nerfacto)
        if not config.view_dependence:
            self.nerfacto.field.direction_encoding.register_forward_pre_hook(_from_above)
        self.method = "csd-edit"
        self.checkpoint_path = Path("--load-dir")
        self.loaded_state: dict[str, Any] | None = None
        self.session: EditSession | None = None
        if test_mode == "val":  # the mode that nerfstudio trains in
            self.session = EditSession.begin(config, len(self.datamanager.train_dataset))
            image_scale = config.settings().resolved().image_guidance_scale
            assert image_scale is not None
            self.csd_edit = EditPanel(self.session, image_scale)

    @property
    def nerfacto(self) -> NerfactoModel:
        """The model, which is a nerfacto."""
        assert isinstance(self.model, NerfactoModel)
        return self.model

    def get_extra_state(self) -> dict[str, Any]:
        """What checkpoints keep besides the weights; plain types that `torch.load(weights_only=True)` accepts."""
        if self.session is None:
            return self.loaded_state or {}
        return {
            "csd_edit": STATE_VERSION,
            "session": self.session.state(),
            "sampler": self.sampler_state(),
            "random": capture_random_state(),
        }

    def set_extra_state(self, state: Any) -> None:
        """Keep the state for the trainer; a checkpoint of plain nerfacto has none."""
        self.loaded_state = state if isinstance(state, dict) and "csd_edit" in state else None

    def load_pipeline(self, loaded_state: dict[str, Any], step: int) -> None:
        """Load weights that must fit, see `fitting_weights`."""
        state = {key.removeprefix("module."): value for key, value in loaded_state.items()}
        self.loaded_state = None
        super().load_pipeline(fitting_weights(self.model, state, self.method, self.checkpoint_path), step)

    def sampler_state(self) -> list[float]:
        """The proposal sampler's step, steps since its last update, and annealing: nerfstudio keeps none of them."""
        sampler = self.nerfacto.proposal_sampler
        return [float(sampler._step), float(sampler._steps_since_update), float(sampler._anneal)]

    def restore_sampler(self, state: list[float]) -> None:
        """Set the proposal sampler to `sampler_state()`."""
        sampler = self.nerfacto.proposal_sampler
        sampler._step, sampler._steps_since_update, sampler._anneal = int(state[0]), int(state[1]), state[2]

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Let something render or evaluate without changing how training goes on.

        Rendering advances the proposal sampler's update counter, evaluation draws random numbers.
        """
        sampler, was_training = self.sampler_state(), self.training
        with preserved_random_state():
            try:
                yield
            finally:
                self.restore_sampler(sampler)
                self.train(was_training)

    @torch.no_grad()
    def render_training_views(self, views: Sequence[int]) -> list[Float[Tensor, "3 _h _w"]]:
        """Render training views as the NeRF sees them now, with the corrections of their cameras, on the CPU.

        Rays of several views go through the field together.
        """
        data, rendered = self.datamanager.train_dataset, []
        with self.undisturbed():
            self.eval()
            cameras = data.cameras.to(self.device)
            pixels = [math.prod(data.view_shape(view)) for view in views]
            for group in _groups(pixels, _RAYS_AT_ONCE):
                # A row of pixels and cameras, whether these are of one size or not.
                grids = [cameras.get_image_coords(index=(views[place], 0)).reshape(-1, 2) for place in group]
                counts = torch.tensor([pixels[place] for place in group])
                chosen = torch.tensor([views[place] for place in group]).repeat_interleave(counts)[:, None]
                coords = torch.cat(grids).to(self.device)
                rays = cameras.generate_rays(camera_indices=chosen.to(self.device), coords=coords)
                self.nerfacto.camera_optimizer.apply_to_raybundle(rays)
                size = self.model.config.eval_num_rays_per_chunk
                colours = torch.cat([self.model(rays[i : i + size])["rgb"] for i in range(0, len(rays), size)])
                for place, part in zip(group, colours.split([pixels[place] for place in group]), strict=True):
                    picture = part.view(*data.view_shape(views[place]), 3).permute(2, 0, 1)
                    rendered.append(picture.clamp(0, 1).float().cpu())
        return rendered


def _groups(sizes: Sequence[int], limit: int) -> list[list[int]]:
    """Consecutive places whose sizes sum to at most `limit`, or single ones."""
    groups: list[list[int]] = []
    total = 0
    for place, size in enumerate(sizes):
        if not groups or total + size > limit:
            groups.append([])
            total = 0
        groups[-1].append(place)
        total += size
    return groups
