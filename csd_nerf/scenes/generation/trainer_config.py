"""The configuration of a run that makes an object, checked before anything is loaded."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.utils.external import TCNN_EXISTS

from csd_nerf.scenes.checkpoints import find_checkpoint, read_checkpoint
from csd_nerf.scenes.errors import SceneError
from csd_nerf.scenes.files import remove_leftovers
from csd_nerf.scenes.generation.optimisers import WarmupCosineSchedulerConfig
from csd_nerf.scenes.generation.options import GenerationPipelineConfig
from csd_nerf.scenes.scene_check import check_device, check_writable
from csd_nerf.scenes.terminal import say


def _trainer() -> type:
    from csd_nerf.scenes.generation.trainer import GenerationTrainer

    return GenerationTrainer


@dataclass
class GenerationTrainerConfig(TrainerConfig):
    """A run that makes an object from a prompt."""

    _target: type = field(default_factory=_trainer)
    """Target class to instantiate."""
    pipeline: GenerationPipelineConfig = field(default_factory=GenerationPipelineConfig)
    """Pipeline configuration."""
    prompt: str | None = None
    """Short form of --pipeline.prompt."""
    experiment_name: str | None = "generated"
    """Folder of the run, in --output-dir."""
    max_num_iterations: int = 10000
    """Steps of the whole training, those before a resumption included."""
    steps_per_eval_batch: int = 0
    """Never: a batch of rays has a loss where there are photos."""
    deterministic: bool = True
    """On a CPU, make the same seed give the same object, bit by bit."""
    vis: Literal[
        "viewer", "wandb", "tensorboard", "comet", "viewer+wandb", "viewer+tensorboard", "viewer+comet", "none"
    ] = "viewer"
    """Which visualizer to use; with 'none' the command ends when training does."""

    def check(self) -> None:
        """Settle what depends on the machine; raise `SceneError` for whatever fails before anything is loaded."""
        self.pipeline.prompt = self.pipeline.prompt or self.prompt or self._earlier_prompt()
        if self.data is not None:
            self.pipeline.datamanager.data = self.data
        self.pipeline.check()
        if self.max_num_iterations < 1:
            raise SceneError(f"--max-num-iterations {self.max_num_iterations}: give at least 1.")
        if self.steps_per_eval_batch:
            raise SceneError(
                f"--steps-per-eval-batch {self.steps_per_eval_batch}: there are no photos that a batch of rays could "
                "be compared with; leave it out (--steps-per-eval-image measures whole views)."
            )
        for name, entry in self.optimizers.items():
            schedule = entry["scheduler"]
            if isinstance(schedule, WarmupCosineSchedulerConfig):
                schedule.max_steps = schedule.max_steps or self.max_num_iterations
                if not 0 <= schedule.warmup_steps < schedule.max_steps:
                    flag = f"--optimizers.{name.replace('_', '-')}.scheduler.warmup-steps"
                    raise SceneError(f"{flag} {schedule.warmup_steps}: give fewer than the {schedule.max_steps} steps.")
        if self.machine.num_devices * self.machine.num_machines > 1:
            raise SceneError(
                f"{self.method_name} runs on one device: set --machine.num-devices 1 and --machine.num-machines 1."
            )
        if self.load_dir is not None:
            find_checkpoint(self.load_dir, self.load_step)
        elif self.load_checkpoint is not None and not self.load_checkpoint.is_file():
            raise SceneError(f"--load-checkpoint {self.load_checkpoint} does not exist: give a step-*.ckpt file.")
        check_device("--pipeline.prior-device", self.pipeline.prior_device)
        self._settle_device()
        check_writable(self.get_base_dir())
        remove_leftovers(self.get_base_dir())

    def _earlier_prompt(self) -> str:
        """That of the run which this one goes on from; empty if there is none."""
        path = self.load_checkpoint
        if self.load_dir is not None:
            path = find_checkpoint(self.load_dir, self.load_step)
        if path is None or not path.is_file():
            return ""
        kept = read_checkpoint(path)["pipeline"].get("_extra_state")
        return str(kept["flags"].get("prompt", "")) if isinstance(kept, dict) and "flags" in kept else ""

    def save_config(self) -> None:
        """Check and write config.yml: the first thing that `ns-train` does with a configuration."""
        self.check()
        super().save_config()

    def _settle_device(self) -> None:
        if self.machine.device_type == "cuda" and not torch.cuda.is_available():
            self.machine.device_type = "cpu"
            if not str(self.method_name).endswith("-lite"):
                say(
                    f"No CUDA device: {self.method_name} takes days on a CPU. {self.method_name}-lite is made for "
                    "machines without a GPU."
                )
        if self.pipeline.model.implementation == "tcnn" and not (TCNN_EXISTS and self.machine.device_type == "cuda"):
            # Said in config.yml, so that a machine that has it can still load the checkpoint.
            self.pipeline.model.implementation = "torch"
