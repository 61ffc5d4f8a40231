"""`csd bench generate`: objects from captions; what of it is not shared with the benchmarks of edits."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from csd_nerf.bench.engines import Engine

_console = Console(stderr=True)


@dataclass(frozen=True)
class GenerateRun:
    """What the flags of `csd bench` ask for."""

    captions: tuple[str, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    quick: bool
    prior: str
    precision: str
    output: Path
    work: Path
    engine: "Callable[[], Engine]"
    """Starts the processes; called when all flags are known to be right."""

    def run(self) -> int:
        """Compute what is missing, then write the report; status 1 if objects failed."""
        from csd_nerf.bench.generation import CAPTIONS, METHODS, compute_object, make_cells
        from csd_nerf.bench.schedule import run_cells
        from csd_nerf.bench.store import Store

        captions = self.captions or (CAPTIONS[:4] if self.quick else CAPTIONS)
        methods = self.methods or tuple(METHODS)
        cells = make_cells(captions, methods, self.seeds, quick=self.quick, prior=self.prior, precision=self.precision)
        store = Store(self.work)
        left = [cell for cell in cells if not store.has(cell)]
        _say(f"{len(cells)} objects; {len(left)} are to be made")
        engine = self.engine()
        try:
            outcome = run_cells(left, store, engine, _console, compute_object)
        except KeyboardInterrupt:
            _say("Stopped; what is done is kept.")
            self._report(cells, store)
            raise
        finally:
            engine.close()
        self._report(cells, store)
        if outcome.failed:
            _say(f"{len(outcome.failed)} objects failed, see {store.folder / 'failed'}; run again to try them again")
        return 1 if outcome.failed else 0

    def _report(self, cells: Any, store: Any) -> None:
        from csd_nerf.bench import generation_report as report
        from csd_nerf.bench.about import about_this_run
        from csd_nerf.whole_files import write_atomically, write_text

        results = {cell.key: result for cell in cells if (result := store.result(cell)) is not None}
        page = report.markdown(cells, results, about_this_run(result["threads"] for result in results.values()))
        table = report.to_csv(cells, results)
        write_text(self.output / "generate.md", page)
        write_text(self.output / "generate.csv", table)
        written = ["generate.md", "generate.csv"]
        sheets = {"overview": report.overview(cells, store)}
        for caption in dict.fromkeys(cell.spec["caption"] for cell in cells):
            sheets[caption.replace(" ", "_")] = report.sheet(cells, store, caption)
        for stem, sheet in sheets.items():
            if sheet is not None:
                name = f"{stem}.jpg"
                write_atomically(self.output / name, lambda path, sheet=sheet: sheet.save(path, quality=90))
                written.append(name)
        Console().print(page, markup=False, highlight=False, soft_wrap=True)
        _say(f"{self.output}: {', '.join(written)}")


def _say(message: str) -> None:
    _console.print(message, markup=False, highlight=False, soft_wrap=True)
