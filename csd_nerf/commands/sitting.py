"""One sitting of an edit: progress, a wish to stop, a state on disk to go on from, and what is said at the end."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from csd_nerf.commands.processes import RANK, asked_together
from csd_nerf.commands.progress import steps_progress
from csd_nerf.commands.stopping import stop_on_signals

if TYPE_CHECKING:
    from csd_nerf.images.checkpoint import Checkpoint
    from csd_nerf.images.running import Hooks

_STATE_SECONDS = 60.0
"""A state is written this often: whatever ends the process, no more is lost."""
_console = Console(stderr=True, quiet=RANK > 0)
Asked = dict[str, Any]


def say(message: str) -> None:
    """Print one line as it is: brackets in prompts and paths are no markup."""
    _console.print(message, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def sitting(output: Path, asked: Asked, first_step: int, label: str = "Editing") -> "Iterator[Hooks]":
    """Hooks that show progress, stop on Ctrl-C and SIGTERM, and keep a state beside `output`."""
    from csd_nerf.images.checkpoint import checkpoint_path, save_checkpoint
    from csd_nerf.images.running import Hooks

    saved = time.monotonic()

    def on_state(done: int, state: "Callable[[], Checkpoint]") -> None:
        nonlocal saved
        if RANK == 0 and time.monotonic() - saved >= _STATE_SECONDS:
            save_checkpoint(checkpoint_path(output), state(), asked)
            saved = time.monotonic()

    with (
        steps_progress(_console, label, first_step) as update,
        stop_on_signals(lambda: say("Stopping after this step; once more ends at once ...")) as stopped,
    ):
        yield Hooks(update, on_state, asked_together(stopped))


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """`update(done, total)` of something that takes a while."""
    with steps_progress(_console, label) as update:
        yield update


def keep(output: Path, asked: Asked, state: "Checkpoint", ended: bool) -> None:
    """Before anything else is done with it: write the state of what can go on (a failure would only come again)."""
    from csd_nerf.images.checkpoint import checkpoint_path, save_checkpoint

    if RANK == 0 and not ended and state.step:
        save_checkpoint(checkpoint_path(output), state, asked)


def conclude(output: Path, state: "Checkpoint", steps: int, complete: bool, failure: Exception | None) -> int:
    """The exit status, after what was reached is in `output`: 0, or 130 if it was stopped.

    Raises `ValueError` for a failure. Of what is complete no state is left.
    """
    from csd_nerf.images.checkpoint import checkpoint_path

    kept = checkpoint_path(output)
    if complete:
        if RANK == 0:
            kept.unlink(missing_ok=True)
        return 0
    if failure is not None:
        raise ValueError(f"{failure}. {output} has what was reached before")
    how = "; the same command with --resume goes on" if kept.is_file() else ""
    say(f"Stopped after step {state.step} of {steps}: {output} has what was reached{how}")
    return 130
