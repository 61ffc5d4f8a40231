"""Runs the cells that are missing, each as soon as what it needs is there, and says how long the rest will take."""

import json
import statistics
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from csd_nerf.bench.compute import compute
from csd_nerf.bench.engines import Engine
from csd_nerf.bench.failures import headline
from csd_nerf.bench.methods import UNEDITED
from csd_nerf.bench.plan import Cell
from csd_nerf.bench.results import RESULT
from csd_nerf.bench.store import Store

Compute = Callable[..., dict[str, bytes]]


@dataclass(frozen=True)
class Outcome:
    """What a sitting has done."""

    computed: int
    failed: tuple[Cell, ...]
    """Cells that failed, and those that needed them."""


def run_cells(
    cells: Sequence[Cell], store: Store, engine: Engine, console: Console, function: Compute = compute
) -> Outcome:
    """Compute the cells that the store does not have; those that others need must come before them.

    A cell that fails leaves its error in the store, and those that need it are not tried; all of them are tried again
    next time. When this is interrupted, whatever was finished is kept. `function` is called as `compute` is.
    """
    waiting = [cell for cell in cells if not store.has(cell)]
    running: dict[str, Cell] = {}
    failed: dict[str, Cell] = {}
    estimate = Estimate(engine.slots)
    for cell in cells:
        if (result := store.result(cell)) is not None:
            estimate.add(cell, result["seconds"])
    by_key = {cell.key: cell for cell in cells}
    total, computed = len(waiting), 0
    started = time.monotonic()
    with _Bar(console, total) as bar:
        while waiting or running:
            for cell in [cell for cell in waiting if any(key in failed for key in cell.needs)]:
                waiting.remove(cell)
                failed[cell.key] = cell
            for cell in list(waiting):
                needed = [by_key[key] for key in cell.needs]
                if len(running) < engine.slots and all(store.has(one) for one in needed):
                    waiting.remove(cell)
                    running[cell.key] = cell
                    inputs = tuple(store.read(one) for one in needed)
                    engine.submit(cell.key, function, dict(cell.spec), dict(cell.where), inputs)
            if not running:
                continue
            unfinished = [*waiting, *running.values()]
            bar.show(total - len(unfinished), running.values(), estimate.left(unfinished))
            finished = engine.next_finished()
            cell = running.pop(finished.key)
            if finished.error is None:
                store.keep(cell, finished.value)
                computed += 1
                seconds = json.loads(finished.value[RESULT])["seconds"]
                estimate.add(cell, seconds)
                said = f"{cell.label}: {seconds:.0f} s"
            else:
                store.keep_failure(cell, finished.error)
                failed[cell.key] = cell
                said = f"{cell.label} FAILED: {headline(finished.error)}"
            unfinished.remove(cell)
            bar.say(said, estimate.left(unfinished))
    if total:
        console.print(f"{computed} of {total} cells in {duration(time.monotonic() - started)}", highlight=False)
    return Outcome(computed, tuple(failed.values()))


def missing(cells: Sequence[Cell], store: Store, known: Container[str] = ()) -> list[Cell]:
    """The edits that neither the store nor `known`, keys of a table, has, and what they need, in order."""
    edits = [cell for cell in cells if cell.kind == "edit" and cell.key not in known and not store.has(cell)]
    needed = {key for cell in edits for key in cell.needs} | {cell.key for cell in edits}
    return [cell for cell in cells if cell.key in needed]


@dataclass
class Estimate:
    """Time that cells take, from those that are done: a cell's like are those of its kind and method."""

    slots: int
    """Cells at the same time."""
    _seconds: dict[tuple[str, Any], list[float]] = field(default_factory=dict)

    def add(self, cell: Cell, seconds: float) -> None:
        """Learn from a cell that is done."""
        self._seconds.setdefault(_like(cell), []).append(seconds)

    def left(self, cells: Sequence[Cell]) -> float | None:
        """Seconds until `cells` are done, those that run counted in full; None while nothing like any is known."""
        if not self._seconds:
            return None
        known = {like: statistics.median(values) for like, values in self._seconds.items()}
        edits = [seconds for (kind, method), seconds in known.items() if kind == "edit" and method != UNEDITED]
        total = 0.0
        for cell in cells:
            if _like(cell) in known:
                total += known[_like(cell)]
            elif cell.kind == "edit" and cell.spec["method"] != UNEDITED:
                if not edits:
                    return None
                total += statistics.mean(edits)
        return total / self.slots


def _like(cell: Cell) -> tuple[str, Any]:
    return cell.kind, cell.spec.get("method")


def duration(seconds: float) -> str:
    """`45 s`, `12 min` or `2 h 5 min`."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


class _Bar:
    """Cells done, what is running, and the time left; a line for each cell that ends."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        columns = (BarColumn(), TextColumn("{task.completed}/{task.total} cells"), TextColumn("{task.fields[state]}"))
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("cells", total=total, state="")
        self._total, self._done = total, 0

    def __enter__(self) -> "_Bar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, done: int, running: Any, seconds: float | None) -> None:
        """Redraw."""
        names = "; ".join(cell.label for cell in running)
        self._bar.update(self._task, completed=done, state=f"{_left(seconds)}  {names}"[:90].replace("[", "("))
        self._done = done

    def say(self, message: str, seconds: float | None) -> None:
        """Print one line above the bar."""
        line = f"({self._done + 1}/{self._total}) {message} ({_left(seconds)})"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _left(seconds: float | None) -> str:
    return "estimating the time" if seconds is None else f"{duration(seconds)} left"
