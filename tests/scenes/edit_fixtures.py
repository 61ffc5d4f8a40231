"""What the tests of editing share: a prior that edits in microseconds, and runs of a few tiny steps."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from csd_nerf.distill.schedule import NoiseSchedule
from csd_nerf.distill.types import Condition
from csd_nerf.scenes.edit_trainer import EditTrainer, EditTrainerConfig
from csd_nerf.scenes.files import read_picture
from csd_nerf.scenes.run import EditRun, run_edit

PROMPT = "make it negative"
SCENE_STEPS, EDIT_STEPS = 6, 8
GUIDANCE = 4.0


class NegativePrior:
    """An `ImagePrior` in closed form: with a prompt the exact score of the photo's negative, without one of the photo.

    Its latents are pictures of a quarter of the size.
    """

    def __init__(self, size: int = 16, takes_image: bool = True, on_call: Callable[[int], float] = lambda call: 1.0):
        self.name, self.size, self.factor, self.takes_image = "negative", size, 4, takes_image
        self.device, self.schedule = torch.device("cpu"), NoiseSchedule.scaled_linear()
        self.calls, self.on_call = 0, on_call

    def fingerprint(self) -> bytes:
        return b"negative"

    def encode(self, images: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n c h w"]:
        return avg_pool2d(images, self.factor) * 2 - 1

    def decode(self, latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 H W"]:
        return interpolate((latents + 1) / 2, scale_factor=self.factor).clamp(0, 1)

    def encode_condition(
        self, images: Float[Tensor, "n 3 H W"], *, scaled_sample: torch.Generator | None = None
    ) -> Float[Tensor, "n c h w"]:
        return self.encode(images)

    def encode_text(self, prompts: Sequence[str]) -> Float[Tensor, "n l d"]:
        return torch.tensor([[[float(bool(prompt))]] for prompt in prompts])

    def predict_noise(
        self, x_t: Float[Tensor, "n c h w"], t: Int[Tensor, ""], condition: Condition
    ) -> Float[Tensor, "n c h w"]:
        self.calls += 1
        assert condition.image is not None
        sign = 1 - 2 * condition.text[:, :1, :1, None]
        alpha, sigma = self.schedule.alpha(t).float(), self.schedule.sigma(t).float()
        return (x_t - alpha * sign * condition.image) / sigma * self.on_call(self.calls)


def shrink(config: EditTrainerConfig) -> None:
    """A field and batches that are only just there; a round every four steps, of at most six views."""
    options, model, data = config.pipeline, config.pipeline.model, config.pipeline.datamanager
    options.edit_every, options.edit_batch_size = 4, 6
    options.guidance_first, options.keep_detail = 1.0, 0.0
    options.guidance_scale, options.t_max, options.t_max_end, options.view_dependence = GUIDANCE, 0.8, 0.6, True
    model.num_levels, model.log2_hashmap_size, model.max_res = 2, 8, 32
    model.hidden_dim, model.hidden_dim_color = 8, 8
    model.num_proposal_samples_per_ray, model.num_nerf_samples_per_ray = (8,), 4
    model.proposal_net_args_list = [
        {"hidden_dim": 8, "log2_hashmap_size": 8, "num_levels": 2, "max_res": 32, "use_linear": False}
    ]
    data.train_num_rays_per_batch = data.eval_num_rays_per_batch = 64
    data.view_size = 16


def tiny_run(data: Path, output: Path, *, prompt: str = PROMPT, prior: Any = None, **changes: Any) -> EditRun:
    """`run_edit` on a tiny field. `configure` in `changes` comes after the shrinking; None as prior takes the fake."""
    configure = changes.pop("configure", None)

    def shrink_first(config: EditTrainerConfig) -> None:
        shrink(config)
        if configure is not None:
            configure(config)

    settings: dict[str, Any] = {
        "scene_steps": SCENE_STEPS,
        "edit_steps": 5,
        "max_num_iterations": EDIT_STEPS,
        "timestamp": "run",
        **changes,
    }
    prior = NegativePrior() if prior is None else prior
    return run_edit(data, prompt, output_dir=output, prior=prior, configure=shrink_first, **settings)


def make_trainer(
    data: Path,
    output: Path,
    prior: NegativePrior,
    configure: Callable[[EditTrainerConfig], Any] | None = None,
    **processes: int,
) -> EditTrainer:
    """A trainer that is set up and has not begun."""
    made: list[EditTrainerConfig] = []

    def keep(config: EditTrainerConfig) -> None:
        if configure is not None:
            configure(config)
        made.append(config)
        raise StopIteration

    with pytest.raises(StopIteration):
        tiny_run(data, output, prior=prior, configure=keep)
    config = made[0]
    config.save_config()
    torch.manual_seed(0)
    trainer = EditTrainer(config, prior=prior, **processes)
    trainer.setup()
    return trainer


def weights(checkpoint: Path) -> dict[str, Tensor]:
    """The model's weights in a checkpoint."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["pipeline"]
    return {key: value for key, value in state.items() if key.startswith("_model.") and torch.is_tensor(value)}


def same_edits(one: EditRun, other: EditRun) -> bool:
    indices = [json.loads((run.edits / "edits.json").read_text()) for run in (one, other)]
    entries = [[{k: v for k, v in e.items() if k != "seconds"} for e in index["rounds"]] for index in indices]
    files = [file for entry in entries[0] for file in entry["views"].values()]
    return entries[0] == entries[1] and all(
        torch.equal(read_picture(one.edits / file), read_picture(other.edits / file)) for file in files
    )


def same_weights(one: EditRun, other: EditRun) -> bool:
    first, second = weights(one.checkpoint), weights(other.checkpoint)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
