"""nerfstudio's trainer, in two phases: train the scene on its photos, then on views that are edited in rounds.

A round runs between two NeRF steps, outside of nerfstudio's training lock (so the viewer stays responsive) and outside
of its timer (so the table's speed and ETA stay those of NeRF steps). `max_num_iterations` are the NeRF steps of the
edit phase, in all three cases:

- from scratch: `scene_steps` on the photos come first;
- from a nerfacto checkpoint, or the scene of a run of ours: editing begins at once;
- from a checkpoint of a run of ours: what is left of both phases.
"""

from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.utils import writer

from csd_nerf.distill.editing import check_edit
from csd_nerf.distill.types import ImagePrior
from csd_nerf.priors.sharded import ShardedPrior, agreed, is_main, main_says, meet_on, processes
from csd_nerf.scenes.checkpoints import (
    find_checkpoint,
    keep_scene,
    lost_camera_corrections,
    read_checkpoint,
    write_checkpoint,
)
from csd_nerf.scenes.edit_options import with_flags
from csd_nerf.scenes.edit_pipeline import EditPipeline
from csd_nerf.scenes.edit_record import EditRecord, view_names
from csd_nerf.scenes.edit_session import EditSession
from csd_nerf.scenes.errors import SceneError
from csd_nerf.scenes.files import remove_leftovers
from csd_nerf.scenes.look_ahead import rounds_bank
from csd_nerf.scenes.random_state import restore_random_state
from csd_nerf.scenes.run_summary import (
    announce,
    announce_passes,
    announce_remaining,
    announce_resumption,
    summarize,
)
from csd_nerf.scenes.scene_editor import SceneEditor
from csd_nerf.scenes.scene_trainer import SceneTrainer
from csd_nerf.scenes.terminal import make_room_for_table, say
from csd_nerf.scenes.trainer_config import EditTrainerConfig, silent

_REMEDY = (
    "smaller learning rates (--optimizers.fields.optimizer.lr, --optimizers.proposal-networks.optimizer.lr) or "
    "--mixed-precision False"
)


class EditTrainer(SceneTrainer):
    """Trains a scene and edits it."""

    config: EditTrainerConfig
    pipeline: EditPipeline

    def __init__(
        self, config: EditTrainerConfig, local_rank: int = 0, world_size: int = 1, prior: ImagePrior | None = None
    ) -> None:
        if not is_main():
            config = silent(config)
        super().__init__(config, local_rank, world_size, _REMEDY)
        if world_size > 1:
            meet_on(self.device)
        self.edit_steps = config.max_num_iterations
        self.prior = prior
        self.scene_checkpoint: Path | None = None
        """The scene before its first edit: this run's, or that of the run that it goes on."""
        self._loaded: dict[str, Any] | None = None

    @property
    def session(self) -> EditSession:
        """State of the run."""
        assert self.pipeline.session is not None
        return self.pipeline.session

    def setup(self, test_mode: Literal["test", "val", "inference"] = "val") -> None:
        """Load prior, data, model and checkpoint, in this order, so that errors come before work."""
        self.prior = self._checked_prior()
        super().setup(test_mode)
        writer.GLOBAL_BUFFER["max_iter"] = self._start_step + self.config.max_num_iterations
        self.callbacks.append(TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN], self._summarize))
        announce(str(self.config.method_name), self.config.pipeline, self.session, self.prior, self.edit_steps)

    @property
    def is_deterministic(self) -> bool:
        """What --deterministic says."""
        return self.config.deterministic

    def train(self) -> None:
        """Train and edit until all steps are made."""
        try:
            super().train()
        finally:
            self.editor.end()

    def _checked_prior(self) -> ImagePrior:
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
                needs_image=not options.settings().parts.text_only,
            )
            check_edit(prior, options.prompt, options.settings())
            prior = prior if processes() == 1 else ShardedPrior(prior)
        except (PriorError, ValueError) as error:
            raise SceneError(f"--pipeline.prior {options.prior}: {with_flags(str(error))}") from error
        return prior

    def _load_checkpoint(self) -> None:
        """Load what --load-dir gives and find out what is left to do."""
        path = self.config.load_checkpoint
        if self.config.load_dir is not None:
            path = find_checkpoint(self.config.load_dir, self.config.load_step)
        if path is not None:
            self._resume(path)
        assert self.prior is not None
        names = view_names(self.pipeline.datamanager.train_dataset.image_filenames)
        data = str(self.pipeline.datamanager.get_datapath())
        record = EditRecord(self.base_dir / "edits", {"data": data, "prior": self.prior.name, "view_names": names})
        bank, ahead = rounds_bank(self.config.pipeline, self.prior, self.device)
        self.editor = SceneEditor(self.pipeline, self.prior, record, self.train_lock, bank, ahead)
        if path is not None:
            record.resume(path.parent.parent / "edits", self.session.rounds, self._start_step - 1)
            self.editor.restore_edits()
            self.editor.show_last_round()
            self._keep_scene(path)
        self.editor.check_rounds()
        remaining = self.session.remaining_steps(self.edit_steps)
        if remaining == 0:
            raise SceneError(
                f"--load-dir: all {self.edit_steps} edit steps of this run are done: raise --max-num-iterations, or "
                "start from the run's scene folder."
            )
        # A copy: config.yml and whoever gave the configuration keep the total.
        self.config = replace(self.config, max_num_iterations=remaining)

    def _resume(self, path: Path) -> None:
        loaded = read_checkpoint(path)
        self.pipeline.method, self.pipeline.checkpoint_path = str(self.config.method_name), path
        self._losses.resumed = path
        self.pipeline.load_pipeline(loaded["pipeline"], loaded["step"])
        self._last_step = int(loaded["step"])
        self._start_step = self._last_step + 1
        kept = self.pipeline.loaded_state
        if lost := lost_camera_corrections(self.pipeline.model, loaded["pipeline"]):
            say(f"The camera corrections of {path} are not used: {lost}.")
        if kept is None:  # a scene that plain nerfacto trained: optimisers begin anew (CSD C.3)
            self.session.phase = "edit"
            say(f"Loaded the scene {path}; editing begins.")
            return
        remove_leftovers(path.parent.parent)
        goes_on = bool(loaded["optimizers"])  # the checkpoint of a scene before its first edit has none
        viewer = self.config.is_viewer_enabled() or self.config.is_viewer_legacy_enabled()
        try:
            self.session.restore(kept["session"], keep_pause=viewer and goes_on)
        except ValueError as error:
            raise SceneError(f"--load-dir: checkpoint {path} does not fit --data: {error}.") from error
        if goes_on:
            self.load_optimizers(loaded)
        if loaded["scalers"]:  # a run on a CPU has none
            self.grad_scaler.load_state_dict(loaded["scalers"])
        self.pipeline.csd_edit.show(self.session.instruction)
        self._loaded = kept
        say(f"Resumed {path} after round {self.session.rounds}.")
        if goes_on:
            announce_resumption(self.session, kept["session"])

    def _keep_scene(self, loaded: Path) -> None:
        """Take the scene before its first edit over from the run of the `loaded` checkpoint, if it has one."""
        kept = loaded.parent.parent / "scene"
        if any(kept.glob("step-*.ckpt")):
            self.scene_checkpoint = keep_scene(find_checkpoint(kept), self.base_dir / "scene")
        elif self._loaded is None:  # plain nerfacto's: all of it is the scene
            self.scene_checkpoint = keep_scene(loaded, self.base_dir / "scene")

    def _init_viewer_state(self) -> None:
        """Called once before the first step: go on as the loaded run would have, with a round if one is due."""
        super()._init_viewer_state()
        if self._loaded is not None:
            if is_main():  # the other processes draw other rays
                restore_random_state(self._loaded["random"])
            self.pipeline.restore_sampler(self._loaded["sampler"])
            self._loaded = None
        self.editor.look_ahead(self.edit_steps)
        self._between_steps(self._start_step - 1)
        self._clock.restart()

    def _update_viewer_state(self, step: int) -> None:
        """Called after each step, outside of nerfstudio's lock and timer."""
        super()._update_viewer_state(step)
        self._last_step = step
        self.session.count_step(self._clock.seconds)
        self._between_steps(step)
        self.stop_training = agreed(self.stop_training)
        self._clock.restart()

    def _between_steps(self, step: int) -> None:
        """End the scene phase, restore the originals, run a round: whatever is due, in the main process if several."""
        session = self.session
        if main_says(session.scene_finished):
            self._begin_edit_phase(step)
        if main_says(session.restore_requested):
            self.editor.restore_originals(step)
        if session.phase == "edit" and session.edit_done >= self.edit_steps:
            # nerfstudio's loop is longer when the scene phase was cut short; nothing would be edited in what is left.
            self.stop_training = True
            self.pipeline.csd_edit.end()
        if not main_says(session.round_due(self.edit_steps)):
            return
        told, prompt = session.next_is_told, session.instruction.prompt
        try:
            finished = self.editor.run_round(step, lambda: agreed(self.stop_training))
        except (Exception, KeyboardInterrupt):  # whatever stops a round, the NeRF's steps since the last save are kept
            with suppress(SceneError):  # the disk may be full; the round's error is the one to tell
                self.save_checkpoint(step)
            raise
        if finished:
            self.editor.look_ahead(self.edit_steps)
        if finished and not session.by_pass:
            self.save_checkpoint(step)
        if finished and session.instruction.prompt != prompt:
            announce_passes(self.config.pipeline, session, self.edit_steps)
        if finished and told:
            announce_remaining(session, self.edit_steps)
            make_room_for_table()

    def _begin_edit_phase(self, step: int) -> None:
        """Re-initialise the optimisers (CSD C.3) and keep the scene as it is before the first edit."""
        self.session.phase = "edit"
        self.optimizers = self.setup_optimizers()
        self.scene_checkpoint = self.base_dir / "scene" / f"step-{step:09d}.ckpt"
        write_checkpoint(self.scene_checkpoint, self._checkpoint(step, optimizers=False), self.base_dir)
        self.save_checkpoint(step)  # so that a run killed in its first round goes on from here
        writer.GLOBAL_BUFFER["max_iter"] = step + 1 + self.edit_steps
        done, planned = self.session.scene_done, self.session.scene_steps
        trained = f"The scene is trained ({done} steps)"
        if done < planned:
            trained = f"Training on the photos ends after {done} of {planned} steps, since an edit was asked for"
        say(f"{trained}; editing begins. Start other edits of it with")
        say(f"  --load-dir {self.scene_checkpoint.parent}")
        make_room_for_table()

    def undisturbed(self) -> AbstractContextManager[None]:
        """See `EditPipeline.undisturbed`."""
        return self.pipeline.undisturbed()

    def before_saving(self) -> None:
        """A checkpoint needs the rounds that it knows."""
        self.editor.record.flush()

    def _summarize(self, step: int) -> None:
        """Called after training, before nerfstudio waits for the viewer to be closed."""
        data = self.pipeline.datamanager
        held_out = len(data.eval_dataset) if data.eval_dataset is not None else 0
        summarize(self.session, self.base_dir, self.scene_checkpoint, held_out)
