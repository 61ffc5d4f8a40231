"""`csd demo`: train a scene, edit it with one sentence, and show both from views that training never saw.

On the built-in scene the true edited views are known. An ambiguous instruction ("give it a hat") has many true edits;
the one nearest to the result is shown and measured against. The colour spread says whether the views agree on one: the
standard deviation over views of the mean colour of the edited part, averaged over channels (0 is perfect agreement;
shading alone gives the nearest true edit a spread above 0, which is reported beside it).
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor

from csd_nerf.commands.run_flags import flags_of_command
from csd_nerf.images.writing import contact_sheet, write_video
from csd_nerf.whole_files import write_atomically, write_text

if TYPE_CHECKING:  # nerfstudio takes seconds to import; the command's help does not wait for it
    from csd_nerf.scenes.trainer_config import EditTrainerConfig

_METHOD = "csd-edit-lite"
AMBIGUOUS_PROMPT = "give it a hat"
_FRAMES, _FPS = 72, 24
_EDITED = 0.1
"""Mean absolute difference over channels from which a pixel of the true edit counts as changed."""
_FLAGS = {
    "--data": "--scene",
    "--pipeline.prompt": "--prompt",
    "--pipeline.seed": "--seed",
    "--max-num-iterations": "--steps",
    "--output-dir": "--output",
}
_console = Console(stderr=True)


@dataclass(frozen=True)
class _Truth:
    """The true edit that comes nearest to a result."""

    meaning: str
    """What the instruction came to mean: "hat, blue top hat"."""
    images: Float[Tensor, "n 3 h w"]
    source: Float[Tensor, "n 3 h w"]


def run_demo(
    scene: Path | None,
    prompt: str | None,
    output: Path,
    seed: int = 0,
    steps: int | None = None,
    configure: "Callable[[EditTrainerConfig], Any] | None" = None,
) -> dict[str, object]:
    """Run the demo and write its files to `output`; returns what `metrics.json` holds.

    `configure` may change csd-edit-lite's configuration before the run starts.

    Raises `ValueError` before any training for a scene, prompt or folder that cannot work.
    """
    from csd_nerf.scenes import load_scene, run_edit
    from csd_nerf.scenes.showcase import render_compared

    started = time.monotonic()
    prompt = AMBIGUOUS_PROMPT if prompt is None else prompt
    with (
        resources.as_file(resources.files("csd_nerf.data") / "demo_scene") as built_in,
        flags_of_command(_FLAGS, _METHOD),
    ):
        run = run_edit(
            built_in if scene is None else scene,
            prompt,
            output_dir=output / "runs",
            seed=seed,
            max_num_iterations=steps,
            timestamp=time.strftime("%Y-%m-%d_%H%M%S"),
            configure=configure,
        )
        with Progress(
            TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), console=_console, transient=True
        ) as progress:
            views, pictures = {}, {}
            for name, checkpoint in (("before", run.scene_checkpoint), ("after", run.checkpoint)):
                pipeline = load_scene(run.config_path, checkpoint)
                pictures[name] = render_compared(pipeline)
                task = progress.add_task(f"video {name}", total=_FRAMES)

                def advance(done: int, total: int, task: TaskID = task) -> None:
                    progress.update(task, completed=done, total=total)

                views[name] = _flight(pipeline, scene is None, advance)
    for name, frames in views.items():
        write_video(output / f"{name}.mp4", frames, fps=_FPS, scale=_enlargement(frames[0]))
    photos, before, after = pictures["after"].photos, pictures["before"].renders, pictures["after"].renders
    held_out = pictures["after"].held_out
    if not held_out:
        _say(f"The scene keeps no views from training: its {len(photos)} training views are shown, with no PSNR.")
    rows = [("source", photos), ("NeRF before", before), ("CSD-Edit", after)]
    metrics: dict[str, object] = {
        "prompt": prompt,
        "seed": seed,
        "held-out views": len(photos) if held_out else 0,
        "psnr of the scene before the edit": _psnr(before, photos) if held_out else None,
        "rounds": run.rounds,
        "edited training views": run.edited_views,
        "seconds": {
            "NeRF": round(run.nerf_seconds, 1),
            "edits": round(run.edit_seconds, 1),
            "all": round(time.monotonic() - started, 1),
        },
        "run": str(run.folder),
    }
    if true_edits := _true_edits(prompt) if scene is None else []:
        truth = _nearest(true_edits, after)
        rows.append((f"nearest\ntrue edit:\n{truth.meaning}", list(truth.images)))
        metrics["truth"] = _compare(truth, before, after)
    sheet = contact_sheet([(title, images[:8]) for title, images in rows], scale=_enlargement(photos[0]))
    write_atomically(output / "comparison.png", lambda path: sheet.save(path, optimize=True))
    write_text(output / "metrics.json", json.dumps(metrics, indent=1) + "\n")
    _say(f"{output}: before.mp4, after.mp4, comparison.png, metrics.json")
    return metrics


def _say(message: str) -> None:
    """Print one line as it is: brackets in paths are no markup."""
    _console.print(message, markup=False, highlight=False, soft_wrap=True)


def _flight(pipeline: "object", toy: bool, on_frame: Callable[[int, int], None]) -> Sequence[Float[Tensor, "3 h w"]]:
    """Frames of the videos: an orbit around the toy object, else a flight along the training cameras."""
    from csd_nerf.scenes import Pinhole, render_views
    from csd_nerf.scenes.showcase import render_path

    if not toy:
        return render_path(pipeline, _FRAMES, on_frame)  # pyright: ignore[reportArgumentType]
    from csd_nerf.toyworld.cameras import orbit_cameras

    orbit = orbit_cameras([360 * i / _FRAMES for i in range(_FRAMES)], [25.0] * _FRAMES)
    camera = Pinhole(orbit.width, orbit.height, orbit.focal)
    frames = []
    for index, pose in enumerate(orbit.camera_to_world):
        frames.append(render_views(pipeline, pose[None, :3], camera).images[0])  # pyright: ignore[reportArgumentType]
        on_frame(index + 1, _FRAMES)
    return frames


def _true_edits(prompt: str) -> list[tuple[str, Float[Tensor, "n 3 h w"], Float[Tensor, "n 3 h w"]]]:
    """Every true answer to an instruction on the held-out views; none if the toy world does not know it."""
    from csd_nerf.toyworld.demo_data import demo_cameras
    from csd_nerf.toyworld.edits import possible_edits
    from csd_nerf.toyworld.render import Renderer
    from csd_nerf.toyworld.scene import demo_scene

    scene = demo_scene()
    try:
        edits = possible_edits(prompt, scene)
    except ValueError:
        return []
    if any(edit.kind == "painting" for edit in edits):
        return []  # needs style networks that are not part of this package
    renderer = Renderer(demo_cameras(held_out=True))
    source = renderer.render(scene)
    return [(edit.meaning, renderer.edited(scene, edit), source) for edit in edits]


def _nearest(
    answers: list[tuple[str, Float[Tensor, "n 3 h w"], Float[Tensor, "n 3 h w"]]], result: list[Tensor]
) -> _Truth:
    shown = torch.stack(result)
    errors = [float((images - shown).square().mean()) for _, images, _ in answers]
    meaning, images, source = answers[errors.index(min(errors))]
    return _Truth(meaning, images, source)


def _compare(truth: _Truth, before: list[Tensor], after: list[Tensor]) -> dict[str, object]:
    """Fidelity to the nearest true edit, what changed where nothing should, and whether views agree on a colour."""
    shown, unedited = torch.stack(after), torch.stack(before)
    changed = (truth.images - truth.source).abs().mean(dim=1) > _EDITED
    elsewhere, difference = ~changed, (shown - unedited).abs().mean(dim=1)
    return {
        "nearest true edit": truth.meaning,
        "psnr to it": _psnr(after, list(truth.images)),
        "psnr to it without editing": _psnr(before, list(truth.images)),
        "share of pixels that the true edit changes": float(changed.float().mean()),
        "mean change elsewhere": float(difference[elsewhere].mean()) if elsewhere.any() else None,
        "mean change inside": float(difference[changed].mean()) if changed.any() else None,
        "colour spread over views": _colour_spread(shown, changed),
        "colour spread of the true edit": _colour_spread(truth.images, changed),
    }


def _colour_spread(images: Float[Tensor, "n 3 h w"], region: Tensor) -> float:
    """See `metrics.colour_spread`; 0 where fewer than two views show the region."""
    from csd_nerf.metrics import colour_spread

    return colour_spread(images, region).mean if region.flatten(1).any(dim=1).sum() > 1 else 0.0


def _psnr(images: Sequence[Tensor], references: Sequence[Tensor]) -> float:
    errors = [float((a - b).square().mean()) for a, b in zip(images, references, strict=True)]
    return float(-10 * torch.tensor(sum(errors) / len(errors)).log10())


def _enlargement(image: Float[Tensor, "3 h w"]) -> int:
    """Whole factor that brings the shorter side to about 200 pixels."""
    return max(1, round(200 / min(image.shape[-2:])))
