"""The trainer of an object that grows: loads the prior, resumes exactly, says what fails and how to go on."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, Literal

import torch
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.trainer import TRAIN_INTERATION_OUTPUT
from nerfstudio.utils import writer

from csd_nerf.distill.distiller import NonFiniteError
from csd_nerf.distill.types import ViewPrior
from csd_nerf.durations import duration
from csd_nerf.scenes.checkpoints import find_checkpoint, read_checkpoint
from csd_nerf.scenes.errors import SceneError
from csd_nerf.scenes.files import remove_leftovers
from csd_nerf.scenes.generation.options import Wish, flag_of, with_flags, with_panel_values
from csd_nerf.scenes.generation.panel import follow, welcome
from csd_nerf.scenes.generation.pipeline import GenerationPipeline, Guide
from csd_nerf.scenes.generation.summary import announce, log_line, summarize
from csd_nerf.scenes.generation.trainer_config import GenerationTrainerConfig
from csd_nerf.scenes.scene_trainer import SceneTrainer
from csd_nerf.scenes.terminal import say

_REMEDY = (
    "a smaller learning rate (--optimizers.fields.optimizer.lr), a lower --pipeline.guidance-scale, "
    "--pipeline.prior-dtype fp32 or --mixed-precision False"
)
_LOG_LINES = 20
"""Lines of a run that say how its losses stand."""
_MEMORY_ADVICE = (
    "give a smaller --pipeline.prior-batch-size, --pipeline.datamanager.resolution, "
    "--pipeline.datamanager.views-per-step or --pipeline.model.samples-per-ray (latent-fm: also "
    "--pipeline.decoder-rows or --pipeline.refine-resolution); the prior also fits better with --pipeline.prior-dtype "
    "fp16 or on a --pipeline.prior-device of its own. --load-dir goes on from the run's last checkpoint, if it has one"
)


class GenerationTrainer(SceneTrainer):
    """Makes an object."""

    config: GenerationTrainerConfig
    pipeline: GenerationPipeline

    def __init__(
        self, config: GenerationTrainerConfig, local_rank: int = 0, world_size: int = 1, prior: ViewPrior | None = None
    ) -> None:
        super().__init__(config, local_rank, world_size, _REMEDY)
        self.total_steps, self.prior = int(config.max_num_iterations), prior

    def setup(self, test_mode: Literal["test", "val", "inference"] = "val") -> None:
        """Load prior, model and checkpoint, in this order, so that errors come before work."""
        with _fitting("the run", self.device):
            self.prior = self._checked_prior()
            super().setup(test_mode)
            self.pipeline.guide = self.make_guide(self.prior)
        if self.viewer_state is not None:
            welcome(self.viewer_state.viser_server, self.pipeline.datamanager.evaluation_views)
        writer.GLOBAL_BUFFER["max_iter"] = self.total_steps
        self.callbacks.append(TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN], self._summarize))
        announce(str(self.config.method_name), self.config.pipeline, self.prior, self._start_step, self.total_steps)

    def make_guide(self, prior: ViewPrior) -> Guide:
        """What scores the views."""
        return self.config.pipeline.make_guide(prior)

    @property
    def is_deterministic(self) -> bool:
        """What --deterministic says."""
        return self.config.deterministic

    def undisturbed(self) -> AbstractContextManager[None]:
        """See `GenerationPipeline.undisturbed`."""
        return self.pipeline.undisturbed()

    def _checked_prior(self) -> ViewPrior:
        """The prior, loaded if it was not given, after checking that it can do what the flags ask for."""
        from csd_nerf.priors import PriorError, auto_precision, load_prior

        options = self.config.pipeline
        device = options.prior_device or self.device
        try:
            prior = self.prior or load_prior(
                options.prior,
                device=device,
                dtype=auto_precision(options.prior_dtype, device),
                batch_size=options.prior_batch_size,
            )
            options.check_prior(prior)
        except (PriorError, ValueError) as error:
            raise SceneError(f"--pipeline.prior {options.prior}: {with_flags(str(error))}") from error
        return prior

    def _load_checkpoint(self) -> None:
        """Load what --load-dir gives and find out what is left to do."""
        path = self.config.load_checkpoint
        if self.config.load_dir is not None:
            path = find_checkpoint(self.config.load_dir, self.config.load_step)
        self.pipeline.state.total_steps = self.total_steps
        if path is None:
            return
        loaded = read_checkpoint(path)
        self.pipeline.checkpoint_path = self._losses.resumed = path
        self.pipeline.load_pipeline(loaded["pipeline"], loaded["step"])
        self._last_step = int(loaded["step"])
        self._start_step = self._last_step + 1
        self._restore_state(path)
        self.load_optimizers(loaded)
        if loaded["scalers"]:  # a run on a CPU has none
            self.grad_scaler.load_state_dict(loaded["scalers"])
        remove_leftovers(path.parent.parent)
        left = self.total_steps - self._start_step
        if left < 1:
            raise SceneError(
                f"--load-dir: all {self.total_steps} steps of this run are done: raise --max-num-iterations to go on."
            )
        # A copy: config.yml and whoever gave the configuration keep the total.
        self.config = replace(self.config, max_num_iterations=left)
        say(f"Resumed {path} after step {self._last_step}.")

    def _restore_state(self, path: Any) -> None:
        kept, state = self.pipeline.loaded_state, self.pipeline.state
        if kept is None:
            raise SceneError(
                f"--load-dir: checkpoint {path} is of another method: give one of {self.config.method_name}."
            )
        state.seconds, state.network_samples = float(kept["seconds"]), int(kept["network_samples"])
        then, now = kept["flags"], state.flags
        # A flag that the checkpoint does not know is newer than it.
        changed = {name: (then[name], value) for name, value in now.items() if name in then and then[name] != value}
        if not {"prompt", "negative_prompt", "guidance_scale"} & changed.keys():
            state.wish = Wish(**kept["wish"])  # what the viewer had made of it
        self.pipeline.csd_generate.show(state.wish)
        if changed:
            values = ", ".join(f"{flag_of(name)} {value} (was {before})" for name, (before, value) in changed.items())
            say(f"Other than in that run, and used from now on: {values}.")
        planned = kept.get("total_steps", self.total_steps)
        if planned != self.total_steps:
            say(
                f"Other than in that run: --max-num-iterations {self.total_steps} (was {planned}). Whatever goes by "
                "the share of the steps that is done, such as the noise levels, moves with it."
            )

    def train_iteration(self, step: int) -> TRAIN_INTERATION_OUTPUT:
        """A step. Raises `SceneError`, with the last checkpoint untouched, for NaN and for a lack of memory."""
        self._read_panel()
        try:
            with _fitting(f"step {step}", self.device):
                output = super().train_iteration(step)
        except NonFiniteError as error:
            at = "" if error.t is None else f", noise level t = {error.t}"
            raise self._losses.failure(step, f"{error.what} of view {error.particle} is not finite{at}") from error
        if (step + 1) % max(1, self.total_steps // _LOG_LINES) == 0:
            say(log_line(step, output[1], output[2]))
        return output

    def _read_panel(self) -> None:
        panel, state = self.pipeline.csd_generate, self.pipeline.state
        state.wish, complaint = with_panel_values(panel.read(), state.wish)
        if complaint:
            panel.say(complaint)

    def _update_viewer_state(self, step: int) -> None:
        """Called after each step, outside of nerfstudio's lock and timer."""
        self.pipeline.state.seconds += self._clock.seconds
        panel, views = self.pipeline.csd_generate, self.pipeline.last_views
        if self.viewer_state is not None and views is not None and panel.locked:
            follow(self.viewer_state.viser_server, views)
        super()._update_viewer_state(step)
        self._last_step = step
        if step % 20 == 0:
            pace = self.pipeline.state.seconds / (step + 1)
            panel.say(f"Step {step + 1} of {self.total_steps}, {duration(pace * (self.total_steps - step - 1))} left")
        self._clock.restart()

    def _summarize(self, step: int) -> None:
        """Called after training, before nerfstudio waits for the viewer to be closed."""
        self.pipeline.csd_generate.say("Training has ended: start a run with --load-dir to go on.")
        summarize(str(self.config.method_name), self.pipeline.state, self.base_dir)


@contextmanager
def _fitting(what: str, device: Any) -> Iterator[None]:
    """Turn a lack of memory into a `SceneError` with advice."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        gpu = isinstance(error, torch.cuda.OutOfMemoryError)
        if not (gpu or isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error)):
            raise
        raise SceneError(f"{what} does not fit into the memory of {device}: {_MEMORY_ADVICE}.") from error
