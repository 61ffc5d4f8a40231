"""What an edit of a video does, once everything is decided: the frames' latents are optimised or sampled."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.distill import (
    AnswerBank,
    CountingPrior,
    Distiller,
    EditSettings,
    FreeLatents,
    ImagePrior,
    NonFiniteError,
    RBFKernel,
    TemporalKernel,
    check_edit,
    make_edit_distiller,
    optimize,
    optimize_settings,
)
from csd_nerf.images.checkpoint import Checkpoint
from csd_nerf.images.frames import FrameTargets, Shown, decode_frames
from csd_nerf.images.running import EditSteps, Hooks, run_steps
from csd_nerf.priors.picture_sampling import sample_pictures

BATCH_SIZE = 8
"""Frames in a step."""
VISITS = 67
"""How often a frame is optimised by default: 200 steps of 8 of 24 frames (CSD C.2 has 200 to 500 steps)."""


def check_video(prior: ImagePrior, prompt: str, settings: EditSettings, temporal: float | None) -> None:
    """Raise `ValueError` at once for what would fail later."""
    check_edit(prior, prompt, settings)
    check_temporal(settings, temporal)


def check_temporal(settings: EditSettings, temporal: float | None) -> None:
    """Raise `ValueError` for a temporal kernel that cannot work, or has nothing to weigh."""
    if temporal is None:
        return
    if not temporal > 0:
        raise ValueError(f"temporal={temporal}: give seconds above 0")
    if settings.resolved().kernel != "rbf":
        raise ValueError(f"temporal={temporal} has no meaning for editor={settings.editor}, whose frames do not listen")


def steps_for(frames: int, batch_size: int, visits: int = VISITS) -> int:
    """Optimisation steps in which each frame is optimised `visits` times, on average."""
    return max(1, round(visits * frames / min(batch_size, frames)))


@dataclass
class VideoEdit(EditSteps):
    """An edit of frames, prepared and checked."""

    prior: ImagePrior
    settings: EditSettings
    targets: FrameTargets
    generator: torch.Generator
    times: Float[Tensor, " n"]
    """Of the frames, in seconds."""
    temporal: float | None = None
    """Scale of the temporal kernel in seconds; None is the paper's kernel."""
    current: Tensor | None = None
    """Where the optimised latents lie; None makes them in main memory. Changed in place."""
    bank: AnswerBank | None = None
    """Where answers about the source are kept."""

    def __post_init__(self) -> None:
        """Begin with the source."""
        self.sampled = 0
        """Frames that an editor that samples is done with; the others are the source's."""
        if self.current is None:
            self.current = self.targets.source.clone()
        else:
            self.current.copy_(self.targets.source)

    @property
    def latents(self) -> Float[Tensor, "n c h w"]:
        """Those of all frames as they are now."""
        assert self.current is not None
        return self.current

    def run(self, resume: Checkpoint | None = None, hooks: Hooks | None = None) -> tuple[Checkpoint, bool]:
        """Do the work, from where `resume` stopped: where it stands, and whether all steps were made.

        Raises `NonFiniteError` with the checkpoint of what was reached before in `partial`; its particle is a frame.
        """
        if resume is not None:
            self.latents.copy_(resume.latents)
        outcome = run_steps(self, resume, hooks or Hooks(), lambda done: None)
        if outcome.failure is not None:
            error = outcome.failure
            raise NonFiniteError(error.what, error.t, error.particle, error.step, outcome.checkpoint) from None
        return outcome.checkpoint, outcome.complete

    def pictures(
        self,
        size: tuple[int, int],
        on_frame: Callable[[int], None] = lambda done: None,
        *,
        frames: Iterable[Float[Tensor, "3 H W"]] = (),
    ) -> Iterator[Float[Tensor, "3 H W"]]:
        """The frames as they are now, decoded and enlarged to height and width `size`, one by one, on the CPU.

        From `frames`, the source's, of that size, they get back the detail of what has not changed, unless the settings
        keep none; without them nothing is given back. `on_frame` is told how many were given out.
        """
        keep = self.settings.resolved().keep_detail
        before = Shown(frames, self.targets.source, keep) if frames and keep else None
        for done, picture in enumerate(decode_frames(self.prior, self.latents, size, before), start=1):
            yield picture
            on_frame(done)

    def solve(
        self,
        prior: CountingPrior,
        first_step: int,
        report: Callable[[int], None],
        should_stop: Callable[[], bool] | None,
    ) -> int:
        """Change the latents; how many steps led to them."""
        if self.settings.parts.samples:
            return self._sample(prior, report, should_stop)
        reached = optimize(
            self._distiller(prior),
            FreeLatents(self.latents, self.prior.device),
            self.targets,
            optimize_settings(self.settings),
            self.generator,
            first_step=first_step,
            on_step=lambda done, _: report(done),
            should_stop=should_stop,
        )
        return reached.steps

    def _distiller(self, prior: CountingPrior) -> Distiller:
        distiller = make_edit_distiller(prior, self.settings, self.bank)
        if self.temporal is None:
            return distiller
        if not isinstance(distiller.kernel, RBFKernel):
            raise ValueError("the temporal kernel weighs how frames hear each other: this editor's frames do not")
        return replace(distiller, kernel=TemporalKernel(self.times, self.temporal, distiller.kernel.bandwidth))

    def _sample(
        self, prior: CountingPrior, report: Callable[[int], None], should_stop: Callable[[], bool] | None
    ) -> int:
        """Each frame by itself, in groups. With shared noise every group draws the same."""
        frames, steps = len(self.latents), self.settings.total_steps
        groups = torch.arange(frames).split(self.settings.batch_size or BATCH_SIZE)
        noise = self.generator.get_state()
        settings = replace(self.settings, batch_size=None)
        for number, rows in enumerate(groups):
            if settings.resolved().noise == "shared":
                self.generator.set_state(noise)
            start = self.targets.source[rows].to(self.prior.device)

            def after(done: int, number: int = number) -> None:
                report((number * steps + done) // len(groups))

            reached = sample_pictures(prior, start, self.targets[rows], settings, self.generator, after, should_stop)
            if reached.failure is not None:
                error = reached.failure
                raise NonFiniteError(error.what, error.t, int(rows[error.particle]), error.step)
            if reached.steps < steps:
                return 0
            self.latents[rows] = reached.latents.to(self.latents)
            self.sampled += len(rows)
        return steps
