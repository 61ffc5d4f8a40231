"""One round of edits: render, edit, record, replace the training views (CSD Section 4.3, C.3)."""

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from csd_nerf.distill.banked import AnswerBank, MemoryBank
from csd_nerf.distill.distiller import NonFiniteError
from csd_nerf.distill.editing import EditResult, check_groups, edit_images
from csd_nerf.distill.types import ImagePrior
from csd_nerf.durations import duration
from csd_nerf.priors.picture_sampling import solver_of
from csd_nerf.priors.sharded import from_main
from csd_nerf.scenes.contact_sheet import ViewRow, contact_sheet, to_uint8, view_rows
from csd_nerf.scenes.edit_options import with_flags
from csd_nerf.scenes.edit_pipeline import EditPipeline
from csd_nerf.scenes.edit_record import EditRecord
from csd_nerf.scenes.edit_session import EditSession
from csd_nerf.scenes.errors import SceneError
from csd_nerf.scenes.look_ahead import LookAhead
from csd_nerf.scenes.panel_values import with_panel_values
from csd_nerf.scenes.terminal import RoundProgress, say

_PRIOR_ADVICE = (
    "resume with a smaller --pipeline.prior-batch-size (rows in one call of the UNet); if that is 1 already, or it is "
    "the autoencoder that does not fit, with --pipeline.prior-dtype fp16 or another --pipeline.prior-device"
)
_RENDER_ADVICE = "resume with a smaller --pipeline.model.eval-num-rays-per-chunk (rays rendered at once)"


@dataclass
class SceneEditor:
    """Runs rounds on a pipeline's training views."""

    pipeline: EditPipeline
    """Model, views and session."""
    prior: ImagePrior
    """Frozen; shared by all rounds."""
    record: EditRecord
    """Where edits are kept."""
    lock: AbstractContextManager[Any]
    """Held while the NeRF or its training views are touched. The networks run without it, so that the viewer, which
    needs it for each picture and each click, stays responsive: they do not touch the NeRF."""
    bank: AnswerBank | None = None
    """Where answers about the photos are kept."""
    ahead: bool = False
    """Whether to ask for them while the NeRF trains."""
    _rows: list[ViewRow] = field(default_factory=list, init=False)
    """Views for the next contact sheet."""
    _seconds: float = field(default=0.0, init=False)
    """Time of the rounds that the next line tells of."""
    _complaint: str = field(default="", init=False)
    """What was last said of the panel."""
    _ahead: LookAhead | None = field(default=None, init=False)

    @property
    def session(self) -> EditSession:
        """State of the run."""
        assert self.pipeline.session is not None
        return self.pipeline.session

    def look_ahead(self, edit_steps: int) -> None:
        """Begin to ask what the next round will ask about its photos, if there is one, and a device to spare."""
        if not self.ahead or self.bank is None or not self.session.rounds_left(edit_steps):
            return
        session, data = self.session, self.pipeline.datamanager.train_dataset
        originals = [data.original(view) for view in session.schedule.next_batch()]
        settings = self.pipeline.config.settings(session.instruction, session.prompt_passes)
        if isinstance(self.bank, MemoryBank):
            self.bank.clear()  # no later round asks what this one did: other noise
        self._ahead = self._ahead or LookAhead(self.prior, self.bank)
        self._ahead.begin(originals, session.instruction, settings, session.schedule.round_generator())

    def end(self) -> None:
        """End what asks ahead, for whoever uses the prior next. What went wrong in it is no longer of interest."""
        if self._ahead is not None:
            with suppress(Exception):
                self._ahead.finish()

    def check_rounds(self) -> None:
        """Raise `SceneError` if a round of the next pass has a number of views that the settings cannot edit."""
        plan, config = copy.deepcopy(self.session.schedule), self.pipeline.config
        data, settings = self.pipeline.datamanager.train_dataset, config.settings(self.session.instruction)
        try:
            for _ in range(plan.rounds_per_pass):
                check_groups(self.prior, [data.view_shape(view) for view in plan.next_batch()], settings)
                plan.finish_round()
        except ValueError as error:
            raise SceneError(with_flags(str(error)) + ", or another --pipeline.edit-batch-size.") from error

    def run_round(self, step: int, should_stop: Callable[[], bool]) -> bool:
        """Edit the next batch of views and train on them from now on; False if it was stopped.

        The condition is always the photo; the latents start at the current renders, at the photos or at noise. A
        stopped round leaves no trace and is run again, in the same way, by whoever resumes. Raises `SceneError` when a
        network returns something that is not finite, or the disk is full: the views then show what they showed before.
        """
        started = time.monotonic()
        session, panel, config = self.session, self.pipeline.csd_edit, self.pipeline.config
        session.schedule.requested = False  # before the panel is read: who asks after that has other values in mind
        instruction, complaint = with_panel_values(config, from_main(panel.read()), session.instruction, self.prior)
        session.use(instruction)
        number, views, told = session.rounds + 1, session.schedule.next_batch(), session.next_is_told
        label = f"Round {number}, {len(views)} view{'s' if len(views) > 1 else ''}"
        if complaint and not (session.by_pass and complaint == self._complaint):
            say(complaint)
        self._complaint = complaint

        def show(text: str) -> None:
            panel.say(f"{complaint}\n\n{text}".lstrip())

        with RoundProgress(label, show, quiet=session.by_pass) as progress:
            with self.lock, _fitting(number, self.pipeline.device, _RENDER_ADVICE):
                renders = self.pipeline.render_training_views(views)
            originals = [self.pipeline.datamanager.train_dataset.original(view) for view in views]
            entry = self._entry(step, views)
            try:
                with _fitting(number, self.prior.device, _PRIOR_ADVICE):
                    asked = self._ahead.finish() if self._ahead else 0
                    result = edit_images(
                        self.prior,
                        originals,
                        session.instruction.prompt,
                        negative_prompt=session.instruction.negative_prompt,
                        settings=config.settings(session.instruction, session.prompt_passes),
                        generator=session.schedule.round_generator(),
                        initial=renders if config.edit_init == "render" else None,
                        on_step=progress.update,
                        should_stop=should_stop,
                        solve=solver_of(config.editor, self.bank),
                    )
            except NonFiniteError as error:
                raise self._failure(number, views, entry, error) from error
            except ValueError as error:
                raise SceneError(f"round {number} cannot be made: {with_flags(str(error))}.") from error
        result = replace(result, network_samples=result.network_samples + asked)
        if not result.complete:
            panel.say("The round was stopped.")
            return False
        seconds = time.monotonic() - started
        entry["seconds"] = round(seconds, 2)
        self._keep(number, entry, result, view_rows(views, originals, renders, result.images), told)
        with self.lock:
            for view, image in zip(views, result.images, strict=True):
                self.pipeline.datamanager.put_view(view, to_uint8(image))
            session.finish_round(views, seconds, result.network_samples)
        show(f"{label} took {duration(seconds)}.")
        self._seconds += seconds
        if told:
            what = f"Pass {entry['pass']}, up to round {number}" if session.by_pass else label
            took = f"took {duration(self._seconds)}; see {self.record.sheet_path(number)}"
            say(f'{what}: "{session.instruction.prompt}" {took}')
            self._seconds = 0.0
        return True

    def _keep(self, number: int, entry: dict[str, Any], result: EditResult, rows: list[ViewRow], told: bool) -> None:
        """Write a round to the record and show it in the panel; with a contact sheet of all that are not told yet."""
        so_far = self.session.network_samples + result.network_samples
        entry |= {"network_samples": result.network_samples, "network_samples_so_far": so_far}
        pictures = {row.view: to_uint8(image) for row, image in zip(rows, result.images, strict=True)}
        sheet = None
        if told:
            shown = [*self._rows, *rows]
            sheet = contact_sheet(shown, blocks=max(2, math.ceil(len(shown) / 40)))
        self.record.write_round(number, entry, pictures, sheet, flush=not self.session.by_pass)
        self._rows = [] if told else [*self._rows, *rows]
        self.pipeline.csd_edit.show_contact_sheet(number, contact_sheet(rows, blocks=1))

    def restore_originals(self, step: int) -> None:
        """Train on the photos again. The next round begins a new pass."""
        with self.lock:
            for view in range(len(self.session.edited_in)):
                self.pipeline.datamanager.put_view(view, None)
            self.session.forget_edits()
        self._rows = []
        self.record.add_event({"event": "originals restored", "step": step, "rounds": self.session.rounds})
        self.pipeline.csd_edit.say("All views show their photos again.")

    def restore_edits(self) -> None:
        """Put the edits that the session knows back into the training set, from the record."""
        data = self.pipeline.datamanager
        for view, number in enumerate(self.session.edited_in):
            if not number:
                continue
            picture, (height, width) = self.record.read(number, view), data.train_dataset.view_shape(view)
            if picture.shape[:2] != (height, width):
                raise SceneError(
                    f"--load-dir: view {view} was edited at {picture.shape[1]} x {picture.shape[0]} pixels, now it has "
                    f"{width} x {height}: give --pipeline.datamanager.view-size (or the data parser's "
                    "--downscale-factor) as in that run, or start from its scene folder."
                )
            data.put_view(view, picture)
        if self.session.network_samples == 0:  # a checkpoint of a version that did not count them
            self.session.network_samples = self.record.network_samples

    def show_last_round(self) -> None:
        """Show the last contact sheet in the panel, if there is one."""
        with suppress(OSError):  # it is only for looking at
            if (last := self.record.last_sheet()) is not None:
                self.pipeline.csd_edit.show_contact_sheet(*last)

    def _entry(self, step: int, views: list[int]) -> dict[str, Any]:
        """What edits.json says about a round before it has run."""
        session, config = self.session, self.pipeline.config
        settings = config.settings(session.instruction, session.prompt_passes)
        return {
            "step": step,
            "pass": session.schedule.passes + (0 if session.schedule.remaining else 1),
            **session.instruction.to_state(),
            "edit_init": "noise" if settings.parts.from_noise else config.edit_init,
            "seed": config.seed,
            "settings": {name: value for name, value in settings.used().items() if name != "steps"},
            "edited": views,
        }

    def _failure(self, number: int, views: list[int], entry: dict[str, Any], error: NonFiniteError) -> SceneError:
        """Keep what the round had reached on disk, not in the training set, and say what happened."""
        where, partial = "", error.partial
        if isinstance(partial, EditResult):
            pictures = {view: to_uint8(image) for view, image in zip(views, partial.images, strict=True)}
            folder = self.record.write_partial(number, entry | {"error": str(error)}, pictures)
            where = f" What it had reached is in {folder}."
        at = "" if error.step is None else f" at edit step {error.step}"
        at += "" if error.t is None else f", noise level t = {error.t}"
        return SceneError(
            f"round {number} failed: {error.what} of view {views[error.particle]} of the training set is not "
            f"finite{at}. The views keep what they showed before.{where} Try --pipeline.prior-dtype fp32, a lower "
            "--pipeline.guidance-scale or a smaller --pipeline.lr."
        )


@contextmanager
def _fitting(number: int, device: Any, advice: str) -> Iterator[None]:
    """Turn a lack of memory on `device` into a `SceneError` with advice."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        gpu = isinstance(error, torch.cuda.OutOfMemoryError)
        if not (gpu or isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error)):
            raise
        raise SceneError(f"round {number} does not fit into the memory of {device}: {advice}.") from error
