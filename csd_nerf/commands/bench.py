"""`csd bench`: methods compared on scenes whose true edits are known. Heavy libraries load when it runs."""

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from csd_nerf.commands.bench_report import say, write_report
from csd_nerf.commands.bench_sitting import sit
from csd_nerf.whole_files import make_folder

if TYPE_CHECKING:
    from csd_nerf.bench.benchmarks import Benchmark
    from csd_nerf.bench.engines import Engine
    from csd_nerf.bench.plan import Choice, Plan
    from csd_nerf.bench.store import Store
    from csd_nerf.commands.bench_generate import GenerateRun
    from csd_nerf.commands.bench_speed import SpeedRun

_CHECKOUT = Path("benchmarks/results")


@dataclass(frozen=True)
class Bench:
    """Benchmarks: edit what the toy world shows with every method, and measure the results against the true edits.

    scenes: NeRFs of toy scenes. panorama: wide pictures of several objects. video: a camera that goes around one.
    Ctrl-C keeps what is done; the same command goes on from there.
    generate: no edits, but objects from captions (--instructions), judged by toy-world renders of what they name.
    speed: no edits, but what a step of CSD-Edit costs, against the released code's schedule and the bare network; takes
    --particles, --rounds, --compile, --prior, --precision and --output.
    """

    benchmark: Annotated[Literal["scenes", "panorama", "video", "generate", "speed"], tyro.conf.Positional]
    """What is edited, generate, or speed."""
    quick: bool = False
    """Few scenes and instructions, small budgets: 15 minutes on two cores (panorama and video: 10)."""
    output: Path | None = None
    """Folder for scenes.md, scenes.csv (or panorama.md ...) and the contact sheets; default: benchmarks/results/scenes
    (or scenes_quick, ...) in a checkout, outputs/bench/... elsewhere. The CSV keeps what is there already. Where that
    is more than is asked for, the page is only printed, and page and sheets that are there stay as they are."""
    work: Path = Path("outputs/bench/work")
    """Folder of the cells, which are not computed again; nor are those in the table that is in --output already."""
    fresh: bool = False
    """Compute again what is in that table: to see for yourself, on this machine, what somebody else has measured."""
    engine: Literal["local", "ray"] = "local"
    """Processes of this machine, or a Ray cluster (that of RAY_ADDRESS, or one that is started here)."""
    workers: int | None = None
    """Cells at the same time; default: one for each core (at most 8), or one on a GPU; with ray, what the cluster has
    room for."""
    scenes: Annotated[tuple[int, ...] | None, tyro.conf.arg(metavar="INT [INT ...]")] = None
    """Seeds of toy scenes, from 1000000 on; default: the first held-out scene of each object."""
    instructions: Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="STR [STR ...]")] = None
    """Of recolour material snow night hat colour (panorama and video: sketch too), or in words: "give it a top hat";
    default: all of these names."""
    methods: Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="STR [STR ...]")] = None
    """Names of methods; default: all (with --quick: fewer)."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the edits."""
    sweep: Annotated[tuple[float, ...] | None, tyro.conf.arg(metavar="FLOAT [FLOAT ...]")] = None
    """Guidance scales: instead of the tables, fidelity over consistency of each method (CSD Figures 4 and 6)."""
    prior: str = "toy"
    """The diffusion model: toy, or a local folder in diffusers layout (on every machine of a cluster)."""
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Of the prior's networks. auto is what this machine edits in: fp16 on a GPU, bf16 on CPUs that compute in it,
    which is quicker, else fp32; speed takes fp32 on every CPU. What is done in one is computed again for another."""
    particles: Annotated[tuple[int, ...] | None, tyro.conf.arg(metavar="INT [INT ...]")] = None
    """Of speed: numbers of particles; default: 4 16 24."""
    rounds: int | None = None
    """Of speed: how often each contestant is timed; default: 7."""
    clip: str | None = None
    """Of generate: also CLIP text similarity, by a model of open_clip; default with --clip-weights: ViT-bigG-14."""
    clip_weights: str | None = None
    """Local file of that model's weights, or a tag that open_clip knows."""
    clip_tag: str | None = None
    """Tag of open_clip that a local file is of, or was trained like: it decides activation and preprocessing."""
    compile: bool = False
    """Of speed: also time the network compiled by torch, which needs a C++ compiler on a CPU."""

    def run(self) -> int:
        """Compute what is missing, then write the report; status 1 if cells failed."""
        self._check_flags()
        if self.benchmark == "speed":
            return self._speed().run()
        if self.benchmark == "generate":
            return self._generate().run()
        plan, engine, store, table = self._prepared()
        from csd_nerf.bench.schedule import missing

        def report() -> None:
            write_report(plan, store, table, self._output(), self._name())

        return sit(missing(plan.cells, store, table), store, engine, self._chosen().compute, report)

    def _check_flags(self) -> None:
        """Raise `ValueError` for flags without a value, and those that would be lost on the benchmark."""
        for entry in fields(self):
            if getattr(self, entry.name) == ():
                raise ValueError(f"--{entry.name} has no value: give at least one, or leave the flag out")
        speed = ("particles", "rounds", "compile")
        both = ("benchmark", "output", "prior", "precision")
        if self.benchmark != "generate" and (self.clip, self.clip_weights, self.clip_tag) != (None, None, None):
            raise ValueError(f"--clip has no meaning for csd bench {self.benchmark}: csd metrics measures it")
        for entry in fields(self):
            given = getattr(self, entry.name) != entry.default
            if given and entry.name not in both and (entry.name in speed) != (self.benchmark == "speed"):
                raise ValueError(f"--{entry.name} has no meaning for csd bench {self.benchmark}: leave it out")

    def _generate(self) -> "GenerateRun":
        from csd_nerf.commands.bench_generate import GenerateRun

        for flag in ("scenes", "sweep", "fresh"):
            if getattr(self, flag):
                raise ValueError(f"--{flag} has no meaning for csd bench generate: leave it out")
        self._check_run()
        return GenerateRun(
            self.instructions or (),
            self.methods or (),
            self.seeds,
            self.quick,
            self.prior,
            self.precision,
            self._output(),
            self.work,
            self.clip,
            self.clip_weights,
            self.clip_tag,
            self._engine,
        )

    def _speed(self) -> "SpeedRun":
        from csd_nerf.commands.bench_speed import SpeedRun

        output = self.output or (_CHECKOUT if _CHECKOUT.is_dir() else Path("outputs/bench"))
        particles, rounds = self.particles or (4, 16, 24), 7 if self.rounds is None else self.rounds
        return SpeedRun(self.prior, self.precision, particles, rounds, self.compile, output)

    def _check_run(self) -> None:
        """Raise `ValueError` for what would fail only after hours of cells."""
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"--workers {self.workers}: give at least 1")
        for flag, folder in (("--output", self._output()), ("--work", self.work)):
            make_folder(folder, flag)

    def _prepared(self) -> "tuple[Plan, Engine, Store, dict[str, Any]]":
        """Check everything that can fail before the first cell."""
        from csd_nerf.bench.plan import with_guidance
        from csd_nerf.bench.schedule import missing
        from csd_nerf.bench.store import Store

        choice = self._choice()
        if self.sweep:
            choice = with_guidance(choice, self.sweep)
        plan = self._chosen().make_plan(choice, self._chosen().defaults.protocol)
        self._check_run()
        store, table = Store(self.work), self._table()
        left = sum(not store.has(cell) for cell in missing(plan.cells, store, table))
        edits, noun = len(plan.edits()), plan.subject.noun
        say(f"{edits} edits, {len(plan.cells) - edits} {noun}s and truths; {left} of these cells are to be computed")
        known = sum(cell.key in table and not store.has(cell) for cell in plan.edits())
        if known:
            say(f"{known} edits are taken from the table in {self._output()}: --fresh computes them here")
        for text in plan.left_out:
            say(f"Left out: {text}")
        return plan, self._engine(), store, table

    def _chosen(self) -> "Benchmark":
        from csd_nerf.bench.benchmarks import benchmark

        assert self.benchmark not in ("speed", "generate")
        return benchmark(self.benchmark, self.quick)

    def _name(self) -> str:
        return "sweep" if self.sweep else self.benchmark

    def _table(self) -> dict[str, Any]:
        """What the table has that is in --output already; what it was made of may be gone."""
        from csd_nerf.bench.report import from_csv

        path = self._output() / f"{self._name()}.csv"
        if self.fresh or not path.is_file():
            return {}
        try:
            return from_csv(path.read_text(encoding="utf-8"), self._chosen().subject)
        except (ValueError, KeyError) as error:
            raise ValueError(
                f"--output: {path} is no table of this benchmark ({error}); give another folder"
            ) from error

    def _choice(self) -> "Choice":
        from csd_nerf.bench.methods import UNEDITED
        from csd_nerf.bench.plan import Choice
        from csd_nerf.bench.scenes import benchmark_scenes

        defaults = self._chosen().defaults
        scenes = self.scenes or benchmark_scenes()[: defaults.scenes]
        instructions = self.instructions or defaults.instructions
        names = self.methods or defaults.methods
        if self.sweep and not self.methods:
            names = tuple(name for name in names if name != UNEDITED)
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
        return folder / (f"{self.benchmark}_quick" if self.quick else self.benchmark)
