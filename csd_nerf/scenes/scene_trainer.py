"""What every trainer of ours adds to nerfstudio's: whole checkpoints, a halt on NaN, pauses that cost no time.

- A checkpoint is written whole or not at all, under the number of the last step that was made.
- A loss that is not finite any more ends the run before a checkpoint of it is written.
- On a CPU sums are made in one order, so that the same seed gives the same scene, bit by bit.
- Evaluation, which draws random numbers, leaves those of the training alone.
"""

from abc import abstractmethod
from contextlib import AbstractContextManager
from typing import Any, Literal

from nerfstudio.engine.trainer import TRAIN_INTERATION_OUTPUT, Trainer, TrainerConfig
from nerfstudio.utils.misc import step_check

from csd_nerf.priors.sharded import is_main
from csd_nerf.scenes import compatibility  # noqa: F401 - what nerfstudio needs here applies on import
from csd_nerf.scenes.checkpoints import write_checkpoint
from csd_nerf.scenes.divergence import LossWatch
from csd_nerf.scenes.learning_rates import take_learning_rates
from csd_nerf.scenes.random_state import deterministic
from csd_nerf.scenes.terminal import say
from csd_nerf.scenes.work_clock import WorkClock


class SceneTrainer(Trainer):
    """nerfstudio's trainer, made safe to stop and to resume."""

    def __init__(self, config: TrainerConfig, local_rank: int = 0, world_size: int = 1, remedy: str = "") -> None:
        """`remedy` says which flags to change where the loss is not finite."""
        # Both before nerfstudio sets `training_state`.
        self._clock, self._processes = WorkClock(), world_size
        super().__init__(config, local_rank, world_size)
        self.stop_training = False
        self._last_step: int | None = None
        self._saved_step: int | None = None
        self._losses = LossWatch(self.checkpoint_dir, self.grad_scaler.is_enabled(), remedy)

    @property
    def training_state(self) -> Literal["training", "paused", "completed"]:
        """Whether the loop steps; the viewer's buttons change it.

        Of several processes none pauses: the others would wait for it until they give up.
        """
        return self._training_state

    @training_state.setter
    def training_state(self, state: Literal["training", "paused", "completed"]) -> None:
        if state == "paused" and self._processes > 1:
            say("Several processes train this scene (--machine.num-devices): they cannot be paused, and go on.")
            state = "training"
        self._training_state: Literal["training", "paused", "completed"] = state
        self._clock.set_paused(state == "paused")

    @property
    @abstractmethod
    def is_deterministic(self) -> bool:
        """Whether the configuration asks for the same scene each time."""

    @abstractmethod
    def undisturbed(self) -> AbstractContextManager[None]:
        """Within, something may render or evaluate without changing how training goes on."""

    def before_saving(self) -> None:
        """Write what a checkpoint needs beside itself."""

    def load_optimizers(self, loaded: dict[str, Any]) -> None:
        """Take optimisers and schedules of a checkpoint, but the learning rates that the flags say now."""
        parts = self.optimizers
        parts.load_optimizers(loaded["optimizers"])
        if self.config.load_scheduler:
            parts.load_schedulers(loaded["schedulers"])
        rates = {name: entry["optimizer"].lr for name, entry in self.config.optimizers.items()}
        for name, (before, now) in take_learning_rates(parts.optimizers, parts.schedulers, rates).items():
            flag = f"--optimizers.{name.replace('_', '-')}.optimizer.lr"
            say(f"Other than in that run, and used from now on: {flag} {now:g} (was {before:g}).")

    def train(self) -> None:
        """Train until all steps are made."""
        with deterministic(self.is_deterministic and self.device == "cpu"):
            super().train()

    def train_iteration(self, step: int) -> TRAIN_INTERATION_OUTPUT:
        """A step. Raises `SceneError`, with the last checkpoint untouched, when the NeRF has diverged."""
        try:
            output = super().train_iteration(step)
        except FloatingPointError as error:
            raise self._losses.failure(step, str(error)) from error
        self._losses.check(output[0], step)
        return output

    def eval_iteration(self, step: int) -> None:
        """Evaluate as nerfstudio does, but without changing the random numbers that training draws."""
        config = self.config
        logged = config.is_wandb_enabled() or config.is_tensorboard_enabled() or config.is_comet_enabled()
        every = (config.steps_per_eval_batch, config.steps_per_eval_image, config.steps_per_eval_all_images)
        if not logged or not any(step_check(step, steps) for steps in every):
            return  # keeping the random numbers costs more than a look at the step
        with self.undisturbed():
            super().eval_iteration(step)

    def save_checkpoint(self, step: int) -> None:
        """Save a checkpoint that is whole or absent, then drop older ones if so configured.

        nerfstudio calls this at the end with a step that was not made if the run was stopped.
        """
        step = step if self._last_step is None else self._last_step
        path = self.checkpoint_dir / f"step-{step:09d}.ckpt"
        if step == self._saved_step and path.exists():
            return
        if not is_main():
            self._saved_step = step
            return
        self._losses.check_weights(self.pipeline.state_dict(), step)
        self._saved_step = step
        self.before_saving()
        write_checkpoint(path, self._checkpoint(step), self.base_dir)
        if self.config.save_only_latest_checkpoint:
            for other in self.checkpoint_dir.glob("step-*.ckpt"):
                if other != path:
                    other.unlink()

    def _checkpoint(self, step: int, optimizers: bool = True) -> dict[str, Any]:
        chosen = self.optimizers if optimizers else None
        return {
            "step": step,
            # As of a single process: DistributedDataParallel puts its name before those of the weights.
            "pipeline": {
                name.replace("_model.module.", "_model."): w for name, w in self.pipeline.state_dict().items()
            },
            "optimizers": {name: part.state_dict() for name, part in chosen.optimizers.items()} if chosen else {},
            "schedulers": {name: part.state_dict() for name, part in chosen.schedulers.items()} if chosen else {},
            "scalers": self.grad_scaler.state_dict(),
        }
