"""A bar with the time that is left, or a line now and then where there is no terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from csd_nerf.durations import duration

_LINE_SECONDS = 15.0


@contextmanager
def steps_progress(console: Console, label: str, first: int = 0) -> Iterator[Callable[[int, int], None]]:
    """Give `update(done, total)`. `first` steps were made in an earlier run, and say nothing about the speed."""
    started = last = time.monotonic()
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=None, completed=first, left="")

        def update(done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            left = (now - started) / max(1, done - first) * (total - done)
            said = f"{duration(left)} left"
            bar.update(task, completed=done, total=total, left=said)
            if not console.is_terminal and now - last >= _LINE_SECONDS:
                last = now
                console.print(f"{label}: {done} of {total}, {said}", markup=False, highlight=False)

        yield update
