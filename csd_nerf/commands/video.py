"""`csd video`: edit a video or a folder of frames. Heavy libraries load when it runs, not for its help."""

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from csd_nerf.commands.edit_flags import EditFlags, check_alone, check_together, own_flags, preview_path
from csd_nerf.commands.processes import RANK, working_together
from csd_nerf.commands.sitting import conclude, finishing, progress, say, sitting
from csd_nerf.durations import duration

if TYPE_CHECKING:
    from csd_nerf.images.checkpoint import Checkpoint
    from csd_nerf.images.video_edit import VideoEdit
    from csd_nerf.images.video_reading import VideoSource


@dataclass(frozen=True)
class Video:
    """Edit a video with one instruction, all frames alike; it keeps its rate, size, colours' range and sound.

    Ctrl-C writes what is reached; the same command with --resume goes on from there.
    """

    input: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IN")]
    """The video, in any container that PyAV reads, or a folder of frames."""
    output: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """The edited video, or a folder for its frames, which keep their transparency there."""
    prompt: str
    """The instruction, such as "make it night"."""
    editor: Literal["csd-edit", "no-svgd", "random-noise", "sds", "dds", "ip2p"] = "csd-edit"
    """csd-edit, its ablations, dds (where --prompt is a caption of what is wanted), or each frame by itself with
    InstructPix2Pix."""
    noise: Literal["shared", "independent"] | None = None
    """All frames of a step see one noise, or each its own; default: the preset's (each its own; ip2p: one)."""
    temporal: float | None = None
    """Seconds: frames further apart listen less to each other; default: the paper's kernel, which knows no time."""
    frames: str = ""
    """A:B:S, as Python slices: the frames from A on, before B, every S-th; default: all."""
    max_frames: int | None = None
    """At most so many of these."""
    latents: Literal["memory", "disk"] = "memory"
    """Where the frames' latents lie while they are edited; disk is for hours of video (beside OUT, removed after)."""
    preview: int | None = None
    """Edit only so many frames, show them before and after in OUT's name with _preview.png, and end."""
    resume: bool = False
    """Go on from where this command was stopped."""
    flags: Annotated[EditFlags, tyro.conf.arg(name="")] = field(default_factory=EditFlags)

    def run(self) -> int:
        """Edit and write; status 130 if it was stopped."""
        with working_together(self.flags.device), own_flags():
            return self._run()

    def _run(self) -> int:
        from csd_nerf.images.checkpoint import checkpoint_path, load_checkpoint
        from csd_nerf.images.video import remove_latents
        from csd_nerf.images.video_writing import write_video_like

        video, settings, prior = self._checked()
        if self.preview is not None:
            return self._preview(video, settings, prior)
        asked = self._asked(video, settings)
        before = load_checkpoint(checkpoint_path(self.output), asked) if self.resume else None
        try:
            edit = self._prepared(video, settings, prior)
            height, width = (side * prior.factor for side in edit.latents.shape[-2:])
            say(
                f"{video.count} frames of {video.width} x {video.height} pixels, edited at {width} x {height}, "
                f"{edit.total} steps" + (f", going on from step {before.step}" if before else "")
            )
            with finishing(self.output, asked):
                state, complete, failure = self._edit(edit, before, asked)
                with progress("Writing") as update:
                    pictures = edit.pictures(
                        (video.height, video.width), lambda n: update(n, video.count), frames=video
                    )
                    if RANK == 0:
                        self._forget_frames(video)
                        write_video_like(self.output, video, pictures)
                    else:
                        deque(pictures, maxlen=0)  # the processes decode them together
        finally:
            if self.latents == "disk":
                remove_latents(self._folder())
        say(f"{self.output} ({state.network_samples} network samples, {duration(state.seconds)})")
        rest = video.count - edit.sampled
        holds = None if edit.resumable else f"has {edit.sampled} sampled frames and {rest} of the source"
        return conclude(self.output, asked, state, edit.total, complete, failure, holds)

    def _checked(self) -> tuple["VideoSource", Any, Any]:
        """Everything that can be said before the first frame is encoded."""
        from csd_nerf.images.checkpoint import checkpoint_path, load_checkpoint
        from csd_nerf.images.frame_range import FrameRange
        from csd_nerf.images.running import with_steps
        from csd_nerf.images.video import settings_for
        from csd_nerf.images.video_edit import BATCH_SIZE, check_temporal, check_video, steps_for
        from csd_nerf.images.video_reading import open_video
        from csd_nerf.images.video_writing import check_video_output

        going_on = self.resume and self.output.is_dir()  # where the frames of the stopped edit are
        if not going_on:
            check_video_output(self.output)
        if self.input.exists() and self.output.exists() and self.input.samefile(self.output):
            raise ValueError(f"OUT {self.output} is IN: give another file, the source is still needed")
        for flag, value in (("--max-frames", self.max_frames), ("--preview", self.preview)):
            if value is not None and value < 1:
                raise ValueError(f"{flag} {value}: give at least 1")
        if not self.prompt.strip():
            raise ValueError('--prompt is empty: say what to change, such as --prompt "make it night"')
        if self.preview is not None:
            preview_path(self.output, self.input)
        kept = {"--resume": self.resume, "--latents disk": self.latents == "disk"}
        check_alone(self.preview, kept | {"--source-bank": self.flags.source_bank})
        self.flags.check_for(self.editor, self.editor)
        settings = settings_for(self.editor, self.flags.settings(self.noise))
        settings.validate()
        check_temporal(settings, self.temporal)
        if settings.parts.samples and self.resume and not checkpoint_path(self.output).is_file():
            raise ValueError(f"--editor {self.editor} has no steps to go on from: leave --resume out")
        if self.resume and not checkpoint_path(self.output).is_file():
            load_checkpoint(checkpoint_path(self.output), {})  # which says what is wrong
        video = open_video(self.input, FrameRange.parse(self.frames) if self.frames else FrameRange(), self.max_frames)
        settings = with_steps(settings, steps_for(video.count, settings.batch_size or BATCH_SIZE))
        if not going_on:
            check_video_output(self.output, video)
        self._check_folder()
        check_together(settings, video.count, self.preview)
        prior = self.flags.load(needs_image=self.editor != "dds")
        check_video(prior, self.prompt, settings, self.temporal)
        return video, settings, prior

    def _prepared(self, video: "VideoSource", settings: Any, prior: Any) -> "VideoEdit":
        from csd_nerf.images.video import prepare_video

        bank = self.flags.bank(prior, settings)
        with progress("Reading") as update:
            edit = prepare_video(
                prior,
                video,
                video.timestamps,
                (self.prompt, self.flags.negative),
                settings,
                temporal=self.temporal,
                seed=self.flags.seed,
                latents_in=self._folder() if self.latents == "disk" else None,
                on_frame=update,
            )
        edit.bank = bank
        return edit

    def _forget_frames(self, video: "VideoSource") -> None:
        """Make room in a folder for the frames that go on from those in it; other pictures are not touched."""
        if self.resume and self.output.is_dir():
            for index in range(video.count):
                stem = video.files[index].stem if video.files else f"{index:05d}"
                (self.output / f"{stem}.png").unlink(missing_ok=True)

    def _folder(self) -> Path:
        return self.output.with_name(f"{self.output.name}.latents{f'.{RANK}' if RANK else ''}")

    def _check_folder(self) -> None:
        """Latents of a process that was killed are overwritten; what else the folder holds is somebody's."""
        from csd_nerf.images.video import LATENT_FILES

        folder = self._folder()
        if self.latents == "disk" and folder.exists():
            others = [] if not folder.is_dir() else [path for path in folder.iterdir() if path.name not in LATENT_FILES]
            if others or not folder.is_dir():
                raise ValueError(
                    f"--latents disk needs {folder} for itself, which is there already"
                    + (f" with {others[0].name} in it" if others else "")
                    + ": move it away, or give another OUT"
                )

    def _asked(self, video: "VideoSource", settings: Any) -> dict[str, Any]:
        """What decides the result, in words."""
        from csd_nerf.images.checkpoint import content_digest

        digest = content_digest(video.files or [video.path])
        return {
            "frames": f"{video.count} of {video.width} x {video.height} from {self.input.name}, {digest}",
            "range": self.frames,
            "prompt": self.prompt,
            "temporal": self.temporal,
            **self.flags.asked(settings),
            "editor": self.editor,
        }

    def _preview(self, video: "VideoSource", settings: Any, prior: Any) -> int:
        """Edit some frames, evenly spread, each as often as in the whole; only they are encoded."""
        import torch

        from csd_nerf.images.running import steps_of_some
        from csd_nerf.images.video import prepare_video
        from csd_nerf.images.writing import contact_sheet
        from csd_nerf.whole_files import write_atomically

        assert self.preview is not None
        some = min(self.preview, video.count)
        rows = torch.linspace(0, video.count - 1, some).round().long().tolist()
        visits = settings.total_steps * min(settings.batch_size or some, video.count) / video.count
        frames = [frame for index, frame in enumerate(video) if index in rows]
        with progress("Reading") as update:
            few = prepare_video(
                prior,
                frames,
                [video.timestamps[row] for row in rows],
                (self.prompt, self.flags.negative),
                steps_of_some(settings, visits, some),
                temporal=self.temporal,
                seed=self.flags.seed,
                on_frame=update,
            )
        size = (video.height, video.width)
        before = list(few.pictures(size, frames=frames))
        with sitting(self.output, None, 0) as hooks:
            few.run(hooks=hooks)
        sheet = contact_sheet([("source", before), ("edited", list(few.pictures(size, frames=frames)))])
        path = preview_path(self.output, self.input)
        if RANK == 0:
            write_atomically(path, lambda temporary: sheet.save(temporary))
        say(f"{path}: {len(before)} frames; leave --preview out to edit them all")
        return 0

    def _edit(
        self, edit: "VideoEdit", before: "Checkpoint | None", asked: dict[str, Any]
    ) -> "tuple[Checkpoint, bool, Exception | None]":
        """Do the work: where it stands, whether it is complete, and why it ended before its time."""
        from csd_nerf.distill import NonFiniteError

        with sitting(self.output, asked, before.step if before else 0) as hooks:
            try:
                return *edit.run(before, hooks), None
            except NonFiniteError as error:
                return error.partial, False, error
