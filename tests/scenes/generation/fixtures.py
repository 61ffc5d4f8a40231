"""What the tests of generation share: a prior whose score is known, and runs of a few tiny steps."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from csd_nerf.distill.schedule import NoiseSchedule
from csd_nerf.distill.types import Condition
from csd_nerf.scenes.generation.run import GenerationRun, run_generation
from csd_nerf.scenes.generation.trainer_config import GenerationTrainerConfig

COLOURS = {"red": (0.9, 0.1, 0.1), "blue": (0.1, 0.1, 0.9)}
STEPS = 6


class ColourPrior:
    """A `ViewPrior` in closed form: the exact score of one picture, all of it in the colour that the prompt names.

    Particles are pictures of half the size in [-1, 1]. A prompt without a known colour is grey.
    """

    def __init__(self, size: int = 16, on_call: Callable[[int], float] = lambda call: 1.0) -> None:
        self.name, self.size, self.factor, self.takes_image = "colour", size, 2, False
        self.device, self.schedule = torch.device("cpu"), NoiseSchedule.scaled_linear()
        self.calls, self.on_call, self.prompts = 0, on_call, []

    def encode_attached(self, images: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n c h w"]:
        return avg_pool2d(images, self.factor) * 2 - 1

    def encode(self, images: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n c h w"]:
        return self.encode_attached(images.detach())

    def decode(self, latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 H W"]:
        return interpolate((latents + 1) / 2, scale_factor=self.factor).clamp(0, 1)

    def encode_condition(
        self, images: Float[Tensor, "n 3 H W"], *, scaled_sample: torch.Generator | None = None
    ) -> Float[Tensor, "n c h w"]:
        raise ValueError("no image input")

    def encode_text(self, prompts: Sequence[str]) -> Float[Tensor, "n l d"]:
        self.prompts += prompts
        grey = (0.5, 0.5, 0.5)
        named = [next((c for word, c in COLOURS.items() if word in prompt), grey) for prompt in prompts]
        return torch.tensor(named)[:, None, :]

    def predict_noise(
        self, x_t: Float[Tensor, "n c h w"], t: Int[Tensor, ""], condition: Condition
    ) -> Float[Tensor, "n c h w"]:
        self.calls += 1
        wanted = condition.text[:, 0, :, None, None] * 2 - 1
        alpha, sigma = self.schedule.alpha(t).float(), self.schedule.sigma(t).float()
        return (x_t - alpha * wanted) / sigma * self.on_call(self.calls)


def shrink(config: GenerationTrainerConfig) -> None:
    """A field and views that are only just there; no network between views."""
    options, model, views = config.pipeline, config.pipeline.model, config.pipeline.datamanager
    options.kernel, options.guidance_scale = "rbf", 1.0
    model.voxels, model.voxel_features, model.width, model.samples_per_ray = (4, 8), 3, 8, 8
    model.occupancy_resolution, model.eval_num_rays_per_chunk = 8, 4096
    views.resolution, views.coarse_resolution, views.evaluation_resolution = 16, 8, 16
    views.views_per_step = 3
    for entry in config.optimizers.values():
        if entry["scheduler"] is not None:
            entry["scheduler"].warmup_steps = 1


def tiny_run(output: Path, *, prompt: str = "a red ball", prior: Any = None, **changes: Any) -> GenerationRun:
    """`run_generation` on a tiny field. `configure` in `changes` comes after the shrinking."""
    configure = changes.pop("configure", None)

    def shrink_first(config: GenerationTrainerConfig) -> None:
        shrink(config)
        if configure is not None:
            configure(config)

    settings: dict[str, Any] = {"max_num_iterations": STEPS, "timestamp": "run", **changes}
    prior = ColourPrior() if prior is None else prior
    return run_generation(prompt, output_dir=output, prior=prior, configure=shrink_first, **settings)


def state(run: GenerationRun) -> dict[str, Any]:
    """A checkpoint's content, without the time that it took."""
    content = torch.load(run.checkpoint, map_location="cpu", weights_only=True)
    content["pipeline"]["_extra_state"].pop("seconds")
    return content


def same(one: Any, other: Any) -> bool:
    """Whether two nested states are equal, bit by bit."""
    if torch.is_tensor(one):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return one == other
