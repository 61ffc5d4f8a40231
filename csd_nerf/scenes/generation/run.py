"""Text to 3D from Python: the run that `ns-train` makes, in this process and without its command line."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from csd_nerf.distill.types import ViewPrior
from csd_nerf.scenes.checkpoints import find_checkpoint, read_checkpoint
from csd_nerf.scenes.errors import SceneError
from csd_nerf.scenes.generation.config import dreamfusion_config, dreamfusion_lite_config
from csd_nerf.scenes.generation.latent_config import latent_config, latent_lite_config
from csd_nerf.scenes.generation.pipeline import GenerationPipeline
from csd_nerf.scenes.generation.trainer import GenerationTrainer
from csd_nerf.scenes.generation.trainer_config import GenerationTrainerConfig
from csd_nerf.scenes.random_state import seed_everything
from csd_nerf.scenes.terminal import own_writers

METHODS: dict[str, Callable[[], GenerationTrainerConfig]] = {
    "csd-dreamfusion": dreamfusion_config,
    "csd-dreamfusion-lite": dreamfusion_lite_config,
    "latent-fm": latent_config,
    "latent-fm-lite": latent_lite_config,
}


@dataclass(frozen=True)
class GenerationRun:
    """A finished run."""

    folder: Path
    """The run's folder."""
    config_path: Path
    """Its config.yml, for `ns-viewer`, `ns-render`, `ns-eval` and `ns-export`."""
    checkpoint: Path
    """The object."""
    pipeline: GenerationPipeline
    """The object in memory, to render."""
    seconds: float
    """Time of all steps, those before a resumption included."""
    network_samples: int
    """Rows through the prior's network, those before a resumption included."""


def run_generation(
    prompt: str,
    *,
    method: str = "csd-dreamfusion-lite",
    output_dir: Path | str = "outputs",
    prior: str | Path | ViewPrior | None = None,
    seed: int = 0,
    max_num_iterations: int | None = None,
    load_dir: Path | str | None = None,
    timestamp: str | None = None,
    configure: Callable[[GenerationTrainerConfig], Any] | None = None,
) -> GenerationRun:
    """Make an object and return where everything is. No viewer is started.

    Arguments that are None keep the method's default. `seed` seeds the field, the views and the distillation.
    `configure` may change anything else in the configuration before the run starts. Raises `SceneError`, and
    `ValueError` for an unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} is unknown: choose {', '.join(METHODS)}")
    config = METHODS[method]()
    config.pipeline.prompt, config.pipeline.seed, config.machine.seed = prompt, seed, seed
    config.output_dir, config.vis = Path(output_dir), "none"
    if prior is not None:
        config.pipeline.prior = str(prior) if isinstance(prior, (str, Path)) else prior.name
    if max_num_iterations is not None:
        config.max_num_iterations = max_num_iterations
    if load_dir is not None:
        config.load_dir = Path(load_dir)
    if timestamp is not None:
        config.timestamp = timestamp
    if configure is not None:
        configure(config)
    return train(config, None if isinstance(prior, (str, Path)) else prior)


def train(config: GenerationTrainerConfig, prior: ViewPrior | None = None) -> GenerationRun:
    """Run a configuration, with the given prior if it is loaded already."""
    config.set_timestamp()
    config.save_config()
    seed_everything(config.machine.seed)
    trainer = GenerationTrainer(config, prior=prior)
    with own_writers():
        trainer.setup()
        trainer.train()
    state, folder = trainer.pipeline.state, trainer.base_dir
    checkpoint = find_checkpoint(trainer.checkpoint_dir)
    return GenerationRun(
        folder, folder / "config.yml", checkpoint, trainer.pipeline, state.seconds, state.network_samples
    )


def load_object(config_path: Path, checkpoint: Path | None = None) -> GenerationPipeline:
    """The pipeline of a run, ready to render; the prior is not loaded. The newest checkpoint if None."""
    config = yaml.load(Path(config_path).read_text(), Loader=yaml.Loader)
    if not isinstance(config, GenerationTrainerConfig):
        raise SceneError(f"{config_path} is not the config.yml of a run that made an object.")
    path = checkpoint or find_checkpoint(Path(config_path).parent / config.relative_model_dir)
    device = "cuda" if config.machine.device_type == "cuda" and torch.cuda.is_available() else "cpu"
    pipeline = config.pipeline.setup(device=device, test_mode="inference")
    loaded = read_checkpoint(path)
    pipeline.checkpoint_path = path
    pipeline.load_pipeline(loaded["pipeline"], loaded["step"])
    pipeline.eval()
    return pipeline
