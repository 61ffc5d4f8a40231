"""The configuration of a run: nerfstudio's, with what an edit needs, checked before anything is loaded."""

import atexit
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.utils.external import TCNN_EXISTS
from nerfstudio.utils.rich_utils import CONSOLE

from csd_nerf.scenes.checkpoints import find_checkpoint
from csd_nerf.scenes.edit_options import EditPipelineConfig
from csd_nerf.scenes.errors import SceneError
from csd_nerf.scenes.files import remove_leftovers
from csd_nerf.scenes.scene_check import check_data, check_device, check_writable
from csd_nerf.scenes.terminal import say


def _edit_trainer() -> type:
    from csd_nerf.scenes.edit_trainer import EditTrainer

    return EditTrainer


@dataclass
class EditTrainerConfig(TrainerConfig):
    """A run that trains and edits a scene."""

    _target: type = field(default_factory=_edit_trainer)
    """Target class to instantiate."""
    pipeline: EditPipelineConfig = field(default_factory=EditPipelineConfig)
    """Pipeline configuration."""
    prompt: str | None = None
    """Short form of --pipeline.prompt."""
    max_num_iterations: int = 30000
    """NeRF steps while editing. The steps on the photos (--pipeline.scene-steps) come on top."""
    deterministic: bool = True
    """On a CPU, make the same seed give the same scene, bit by bit."""
    vis: Literal[
        "viewer", "wandb", "tensorboard", "comet", "viewer+wandb", "viewer+tensorboard", "viewer+comet", "none"
    ] = "viewer"
    """Which visualizer to use; with 'none' the command ends when training does."""

    def check(self) -> None:
        """Settle what depends on the machine; raise `SceneError` for whatever fails before anything is loaded."""
        self.pipeline.prompt = self.pipeline.prompt or self.prompt or ""
        self.pipeline.check()
        if self.max_num_iterations < 1:
            raise SceneError(f"--max-num-iterations {self.max_num_iterations}: give at least 1.")
        self._check_devices()
        check_data(self.pipeline.datamanager.data, self.pipeline.datamanager.dataparser)
        if self.load_dir is not None:
            find_checkpoint(self.load_dir, self.load_step)
        elif self.load_checkpoint is not None and not self.load_checkpoint.is_file():
            raise SceneError(f"--load-checkpoint {self.load_checkpoint} does not exist: give a step-*.ckpt file.")
        check_device("--pipeline.prior-device", self.pipeline.prior_device)
        if self.machine.device_type == "cuda" and not torch.cuda.is_available():
            self.machine.device_type = "cpu"
            if self.method_name == "csd-edit":
                say("No CUDA device: csd-edit takes hours on a CPU. csd-edit-lite is made for machines without a GPU.")
        if self.pipeline.model.implementation == "tcnn" and not (TCNN_EXISTS and self.machine.device_type == "cuda"):
            # Said in config.yml, so that a machine that has it can still load the checkpoint.
            say("The field runs in torch: tinycudann, which is faster, needs CUDA and is not available.")
            self.pipeline.model.implementation = "torch"
        check_writable(self.get_base_dir())
        remove_leftovers(self.get_base_dir())

    def _check_devices(self) -> None:
        """Several GPUs of one machine share the rays of a step and the rows of a round."""
        machine = self.machine
        if machine.num_machines > 1:
            raise SceneError("csd-edit runs on one machine: set --machine.num-machines 1.")
        if machine.num_devices == 1:
            return
        if machine.device_type != "cuda" or machine.num_devices > torch.cuda.device_count():
            raise SceneError(
                f"--machine.num-devices {machine.num_devices}: torch sees {torch.cuda.device_count()} GPU(s) here; "
                "give at most as many, or 1."
            )
        if self.pipeline.prior_device is not None:
            raise SceneError(
                "--pipeline.prior-device: with several devices each has a prior of its own; leave one of the flags out."
            )

    def save_config(self) -> None:
        """Check and write config.yml: the first thing that `ns-train` does with a configuration."""
        self.check()
        super().save_config()


def silent(config: EditTrainerConfig) -> EditTrainerConfig:
    """For the processes that are not the main one: they say nothing, and what they write lies in a folder of its own.

    It is removed when the process ends.
    """
    CONSOLE.quiet = True
    folder = tempfile.TemporaryDirectory(prefix="csd-edit-")
    atexit.register(folder.cleanup)
    return replace(config, output_dir=Path(folder.name), vis="none")
