"""What a run says at its start, after each round, and at its end."""

from pathlib import Path

from nerfstudio.utils.rich_utils import CONSOLE

from csd_nerf.distill.types import ImagePrior
from csd_nerf.scenes.edit_options import EditPipelineConfig
from csd_nerf.scenes.edit_session import EditSession
from csd_nerf.scenes.terminal import duration, say


def announce(method: str, config: EditPipelineConfig, session: EditSession, prior: ImagePrior, edit_steps: int) -> None:
    """Say what is going to happen."""
    schedule = session.schedule
    if method == "csd-edit-lite":
        say(
            "csd-edit-lite is made for machines without a GPU: a small field, views of at most "
            f"{config.datamanager.view_size} pixels on their shorter side, prior {prior.name}."
        )
    say(f'"{session.instruction.prompt}" with prior {prior.name} ({prior.size} pixels) on {prior.device}')
    if schedule.views < schedule.batch_size:
        some = "its single view" if schedule.views == 1 else f"all {schedule.views}"
        say(f"The scene has fewer training views than --pipeline.edit-batch-size {schedule.batch_size}: using {some}.")
    left = f"{max(0, session.scene_steps - session.scene_done)} steps on the photos, then " * (session.phase == "scene")
    say(
        f"{schedule.views} training views, {schedule.rounds_per_pass} round(s) edit each once; {left}"
        f"{max(0, edit_steps - session.edit_done)} steps with {session.rounds_left(edit_steps)} round(s) of edits."
    )


def announce_remaining(session: EditSession, edit_steps: int) -> None:
    """Say how long the rest will take, judged by what this run's steps and rounds took so far."""
    rounds, steps = session.rounds_left(edit_steps), session.remaining_steps(edit_steps)
    made = session.scene_done + session.edit_done
    if session.rounds == 0 or made == 0 or steps == 0:
        return
    step_seconds, round_seconds = session.nerf_seconds / made, session.edit_seconds / session.rounds
    total = duration(steps * step_seconds + rounds * round_seconds)
    each = duration(round_seconds)
    say(f"About {total} left: {steps} NeRF steps of {step_seconds:.2g} s, {rounds} round(s) of {each}.")


def summarize(session: EditSession, run: Path, scene_checkpoint: Path | None) -> None:
    """Say what was done and how to look at it; the commands stand alone on their lines, to be copied."""
    config = run / "config.yml"
    CONSOLE.rule("csd-edit")
    say(f"{session.rounds} round(s) of edits; {session.edited_views} of {len(session.edited_in)} views show an edit")
    steps = f"{session.scene_done} steps on the photos, {session.edit_done} on edits"
    say(f"NeRF {duration(session.nerf_seconds)} ({steps}), edits {duration(session.edit_seconds)}")
    say(f"The edited views are in {run / 'edits'}")
    if scene_checkpoint is not None:
        say(f"Other edits of this scene begin with --load-dir {scene_checkpoint.parent}")
    say("Look at it, render a path between the views, render a spiral:")
    say(f"  ns-viewer --load-config {config}")
    say(f"  ns-render interpolate --pose-source train --load-config {config} --output-path {run / 'render.mp4'}")
    say(f"  ns-render spiral --load-config {config} --output-path {run / 'spiral.mp4'}")
    CONSOLE.rule()
