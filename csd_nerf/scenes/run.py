"""`csd-edit` from Python: the run that `ns-train` makes, in this process and without its command line."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from csd_nerf.distill.types import ImagePrior
from csd_nerf.scenes.checkpoints import find_checkpoint
from csd_nerf.scenes.edit_config import edit_config, lite_config
from csd_nerf.scenes.edit_trainer import EditTrainer, EditTrainerConfig
from csd_nerf.scenes.random_state import seed_everything
from csd_nerf.scenes.terminal import own_writers

_METHODS = {"csd-edit": edit_config, "csd-edit-lite": lite_config}


@dataclass(frozen=True)
class EditRun:
    """A finished run."""

    folder: Path
    """The run's folder."""
    config_path: Path
    """Its config.yml, for `ns-viewer`, `ns-render`, `ns-eval`, `ns-export` and `render_views`."""
    checkpoint: Path
    """The edited scene."""
    scene_checkpoint: Path
    """The scene before the edit."""
    edits: Path
    """Folder of the edited views, with edits.json."""
    rounds: int
    """Rounds of edits, those before a resumption included."""
    edited_views: int
    """Training views that show an edit at the end."""
    nerf_seconds: float
    """Time spent on NeRF steps."""
    edit_seconds: float
    """Time spent in rounds."""
    network_samples: int
    """Rows through the prior's network in all rounds, counted; those before a resumption included."""


def run_edit(
    data: Path | str,
    prompt: str,
    *,
    method: Literal["csd-edit", "csd-edit-lite"] = "csd-edit-lite",
    output_dir: Path | str = "outputs",
    prior: str | Path | ImagePrior | None = None,
    seed: int = 0,
    scene_steps: int | None = None,
    edit_steps: int | None = None,
    max_num_iterations: int | None = None,
    load_dir: Path | str | None = None,
    timestamp: str | None = None,
    configure: Callable[[EditTrainerConfig], Any] | None = None,
) -> EditRun:
    """Train a scene, edit it, and return where everything is. No viewer is started.

    Arguments that are None keep the method's default. `seed` seeds the NeRF and the edits. `timestamp` names the run's
    folder. `configure` may change anything else in the configuration before the run starts. Raises `SceneError`.
    """
    config = _METHODS[method]()
    options = config.pipeline
    options.prompt, options.seed, config.machine.seed = prompt, seed, seed
    options.datamanager.data, config.data = Path(data), Path(data)
    config.output_dir, config.vis = Path(output_dir), "none"
    if isinstance(prior, (str, Path)):
        options.prior = str(prior)
    elif prior is not None:
        options.prior = prior.name
    for name, value in (("scene_steps", scene_steps), ("edit_steps", edit_steps)):
        if value is not None:
            setattr(options, name, value)
    if max_num_iterations is not None:
        config.max_num_iterations = max_num_iterations
    if load_dir is not None:
        config.load_dir = Path(load_dir)
    if timestamp is not None:
        config.timestamp = timestamp
    if configure is not None:
        configure(config)
    return train(config, prior if not isinstance(prior, (str, Path)) else None)


def train(config: EditTrainerConfig, prior: ImagePrior | None = None) -> EditRun:
    """Run a configuration, with the given prior if it is loaded already."""
    config.set_timestamp()
    config.save_config()
    seed_everything(config.machine.seed)
    trainer = EditTrainer(config, prior=prior)
    with own_writers():
        trainer.setup()
        trainer.train()
    session, folder = trainer.session, trainer.base_dir
    checkpoint = find_checkpoint(trainer.checkpoint_dir)
    return EditRun(
        folder=folder,
        config_path=folder / "config.yml",
        checkpoint=checkpoint,
        scene_checkpoint=trainer.scene_checkpoint or checkpoint,
        edits=folder / "edits",
        rounds=session.rounds,
        edited_views=session.edited_views,
        nerf_seconds=session.nerf_seconds,
        edit_seconds=session.edit_seconds,
        network_samples=session.network_samples,
    )
