"""`csd bench`: methods compared on scenes whose true edits are known. Heavy libraries load when it runs."""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console

if TYPE_CHECKING:
    from csd_nerf.bench.engines import Engine
    from csd_nerf.bench.plan import Choice, Plan
    from csd_nerf.bench.report import About, Row
    from csd_nerf.bench.store import Store

_console = Console(stderr=True)
_CHECKOUT = Path("benchmarks/results")
_QUICK_INSTRUCTIONS = ("recolour", "hat")
_QUICK_SCENES = 2


@dataclass(frozen=True)
class Bench:
    """Benchmarks. scenes: edit toy scenes with every method, and measure the results against the true edits.

    Ctrl-C keeps what is done; the same command goes on from there.
    """

    benchmark: Annotated[Literal["scenes"], tyro.conf.Positional]
    """What is measured."""
    quick: bool = False
    """Two scenes, two instructions, small budgets: 15 minutes on two cores."""
    output: Path | None = None
    """Folder for scenes.md, scenes.csv and the contact sheets; default: benchmarks/results/scenes (or scenes_quick)
    in a checkout, outputs/bench/... elsewhere."""
    work: Path = Path("outputs/bench/work")
    """Folder of the cells, which are not computed again; nor are those in the table that is in --output already."""
    engine: Literal["local", "ray"] = "local"
    """Processes of this machine, or a Ray cluster (that of RAY_ADDRESS, or one that is started here)."""
    workers: int | None = None
    """Cells at the same time; default: one for each core (at most 8), or one on a GPU; with ray, what the cluster has
    room for."""
    scenes: tuple[int, ...] = ()
    """Seeds of toy scenes, from 1000000 on; default: the first held-out scene of each object."""
    instructions: tuple[str, ...] = ()
    """Of recolour material snow night hat colour, or in words: "give it a top hat"; default: all of these names."""
    methods: tuple[str, ...] = ()
    """Names of methods; default: all (with --quick: six)."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the edits."""
    sweep: tuple[float, ...] = ()
    """Guidance scales: instead of the tables, fidelity over consistency of each method (CSD Figures 4 and 6)."""
    prior: str = "toy"
    """The diffusion model: toy, or a local folder in diffusers layout (on every machine of a cluster)."""
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Of the prior's networks, as --pipeline.prior-dtype; bf16 is twice as quick on CPUs that compute in it."""

    def run(self) -> int:
        """Compute what is missing, then write the report; status 1 if cells failed."""
        plan, engine, store, table = self._prepared()
        from csd_nerf.bench.schedule import missing, run_cells

        try:
            outcome = run_cells(missing(plan.cells, store, table), store, engine, _console)
        except KeyboardInterrupt:
            _say("Stopped; what is done is kept.")
            self._report(plan, store, table)
            raise
        finally:
            engine.close()
        self._report(plan, store, table)
        if outcome.failed:
            _say(f"{len(outcome.failed)} cells failed, see {store.folder / 'failed'}; run again to try them again")
        return 1 if outcome.failed else 0

    def _prepared(self) -> "tuple[Plan, Engine, Store, dict[str, Any]]":
        """Check everything that can fail before the first cell."""
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"--workers {self.workers}: give at least 1")
        from csd_nerf.bench.plan import FULL, QUICK, make_plan, with_guidance
        from csd_nerf.bench.schedule import missing
        from csd_nerf.bench.store import Store

        choice = self._choice()
        if self.sweep:
            choice = with_guidance(choice, self.sweep)
        plan = make_plan(choice, QUICK if self.quick else FULL)
        for flag, folder in (("--output", self._output()), ("--work", self.work)):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ValueError(f"{flag} {folder} cannot be made ({error.strerror}): give another folder") from error
            if not os.access(folder, os.W_OK):
                raise ValueError(f"{flag} {folder} cannot be written to: give another folder")
        store, table = Store(self.work), self._table()
        left = sum(not store.has(cell) for cell in missing(plan.cells, store, table))
        edits = len(plan.edits())
        _say(f"{edits} edits, {len(plan.cells) - edits} scenes and truths; {left} of these cells are to be computed")
        for text in plan.left_out:
            _say(f"Left out: {text}")
        return plan, self._engine(), store, table

    def _name(self) -> str:
        return "sweep" if self.sweep else "scenes"

    def _table(self) -> dict[str, Any]:
        """What the table has that is in --output already; what it was made of may be gone."""
        from csd_nerf.bench.report import from_csv

        path = self._output() / f"{self._name()}.csv"
        if not path.is_file():
            return {}
        try:
            return from_csv(path.read_text(encoding="utf-8"))
        except (ValueError, KeyError) as error:
            raise ValueError(
                f"--output: {path} is no table of this benchmark ({error}); give another folder"
            ) from error

    def _choice(self) -> "Choice":
        from csd_nerf.bench import methods
        from csd_nerf.bench.plan import Choice
        from csd_nerf.bench.scenes import INSTRUCTIONS, benchmark_scenes

        scenes = self.scenes or benchmark_scenes()[: _QUICK_SCENES if self.quick else None]
        instructions = self.instructions or (_QUICK_INSTRUCTIONS if self.quick else INSTRUCTIONS)
        names = self.methods or (methods.QUICK if self.quick else tuple(methods.METHODS))
        if self.sweep and not self.methods:
            names = tuple(name for name in names if name != methods.UNEDITED)
        return Choice(scenes, instructions, names, self.seeds, prior=self.prior, precision=self.precision)

    def _engine(self) -> "Engine":
        import torch

        from csd_nerf.bench.engines import LocalEngine, RayEngine

        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if self.engine == "ray":
            return RayEngine(self.workers, threads=1)
        workers = self.workers or (1 if torch.cuda.is_available() else min(cores, 8))
        threads = min(max(1, cores // workers), torch.get_num_threads())  # fewer, if OMP_NUM_THREADS says so
        return LocalEngine(workers, threads, self.work / "logs")

    def _output(self) -> Path:
        if self.output is not None:
            return self.output
        folder = _CHECKOUT if _CHECKOUT.is_dir() else Path("outputs/bench")
        return folder / ("scenes_quick" if self.quick else "scenes")

    def _report(self, plan: "Plan", store: "Store", table: dict[str, Any]) -> None:
        """Write what the finished cells give."""
        from csd_nerf.bench import report, sheets, sweep
        from csd_nerf.images.writing import write_atomically

        output, name, rows = self._output(), self._name(), report.rows_of(plan, store, table)
        text = report.to_csv(rows)
        write_atomically(output / f"{name}.csv", lambda path: _write(path, text))
        written = [f"{name}.csv"]
        if self.sweep:
            if any(row.result for row in rows):
                write_atomically(output / "sweep.png", lambda path: sweep.plot(rows, path))
                written.append("sweep.png")
        else:
            failures = {row.cell.key: store.failure(row.cell) or "" for row in rows}
            page = report.markdown(plan, rows, _about(rows), failures)
            write_atomically(output / "scenes.md", lambda path: _write(path, page))
            written.append("scenes.md")
            for scene in sorted({row.key[0] for row in rows}):
                if (output / f"scene_{scene}.png").is_file() and not sheets.has_all(store, rows, scene):
                    continue  # the sheet that goes with the table shows more
                sheet = sheets.scene_sheet(plan, store, rows, scene)
                if sheet is not None:
                    write_atomically(output / f"scene_{scene}.png", lambda path, sheet=sheet: sheet.save(path))
                    written.append(f"scene_{scene}.png")
            Console().print(page, markup=False, highlight=False, soft_wrap=True)
        _say(f"{output}: {', '.join(written)}")


def _about(rows: "Sequence[Row]") -> "About":
    """Who made the report, when and on what."""
    import torch

    from csd_nerf.bench.report import About

    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    commit = asked.stdout.strip() or "unknown (not a checkout)"
    threads = sorted({row.result["threads"] for row in rows if row.result})
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    if threads:
        machine += f", {' or '.join(map(str, threads))} thread{'s' if threads != [1] else ''} a cell"
    return About(shlex.join(["csd", *sys.argv[1:]]), commit, date.today().isoformat(), machine)


def _say(message: str) -> None:
    _console.print(message, markup=False, highlight=False, soft_wrap=True)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
