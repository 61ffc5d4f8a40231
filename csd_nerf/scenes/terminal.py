"""What a run says on the terminal, next to nerfstudio's own table of NeRF steps."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

import nerfstudio.configs.base_config  # noqa: F401 - nerfstudio.utils.writer cannot be imported before it
from nerfstudio.utils import writer
from nerfstudio.utils.rich_utils import CONSOLE
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from csd_nerf.durations import duration

_INTERVAL = 10.0
"""Seconds between two lines where there is no terminal that could redraw one."""


def say(message: str, style: str | None = None) -> None:
    """Print one line as it is: brackets in prompts and paths are no markup."""
    CONSOLE.print(message, style=style, markup=False, highlight=False, soft_wrap=True)


def make_room_for_table() -> None:
    """Keep nerfstudio's table from overwriting what was printed since it was drawn.

    It redraws itself by moving the cursor up as many lines as it has.
    """
    if not CONSOLE.is_terminal:
        return
    for event_writer in writer.EVENT_WRITERS:
        if isinstance(event_writer, writer.LocalWriter) and event_writer.has_printed:
            if event_writer.config.max_log_size:
                print("\n" * len(event_writer.past_mssgs), end="")


@contextmanager
def own_writers() -> Iterator[None]:
    """Forget the writers of one run: nerfstudio only ever adds to them, so a second run would print two tables."""
    before = list(writer.EVENT_WRITERS)
    try:
        yield
    finally:
        writer.EVENT_WRITERS[:] = before
        writer.EVENT_STORAGE.clear()


class RoundProgress:
    """A progress bar with the time that is left, measured on the steps of this round alone."""

    def __init__(self, label: str, on_text: Callable[[str], None], *, quiet: bool = False) -> None:
        """`on_text` shows it in the viewer too; if `quiet`, only lines about long rounds go to the terminal."""
        self._label, self._quiet = label, quiet
        self._on_text = on_text
        description, state = (TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[state]}"))
        columns = (description, BarColumn(), state)
        self._bar = Progress(*columns, console=CONSOLE, transient=True, disable=quiet or not CONSOLE.is_terminal)
        self._task: TaskID | None = None
        self._first: tuple[float, int] | None = None
        self._last_text = 0.0
        self._last_line = time.monotonic()

    def __enter__(self) -> "RoundProgress":
        self._bar.start()
        self._task = self._bar.add_task(self._label, total=None, state="preparing")
        self._on_text(f"{self._label}: preparing")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._bar.stop()

    def update(self, done: int, total: int) -> None:
        """Show that `done` of `total` steps are made."""
        now = time.monotonic()
        if self._first is None:  # the first step pays for warming up
            self._first = (now, done)
        start, first = self._first
        left = f"{duration((now - start) / (done - first) * (total - done))} left" if done > first else ""
        assert self._task is not None
        self._bar.update(self._task, completed=done, total=total, state=f"step {done} of {total}  {left}")
        if now - self._last_text > 0.5 or done == total:
            self._last_text = now
            self._on_text(f"{self._label}: step {done} of {total}, {left or 'estimating the time'}")
        if (self._quiet or not CONSOLE.is_terminal) and now - self._last_line > _INTERVAL:
            self._last_line = now
            say(f"{self._label}: step {done} of {total}, {left}")
