"""How a distillation step scales: with the number of particles, and with the number of processes that share it.

    OMP_NUM_THREADS=1 python -m benchmarks.scaling [PRIOR] [PRECISION] [DEVICE] [FOLDER]

writes scaling.md, or scaling_cuda.md of a GPU, in benchmarks/results or the folder. On a CPU the cost of a step is
processor time, of which other programs on the machine change little. Processes are started over gloo, each with a copy
of the prior and a core of its own; their efficiency is one process' time of the wall over P times that of P processes,
waiting for each other included, so that nothing else should run. On a GPU all is the time of the wall.
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


def step_seconds(prior: Any, particles: int, steps: int = STEPS) -> tuple[float, float]:
    """Median time of a step, after a first one: processor time (on a GPU that of the wall), and that of the wall."""
    problem, distiller = Problem.draw(prior, particles), make_edit_distiller(prior, SETTINGS)
    seconds: list[tuple[float, float]] = []
    on_gpu = prior.device.type == "cuda"
    clocks = (time.perf_counter if on_gpu else time.thread_time, time.perf_counter)
    # On a GPU the prior tries which form of its network is quicker during the first calls of a shape.
    for _ in range(steps + (6 if on_gpu else 1)):
        started = [clock() for clock in clocks]
        distiller(problem.particles, problem.target, torch.Generator().manual_seed(0))
        if on_gpu:
            torch.cuda.synchronize(prior.device)
        processor, wall = (clock() - before for clock, before in zip(clocks, started, strict=True))
        seconds.append((processor, wall))
    counted = seconds[-steps:]
    return median(processor for processor, _ in counted), median(wall for _, wall in counted)


def memory(prior: Any, particles: int) -> int:
    """Most bytes of tensors at the same time; on a GPU of all that torch holds, weights included."""
    problem, distiller = Problem.draw(prior, particles), make_edit_distiller(prior, SETTINGS)
    if prior.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(prior.device)
        distiller(problem.particles, problem.target, torch.Generator().manual_seed(0))
        return torch.cuda.max_memory_allocated(prior.device)
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


def shared_seconds(name: str, precision: str, count: int) -> tuple[float, float]:
    """Processor time and time of the wall of a step in the slowest of `count` processes.

    Raises `RuntimeError` if one of them fails; the others, which would wait for it, are ended.
    """
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        started = [
            context.Process(target=work, args=(name, precision, rank, count, Path(folder))) for rank in range(count)
        ]
        for process in started:
            process.start()
        while any(process.is_alive() for process in started):
            if any(process.exitcode for process in started):
                break
            time.sleep(0.1)
        if any(process.exitcode != 0 for process in started):
            for process in started:
                process.terminate()
            raise RuntimeError(f"one of {count} processes failed; what it printed says why")
        found = [torch.load(Path(folder) / str(rank)) for rank in range(count)]
        return max(processor for processor, _ in found), max(wall for _, wall in found)


def main() -> None:
    """Measure and write."""
    given = dict(zip(("prior", "precision", "device", "folder"), sys.argv[1:], strict=False))
    name, device = given.get("prior", "toy"), given.get("device", "cpu")
    precision: Any = given.get("precision", "bf16")
    prior = load_prior(name, device=device, dtype=precision, batch_size=MICRO_BATCH, needs_image=True)
    on_gpu, shown = prior.device.type == "cuda", Path(name).name
    lines = [
        "# Scaling of the distillation step" + " on a GPU" * on_gpu,
        "",
        f"`OMP_NUM_THREADS=1 python -m benchmarks.scaling {shown} {precision}{f' {device}' * on_gpu}`, "
        f"commit {commit()}, {date.today()}, {machine()}, {os.getloadavg()[0]:.0f} programs running. "
        f"{'Time of the wall' if on_gpu else 'Processor time'}, median of {STEPS} steps.",
        "",
        f"With at most {MICRO_BATCH} network samples a call:",
        "",
        f"| particles | ms a step | ms a particle | {'memory' if on_gpu else 'tensors at the same time'} |",
        "|---|---|---|---|",
    ]
    for n in PARTICLES:
        seconds, _ = step_seconds(prior, n)
        lines.append(f"| {n} | {seconds * 1e3:.0f} | {seconds / n * 1e3:.1f} | {memory(prior, n) / 1e6:.0f} MB |")
        print(lines[-1], flush=True)
    if not on_gpu:
        lines += _of_processes(name, precision)
    place = Path(given.get("folder", RESULTS)) / f"scaling{'_cuda' * on_gpu}.md"
    place.write_text("\n".join(lines) + "\n")


def _of_processes(name: str, precision: str) -> list[str]:
    alone, cores = shared_seconds(name, precision, 1), os.cpu_count() or 1
    lines = ["", f"A step of {TOGETHER} particles, all samples in one call of each process:", ""]
    lines += ["| processes | ms of the wall | efficiency | processor time of each |", "|---|---|---|---|"]
    for count in (count for count in (1, 2, 4, 8) if count <= cores):
        processor, wall = alone if count == 1 else shared_seconds(name, precision, count)
        efficiency = f"{alone[1] / count / wall:.2f}" if count > 1 else ""
        lines.append(f"| {count} | {wall * 1e3:.0f} | {efficiency} | {processor * 1e3:.0f} ms |")
        print(lines[-1], flush=True)
    return lines


if __name__ == "__main__":
    main()
