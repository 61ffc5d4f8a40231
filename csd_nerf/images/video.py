"""Videos: frames as particles (CSD Sections 4.2, B.4, C.2).

    from csd_nerf.images import edit_video
    from csd_nerf.priors import load_prior

    edit_video(load_prior("toy"), "walk.mp4", "night.mp4", "make it night")

Frames are read one by one, shrunk to the prior's size (aspect kept), encoded, optimised together in random batches,
decoded and enlarged again: neither memory nor the network ever sees more than a batch of them. Their latents lie in
main memory, or in files.
"""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.distill import EditSettings, ImagePrior, NonFiniteError
from csd_nerf.images.checkpoint import Checkpoint
from csd_nerf.images.frame_range import FrameRange
from csd_nerf.images.frames import FrameTargets, encode_frames
from csd_nerf.images.running import Hooks, with_steps
from csd_nerf.images.video_edit import BATCH_SIZE, VideoEdit, check_video, steps_for
from csd_nerf.images.video_reading import open_video
from csd_nerf.images.video_writing import check_video_output, write_video_like

VideoEditor = Literal["csd-edit", "no-svgd", "random-noise", "sds", "dds", "ip2p"]
"""CSD-Edit and its ablations, Delta Denoising Score, and each frame by itself with InstructPix2Pix."""
DEFAULT_SETTINGS = EditSettings()
"""The corrected preset."""
LATENT_FILES = ("source.f32", "image.f32", "current.f32")
"""What `latents_in` may come to hold."""


@dataclass(frozen=True)
class VideoResult:
    """An edited video, which is in its file."""

    path: Path
    """The file, or the folder of frames."""
    frames: int
    """How many it has."""
    checkpoint: Checkpoint
    """Where the edit stands."""
    complete: bool = True
    """False if it was stopped before the last step."""


def edit_video(
    prior: ImagePrior,
    source: Path | str,
    output: Path | str,
    prompt: str,
    *,
    editor: VideoEditor = "csd-edit",
    settings: EditSettings = DEFAULT_SETTINGS,
    negative_prompt: str = "",
    temporal: float | None = None,
    frames: str = "",
    max_frames: int | None = None,
    seed: int = 0,
    latents_in: Path | None = None,
    resume: Checkpoint | None = None,
    on_step: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> VideoResult:
    """Edit a video with one instruction, and write it as it was: frame rate, size, colours' range and sound.

    Args:
        prior: InstructPix2Pix, or for `dds` any other.
        source: A video, or a folder of frames.
        output: A video, or a folder for the frames.
        prompt: The instruction.
        editor: CSD-Edit, its ablations, or a baseline.
        settings: Whose `editor` does not count; `steps` and `batch_size` (frames in a step) do. Without `steps` there
            are as many as optimise each frame as often as 200 do in the paper (`steps_for`), and the learning rate
            falls ten times over them, whatever `lr_decay_every` says; editors that sample make 50.
        negative_prompt: What to stay away from.
        temporal: Scale in seconds of a kernel that also weighs distance in time; None is the paper's kernel.
        frames: `A:B:S`, as Python slices; empty for all.
        max_frames: At most so many of these.
        seed: Same seed, same video.
        latents_in: Folder for the latents of very long videos; None keeps them in memory. A frame has three float32
            tensors of `4 h w / factor^2` numbers: 12 kB with the toy prior, 192 kB with one of 512 pixels.
        resume: Go on from where an edit with the same arguments was stopped.
        on_step: Called as `on_step(done, total)`.
        should_stop: When it turns true, what was reached is written.

    Raises `ValueError`, before any work, for what cannot work, and `NonFiniteError` with the `VideoResult` reached
    before in `partial`; its particle is a frame.
    """
    check_video_output(Path(output))
    chosen = settings_for(editor, settings)
    check_video(prior, prompt, chosen, temporal)
    video = open_video(Path(source), FrameRange.parse(frames) if frames else FrameRange(), max_frames)
    check_video_output(Path(output), video)
    chosen = with_steps(chosen, steps_for(video.count, chosen.batch_size or BATCH_SIZE))
    check_video(prior, prompt, chosen, temporal)  # again, with the number of steps
    prompts = (prompt, negative_prompt)
    edit = prepare_video(
        prior, video, video.timestamps, prompts, chosen, temporal=temporal, seed=seed, latents_in=latents_in
    )
    failure = None
    try:
        checkpoint, complete = edit.run(resume, Hooks(on_step, should_stop=should_stop))
    except NonFiniteError as error:
        assert isinstance(error.partial, Checkpoint)
        failure, checkpoint, complete = error, error.partial, False
    write_video_like(Path(output), video, edit.pictures((video.height, video.width), frames=video))
    result = VideoResult(Path(output), len(edit.latents), checkpoint, complete)
    if failure is not None:
        raise NonFiniteError(failure.what, failure.t, failure.particle, failure.step, result) from None
    return result


def settings_for(editor: VideoEditor, settings: EditSettings) -> EditSettings:
    """The settings of a video's editor, with a batch size where that counts."""
    chosen = replace(settings, editor=editor)
    distils = not chosen.parts.samples
    return replace(chosen, batch_size=BATCH_SIZE) if distils and chosen.batch_size is None else chosen


def prepare_video(
    prior: ImagePrior,
    frames: Iterable[Float[Tensor, "3 H W"]],
    times: Sequence[float | Fraction],
    prompts: tuple[str, str],
    settings: EditSettings,
    *,
    temporal: float | None = None,
    seed: int = 0,
    latents_in: Path | None = None,
    on_frame: Callable[[int, int], None] | None = None,
) -> VideoEdit:
    """Encode frames, shown at `times` in seconds, and prompts (instruction, negative).

    `on_frame(done, total)` tells how far it is.
    """
    generator = torch.Generator().manual_seed(seed)
    allocate = None if latents_in is None else _Files(latents_in)
    encoded = encode_frames(prior, frames, len(times), settings, generator, allocate=allocate, on_frame=on_frame)
    captions = [*prompts, *([settings.source_prompt] if settings.parts.text_only else [])]
    text, null, *there = prior.encode_text(captions)
    targets = FrameTargets(encoded.source, encoded.image, text, null, there[0] if there else None, prior.device)
    current = None if allocate is None else allocate("current", tuple(encoded.source.shape))
    seconds = torch.tensor([float(time) for time in times])
    return VideoEdit(prior, settings, targets, generator, seconds, temporal, current)


def remove_latents(folder: Path) -> None:
    """Remove the files that `latents_in` made, and the folder if nothing else is in it."""
    for name in LATENT_FILES:
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it is not there, or not empty
        folder.rmdir()


@dataclass(frozen=True)
class _Files:
    """Tensors in files of a folder, which the operating system reads and writes as they are used."""

    folder: Path

    def __call__(self, name: str, shape: tuple[int, ...]) -> Tensor:
        self.folder.mkdir(parents=True, exist_ok=True)
        count = 1
        for side in shape:
            count *= side
        return torch.from_file(str(self.folder / f"{name}.f32"), shared=True, size=count).reshape(shape)
