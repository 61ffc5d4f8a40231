"""What a run says at its start, after each round, and at its end."""

import shlex
from pathlib import Path
from typing import Any

from nerfstudio.utils.rich_utils import CONSOLE

from csd_nerf.distill.types import ImagePrior
from csd_nerf.durations import duration
from csd_nerf.scenes.edit_options import EditPipelineConfig, flag_of
from csd_nerf.scenes.edit_session import EditSession
from csd_nerf.scenes.terminal import say


def announce(method: str, config: EditPipelineConfig, session: EditSession, prior: ImagePrior, edit_steps: int) -> None:
    """Say what is going to happen."""
    schedule = session.schedule
    if method == "csd-edit-lite":
        say(
            "csd-edit-lite is made for machines without a GPU: a small field, views of at most "
            f"{config.datamanager.view_size} pixels on their shorter side, prior {prior.name}."
        )
    source = f' instead of "{config.source_prompt}"' * bool(config.source_prompt)
    who = f"editor {config.editor}, prior {prior.name} ({prior.size} pixels) on {prior.device}"
    say(f'"{session.instruction.prompt}"{source} with {who}')
    if schedule.views < schedule.batch_size:
        some = "its single view" if schedule.views == 1 else f"all {schedule.views}"
        say(f"The scene has fewer training views than --pipeline.edit-batch-size {schedule.batch_size}: using {some}.")
    left = f"{max(0, session.scene_steps - session.scene_done)} steps on the photos, then " * (session.phase == "scene")
    say(
        f"{schedule.views} training views, {schedule.rounds_per_pass} round(s) edit each once; {left}"
        f"{max(0, edit_steps - session.edit_done)} steps with {session.rounds_left(edit_steps)} round(s) of edits."
    )
    announce_passes(config, session, edit_steps)


def announce_passes(config: EditPipelineConfig, session: EditSession, edit_steps: int) -> None:
    """Say if the run ends before noise levels and guidance have fallen."""
    needed, left = session.rounds_for(config.t_max_passes), session.rounds_left(edit_steps)
    if config.falls and 0 < left < needed:
        say(
            f"Noise levels and guidance fall from pass to pass over the views; {config.t_max_passes} passes end after "
            f"{needed} more rounds. With {left} the edits stay rougher than they could be: --max-num-iterations "
            f"{session.steps_for(needed)} makes them all (csd demo: --steps)."
        )


def announce_resumption(session: EditSession, state: dict[str, Any]) -> None:
    """Say what is not as it was in the run that left `state`."""
    if session.paused:
        say('The edits are paused, as they were in that run: untick "Pause edits" in the viewer to go on with them.')
    elif state["paused"]:
        say('"Pause edits" was ticked in that run. There is no viewer to untick it: the edits go on.')
    changed = session.changed_flags(state)
    if changed:
        values = ", ".join(f"{flag_of(name)} {now} (was {then})" for name, (then, now) in changed.items())
        say(f"Other than in that run, and used from now on: {values}.")


def announce_remaining(session: EditSession, edit_steps: int) -> None:
    """Say how long the rest will take, judged by what the steps and rounds of this process took so far."""
    rounds, steps, pace = session.rounds_left(edit_steps), session.remaining_steps(edit_steps), session.pace_here
    if pace.rounds == 0 or pace.steps == 0 or steps == 0:
        return
    step_seconds, round_seconds = pace.nerf_seconds / pace.steps, pace.edit_seconds / pace.rounds
    total = duration(steps * step_seconds + rounds * round_seconds)
    each = duration(round_seconds)
    say(f"About {total} left: {steps} NeRF steps of {step_seconds:.2g} s, {rounds} round(s) of {each}.")


def summarize(session: EditSession, run: Path, scene_checkpoint: Path | None, held_out: int) -> None:
    """Say what was done and how to look at it; the commands stand alone on their lines, to be copied.

    `held_out` is the number of evaluation views: a spiral begins at one.
    """
    config = shlex.quote(str(run / "config.yml"))
    CONSOLE.rule("csd-edit")
    say(f"{session.rounds} round(s) of edits; {session.edited_views} of {len(session.edited_in)} views show an edit")
    steps = f"{session.scene_done} steps on the photos, {session.edit_done} on edits"
    earlier = "; with what earlier runs did" if session.earlier.steps or session.earlier.rounds else ""
    cost = f"{duration(session.edit_seconds)}, {session.network_samples} network samples"
    say(f"NeRF {duration(session.nerf_seconds)} ({steps}), edits {cost}{earlier}")
    say(f"The edited views are in {run / 'edits'}")
    if scene_checkpoint is not None:
        say(f"Other edits of this scene begin with --load-dir {shlex.quote(str(scene_checkpoint.parent))}")
    ways = {"Look at it": f"ns-viewer --load-config {config}"}
    if len(session.edited_in) > 1:
        target = shlex.quote(str(run / "render.mp4"))
        path = f"ns-render interpolate --pose-source train --load-config {config} --output-path {target}"
        ways["render a path between the views"] = path
    if held_out:
        target = shlex.quote(str(run / "spiral.mp4"))
        ways["render a spiral"] = f"ns-render spiral --load-config {config} --output-path {target}"
    say(", ".join(ways) + ":")
    for command in ways.values():
        say(f"  {command}")
    CONSOLE.rule()
