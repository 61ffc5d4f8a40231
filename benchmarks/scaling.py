"""How a distillation step scales: with the number of particles, and with the number of processes that share it.

    OMP_NUM_THREADS=1 python -m benchmarks.scaling [PRIOR] [PRECISION]      # writes benchmarks/results/scaling.md

Processor time, of which other programs on the machine change little. Processes are started over gloo, each with a copy
of the prior; the efficiency of P processes is the time of one over P times that of the slowest.
"""

import multiprocessing
import os
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist

from csd_nerf.bench.allocations import TensorMemory
from csd_nerf.bench.checkout import commit
from csd_nerf.bench.speed import SETTINGS, Problem
from csd_nerf.bench.speed_report import machine
from csd_nerf.distill import make_edit_distiller
from csd_nerf.priors import load_prior
from csd_nerf.priors.sharded import ShardedPrior

RESULTS = Path(__file__).parent / "results"
PARTICLES, MICRO_BATCH, STEPS = (4, 16, 64, 256), 64, 3
TOGETHER = 16
"""Particles of the step that processes share."""


def step_seconds(prior: Any, particles: int, steps: int = STEPS) -> float:
    """Median processor time of a step, after a first one."""
    problem, distiller = Problem.draw(prior, particles), make_edit_distiller(prior, SETTINGS)
    seconds = []
    for _ in range(steps + 1):
        started = time.thread_time()
        distiller(problem.particles, problem.target, torch.Generator().manual_seed(0))
        seconds.append(time.thread_time() - started)
    return median(seconds[1:])


def memory(prior: Any, particles: int) -> int:
    """Most bytes of tensors at the same time."""
    problem, distiller = Problem.draw(prior, particles), make_edit_distiller(prior, SETTINGS)
    with TensorMemory() as held:
        distiller(problem.particles, problem.target, torch.Generator().manual_seed(0))
    return held.peak


def work(name: str, precision: Any, rank: int, count: int, folder: Path) -> None:
    """One of several processes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=count)
    prior: Any = ShardedPrior(load_prior(name, device="cpu", dtype=precision))
    torch.save(step_seconds(prior, TOGETHER), folder / str(rank))
    dist.barrier()
    dist.destroy_process_group()


def shared_seconds(name: str, precision: str, count: int) -> float:
    """Processor time of a step in the slowest of `count` processes."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        started = [
            context.Process(target=work, args=(name, precision, rank, count, Path(folder))) for rank in range(count)
        ]
        for process in started:
            process.start()
        for process in started:
            process.join()
        return max(torch.load(Path(folder) / str(rank)) for rank in range(count))


def main() -> None:
    """Measure and write."""
    name = sys.argv[1] if len(sys.argv) > 1 else "toy"
    precision: Any = sys.argv[2] if len(sys.argv) > 2 else "bf16"
    prior = load_prior(name, device="cpu", dtype=precision, batch_size=MICRO_BATCH, needs_image=True)
    lines = [
        "# Scaling of the distillation step",
        "",
        f"`OMP_NUM_THREADS=1 python -m benchmarks.scaling {name} {precision}`, commit {commit()}, {date.today()}, "
        f"{machine()}, {os.getloadavg()[0]:.0f} programs running. Processor time, median of {STEPS} steps.",
        "",
        f"With at most {MICRO_BATCH} network samples a call:",
        "",
        "| particles | ms a step | ms a particle | tensors at the same time |",
        "|---|---|---|---|",
    ]
    for n in PARTICLES:
        seconds = step_seconds(prior, n)
        lines.append(f"| {n} | {seconds * 1e3:.0f} | {seconds / n * 1e3:.1f} | {memory(prior, n) / 1e6:.0f} MB |")
        print(lines[-1], flush=True)
    alone = shared_seconds(name, precision, 1)
    lines += ["", f"A step of {TOGETHER} particles, all samples in one call of each process:", ""]
    lines += ["| processes | ms of the slowest | efficiency |", "|---|---|---|", f"| 1 | {alone * 1e3:.0f} | |"]
    for count in (2, 4):
        seconds = shared_seconds(name, precision, count)
        lines.append(f"| {count} | {seconds * 1e3:.0f} | {alone / count / seconds:.2f} |")
        print(lines[-1], flush=True)
    (RESULTS / "scaling.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
