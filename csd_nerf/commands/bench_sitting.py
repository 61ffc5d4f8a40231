"""A sitting of `csd bench`: computes what is missing, and reports whatever ended it."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from csd_nerf.commands.bench_report import say

if TYPE_CHECKING:
    from csd_nerf.bench.engines import Engine
    from csd_nerf.bench.plan import Cell
    from csd_nerf.bench.schedule import Compute
    from csd_nerf.bench.store import Store

_console = Console(stderr=True)


def sit(
    cells: "Sequence[Cell]",
    store: "Store",
    engine: "Engine",
    compute: "Compute",
    report: Callable[[], None],
    noun: str = "cells",
) -> int:
    """Compute `cells`, then call `report`; the exit status, 1 if some failed or the engine was lost.

    The engine is closed in the end. Ctrl-C is passed on after the report.
    """
    from csd_nerf.bench.engines import EngineLostError
    from csd_nerf.bench.schedule import run_cells

    try:
        outcome = run_cells(cells, store, engine, _console, compute)
    except KeyboardInterrupt:
        say("Stopped; what is done is kept.")
        report()
        raise
    except EngineLostError as error:
        say(f"{error}; what is done is kept, the same command goes on from there")
        report()
        return 1
    finally:
        engine.close()
    report()
    if outcome.failed:
        say(f"{len(outcome.failed)} {noun} failed, see {store.folder / 'failed'}; run again to try them again")
    return 1 if outcome.failed else 0
