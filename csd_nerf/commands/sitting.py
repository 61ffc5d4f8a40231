"""One sitting of an edit: progress, a wish to stop, a state on disk to go on from, and what is said at the end."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from csd_nerf.commands.processes import RANK, asked_together
from csd_nerf.commands.progress import steps_progress
from csd_nerf.commands.stopping import stop_on_signals

if TYPE_CHECKING:
    from csd_nerf.images.checkpoint import Checkpoint
    from csd_nerf.images.running import Hooks

_STATE_SECONDS, _STATE_SHARE = 60.0, 0.03
"""A state is written this often: whatever ends the process, no more is lost. If writing one takes more than this share
of the time, as rarely as that allows."""
_console = Console(stderr=True, quiet=RANK > 0)
Asked = dict[str, Any]


def say(message: str) -> None:
    """Print one line as it is: brackets in prompts and paths are no markup."""
    _console.print(message, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def sitting(output: Path, asked: Asked | None, first_step: int, label: str = "Editing") -> "Iterator[Hooks]":
    """Hooks that show progress, stop on Ctrl-C and SIGTERM, and keep a state beside `output`.

    The last state is kept whatever it is, complete or not: it goes when the result is written (`conclude`). Without
    `asked` none is kept.
    """
    from csd_nerf.images.running import Hooks

    saved, wait = time.monotonic(), _STATE_SECONDS

    def on_state(done: int, state: "Callable[[], Checkpoint]") -> None:
        nonlocal saved, wait
        began = time.monotonic()
        if RANK == 0 and began - saved >= wait:
            keep(output, asked or {}, state())
            saved = time.monotonic()
            wait = max(_STATE_SECONDS, (saved - began) / _STATE_SHARE)

    with (
        steps_progress(_console, label, first_step) as update,
        stop_on_signals(lambda: say("Stopping after this step; once more ends at once ...")) as stopped,
    ):
        hooks = Hooks(update, should_stop=asked_together(stopped))
        if asked is not None:
            hooks = replace(hooks, on_state=on_state, on_reached=lambda state: keep(output, asked, state))
        yield hooks


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """`update(done, total)` of something that takes a while."""
    with steps_progress(_console, label) as update:
        yield update


def keep(output: Path, asked: Asked, state: "Checkpoint") -> None:
    """Write the state beside `output`. Where that fails the work goes on: its result may still find room."""
    from csd_nerf.images.checkpoint import checkpoint_path, save_checkpoint

    if RANK != 0:
        return
    try:
        save_checkpoint(checkpoint_path(output), state, asked)
    except (OSError, RuntimeError) as error:  # torch says the second of a full disk
        say(f"{checkpoint_path(output)} could not be written ({error}): --resume will not go on from step {state.step}")


def goes_on(output: Path, asked: Asked) -> bool:
    """Whether a state beside `output` is one of what is asked for: another command's may lie there."""
    from csd_nerf.images.checkpoint import checkpoint_path, load_checkpoint

    try:
        load_checkpoint(checkpoint_path(output), asked)
    except (ValueError, OSError):
        return False
    return True


@contextmanager
def finishing(output: Path, asked: Asked, *more: Path) -> Iterator[Callable[[Path], None]]:
    """Around the work and all that turns it into files: if that fails, say how it goes on after all.

    Give `written(path)`, to be told of `output` and of the files beside it, `more`, when each is there: a file of that
    name may be an earlier command's. Those that it was not told of are said to be missing where it is interrupted.
    """
    from csd_nerf.images.checkpoint import checkpoint_path

    kept, missing = checkpoint_path(output), [output, *more]
    try:
        yield missing.remove
    except KeyboardInterrupt:
        if missing and goes_on(output, asked):
            there = [path for path in (output, *more) if path not in missing]
            but = f"{_listed(there)} {'are' if there[1:] else 'is'} written, but " if there else ""
            lacking = f"{_listed(missing)} {'were' if missing[1:] else 'was'} not"
            makes = f" and makes {'them' if missing[1:] else 'it'}" if there else ""
            say(f"{but}{lacking} written; the same command with --resume goes on from {kept}{makes}")
        raise
    except (OSError, ValueError, RuntimeError) as error:
        if not goes_on(output, asked):
            raise
        hint = f"{kept} keeps what was reached: the same command with --resume goes on from it"
        raise ValueError(f"{error}. {hint}") from error


def _listed(paths: Sequence[Path]) -> str:
    *first, last = map(str, paths)
    return f"{', '.join(first)} and {last}" if first else last


def ended_at_once(failure: Exception | None) -> int:
    """The exit status where no step was made: there is nothing to write over what an earlier command wrote.

    Raises `ValueError` for a failure.
    """
    if failure is not None:
        raise ValueError(f"{failure}. Nothing was written")
    say("Stopped before the first step: nothing was written")
    return 130


def conclude(
    output: Path,
    asked: Asked,
    state: "Checkpoint",
    steps: int,
    complete: bool,
    failure: Exception | None,
    holds: str | None = None,
) -> int:
    """The exit status, after what was reached is in `output`: 0, or 130 if it was stopped.

    `holds` says in words what is in `output` where work that has no picture on the way was stopped. Raises `ValueError`
    for a failure. Of what is complete no state is left.
    """
    from csd_nerf.images.checkpoint import checkpoint_path

    kept = checkpoint_path(output)
    if complete:
        if RANK == 0:
            kept.unlink(missing_ok=True)
        return 0
    if failure is not None:
        raise ValueError(f"{failure}. {output} has what was reached before")
    if holds is not None:
        say(f"Stopped before it was done: {output} {holds}")
        return 130
    how = "; the same command with --resume goes on" if goes_on(output, asked) else ""
    say(f"Stopped after step {state.step} of {steps}: {output} has what was reached{how}")
    return 130
