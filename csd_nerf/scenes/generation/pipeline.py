"""The pipeline of an object that grows: views, losses, and the state that a checkpoint keeps beside the weights."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from nerfstudio.pipelines.base_pipeline import VanillaPipeline
from torch import Tensor
from torch.cuda.amp.grad_scaler import GradScaler

from csd_nerf.scenes.errors import SceneError
from csd_nerf.scenes.generation.cameras import OrbitViews, generate_rays
from csd_nerf.scenes.generation.datamanager import RandomViewDataManager
from csd_nerf.scenes.generation.guide import Guided
from csd_nerf.scenes.generation.model import ObjectModel
from csd_nerf.scenes.generation.options import GenerationPipelineConfig, Wish
from csd_nerf.scenes.generation.panel import GenerationPanel
from csd_nerf.scenes.generation.rendering import Rendered
from csd_nerf.scenes.generation.seeds import Stream, step_generator
from csd_nerf.scenes.random_state import preserved_random_state

STATE_VERSION = 1
_MODEL = "_model."


@runtime_checkable
class Guide(Protocol):
    """Scores the views of a step, see `ViewGuide`."""

    def __call__(
        self,
        pictures: Float[Tensor, "n c h w"],
        wish: Wish,
        azimuth: Float[Tensor, " n"],
        elevation: Float[Tensor, " n"],
        progress: float,
        generator: torch.Generator,
    ) -> Guided:
        """The loss of a step's views."""
        ...


@dataclass
class GenerationState:
    """Where a run stands, beside its weights."""

    wish: Wish
    """What is asked for now; the viewer changes it."""
    seconds: float = 0.0
    """Time of the steps, pauses left out and earlier runs included."""
    network_samples: int = 0
    """Rows through the prior's network."""
    total_steps: int = 1
    """Steps of the whole training: noise levels, resolution and lights go by the share of it that is done."""
    flags: dict[str, Any] = field(default_factory=dict)
    """The flags that decide what is made."""


class GenerationPipeline(VanillaPipeline):
    """Renders random views and lets a guide score them."""

    config: GenerationPipelineConfig
    datamanager: RandomViewDataManager

    def __init__(
        self,
        config: GenerationPipelineConfig,
        device: str | torch.device,
        test_mode: Literal["test", "val", "inference"] = "val",
        world_size: int = 1,
        local_rank: int = 0,
        grad_scaler: GradScaler | None = None,
    ) -> None:
        config.datamanager.seed = config.seed
        super().__init__(config, str(device), test_mode, world_size, local_rank, grad_scaler)
        self.state = GenerationState(config.wish(), flags=config.choices())
        self.loaded_state: dict[str, Any] | None = None
        self.checkpoint_path = Path("--load-dir")
        self.guide: Guide | None = None
        """Set by the trainer."""
        self.last_views: OrbitViews | None = None
        """Cameras of the last step, for the viewer."""
        if test_mode == "val":  # the mode that nerfstudio trains in
            self.csd_generate = GenerationPanel(self.state.wish)

    @property
    def object(self) -> ObjectModel:
        """The model."""
        assert isinstance(self.model, ObjectModel)
        return self.model

    def progress(self, step: int) -> float:
        """Share of the training that is done before `step`, 0..1."""
        return min(1.0, step / max(1, self.state.total_steps))

    def get_train_loss_dict(self, step: int) -> tuple[Any, dict[str, Tensor], dict[str, Tensor]]:
        """Render the views of a step and score them."""
        assert self.guide is not None, "a pipeline that trains has a guide"
        progress, seed, device = self.progress(step), self.config.seed, self.device
        self.object.occupancy.update(self.object.field.density, seed, step)
        views = self.last_views = self.datamanager.views(step, self.resolution(step))
        jitter = step_generator(seed, Stream.RAYS, step)
        shading = self.config.shading().draw(progress, jitter)
        need_normals = self.config.orientation_weight > 0 and shading.lit
        rays = generate_rays(views.cameras.to(device))
        size, count = views.size, len(views)
        shift = self.config.background_jitter * (2 * torch.rand(count, self.object.channels, generator=jitter) - 1)
        seen = self.object.renderer(
            rays,
            shading=shading,
            normals=need_normals,
            jitter=jitter,
            behind_shift=shift.to(device).repeat_interleave(size * size, dim=0) if shift.any() else None,
        )
        guided = self.guide(
            self.pictures(seen.colour.reshape(count, size, size, -1).permute(0, 3, 1, 2), step),
            self.state.wish,
            views.azimuth,
            views.elevation,
            progress,
            step_generator(seed, Stream.DISTILLATION, step),
        )
        self.state.network_samples += guided.network_samples
        losses = {"distillation": guided.loss.to(device), **self.regularisers(seen, step)}
        metrics = {**guided.metrics, "opacity": seen.opacity.detach().mean()}
        return seen, losses, metrics

    def resolution(self, step: int) -> int:
        """Pixels along a side of the views of a step."""
        return self.datamanager.config.resolution_at(self.progress(step))

    def pictures(self, rendered: Float[Tensor, "n c h w"], step: int) -> Float[Tensor, "n k h w"]:
        """What the guide sees of rendered views."""
        return rendered

    def regularisers(self, seen: Rendered, step: int) -> dict[str, Tensor]:
        """Weighted losses of what was rendered."""
        config, losses, opacity = self.config, {}, seen.opacity
        if config.opacity_weight:
            losses["opacity"] = config.opacity_weight * (opacity.square() + 0.01).sqrt().mean()
        if config.orientation_weight and seen.orientation is not None:
            losses["orientation"] = config.orientation_weight * seen.orientation
        if config.entropy_weight:
            losses["entropy"] = config.entropy_weight * binary_entropy(opacity).mean()
        return losses

    def get_extra_state(self) -> dict[str, Any]:
        """What checkpoints keep besides the weights; plain types that `torch.load(weights_only=True)` accepts."""
        state = self.state
        return {
            "csd_generate": STATE_VERSION,
            "wish": asdict(state.wish),
            "seconds": state.seconds,
            "network_samples": state.network_samples,
            "total_steps": state.total_steps,
            "flags": dict(state.flags),
        }

    def set_extra_state(self, state: Any) -> None:
        """Keep the state for the trainer."""
        self.loaded_state = state if isinstance(state, dict) and "csd_generate" in state else None

    def load_pipeline(self, loaded_state: dict[str, Any], step: int) -> None:
        """Load weights that must fit exactly. Raises `SceneError` that says what does not."""
        own = self.model.state_dict()
        found = {key.removeprefix(_MODEL): value for key, value in loaded_state.items() if key.startswith(_MODEL)}
        problem = _misfit({k: v.shape for k, v in own.items()}, {k: v.shape for k, v in found.items()})
        if problem:
            raise SceneError(
                f"--load-dir: checkpoint {self.checkpoint_path} does not fit: {problem}. Give the same method and the "
                "same --pipeline.model.* and --pipeline.field flags as in that run."
            )
        super().load_pipeline(loaded_state, step)

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Let something render or evaluate without changing how training goes on."""
        was_training = self.training
        with preserved_random_state():
            try:
                yield
            finally:
                self.train(was_training)

    @torch.no_grad()
    def render(self, views: OrbitViews, on_view: Callable[[int, int], None] | None = None) -> list[dict[str, Tensor]]:
        """Nerfstudio's outputs (h w c) of views, one by one, on the CPU."""
        pictures = []
        with self.undisturbed():
            self.eval()
            for index in range(len(views)):
                camera = views.cameras[index : index + 1].to(self.device)
                outputs = self.model.get_outputs_for_camera(camera)
                pictures.append({name: value.float().cpu() for name, value in outputs.items()})
                if on_view is not None:
                    on_view(index + 1, len(views))
        return pictures


def binary_entropy(p: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """`-p log2 p - (1 - p) log2(1 - p)`, with p kept away from 0 and 1, where its slope is infinite."""
    p = p.clamp(1e-3, 1 - 1e-3)
    return -(p * p.log2() + (1 - p) * (1 - p).log2())


def _misfit(wanted: dict[str, Any], found: dict[str, Any]) -> str | None:
    names = sorted(wanted.keys() ^ found.keys())
    shapes = sorted(key for key in wanted.keys() & found.keys() if wanted[key] != found[key])
    if not names and not shapes:
        return None
    return f"{len(shapes)} weights of another size, {len(names)} missing or superfluous, such as {(shapes + names)[0]}"
