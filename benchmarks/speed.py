"""Time the distillation step against the released code's schedule and the bare network (see csd_nerf/bench/speed.py).

    python -m benchmarks.speed [--prior toy] [--particles 4 16 24] [--precision fp32 bf16] [--compile] [--output FOLDER]

On a GPU with a full-size prior of random weights: python -m benchmarks.random_prior FOLDER, then --prior FOLDER.
Adds to speed.json in the output folder, and writes speed.md from all that is in it.
"""

import argparse
import json
import os
import platform
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import torch

from csd_nerf.bench.checkout import commit
from csd_nerf.bench.speed import Measured, measure
from csd_nerf.priors.registry import load_prior

RESULTS = Path(__file__).parent / "results"


def machine() -> str:
    """What it was measured on."""
    if torch.cuda.is_available():
        where = torch.cuda.get_device_name()
    else:
        where = f"{_processor()}, {torch.get_num_threads()} threads of {os.cpu_count()} cores"
    return f"{where}, torch {torch.__version__}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if "model name" in line] if info.is_file() else []
    return names[0].split(":")[1].strip() if names else platform.processor() or platform.machine()


def record(measured: Measured, about: dict[str, Any]) -> dict[str, Any]:
    """A measurement as it is kept."""
    return about | {
        "particles": measured.particles,
        "sample_tflop": measured.sample_flops / 1e12,
        "failures": measured.failures,
        "rows": {
            name: asdict(timing) | {"tflops": measured.rate(name) / 1e12} for name, timing in measured.timings.items()
        },
    }


def table(entries: list[dict[str, Any]]) -> str:
    """The report, in Markdown."""
    lines = [
        "# The distillation step",
        "",
        "`python -m benchmarks.speed`; csd_nerf/bench/speed.py says what is compared. Times are medians over rounds in",
        "which the contestants take turns; a ratio is the median of the rounds' ratios. TFLOP/s counts the network's",
        "operations alone (5 samples a particle, also for the released schedule, which computes 6).",
    ]
    for entry in entries:
        lines += [
            "",
            f"## {entry['prior']}, {entry['precision']}, {entry['particles']} particles: {entry['machine']}",
            "",
            f"Commit {entry['commit']}, {entry['date']}, {entry['rounds']} rounds; {entry['parameters']:.1f} M parameters,"
            f" {entry['sample_tflop']:.4g} TFLOP a sample. `{entry['command']}`",
            "",
            "| | ms | ratio to ours | particle-steps/s | TFLOP/s | peak memory | gradient's error | first call |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for name, row in entry["rows"].items():
            step = name not in ("matrix product", "limit")
            cells = [
                name,
                f"{row['seconds'] * 1e3:.1f}",
                f"{row['ratio']:.3f}" if name != "matrix product" else "",
                f"{entry['particles'] / row['seconds']:.1f}" if step else "",
                f"{row['tflops']:.3g}",
                f"{row['peak_bytes'] / 1e9:.2f} GB" if row["peak_bytes"] and name != "matrix product" else "",
                f"{row['error']:.1e}" if row["error"] is not None and name != "ours" else "",
                f"+{row['setup']:.1f} s" if row["setup"] > 1 else "",
            ]
            lines.append(f"| {' | '.join(cells)} |")
        lines += [f"\n{name} could not run: {why}" for name, why in entry["failures"].items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure what the command line asks for; each number of particles is written as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", default="toy")
    parser.add_argument("--particles", type=int, nargs="+", default=[4, 16, 24])
    parser.add_argument("--precision", nargs="+", default=["auto"], choices=["auto", "fp32", "fp16", "bf16"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--output", type=Path, default=RESULTS)
    asked = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    asked.output.mkdir(parents=True, exist_ok=True)
    kept = asked.output / "speed.json"
    command = f"python -m benchmarks.speed --prior {asked.prior} --precision {' '.join(asked.precision)}"
    for precision in asked.precision:
        prior = load_prior(asked.prior, dtype=precision, needs_image=True)
        if asked.channels_last:
            prior.unet.to(memory_format=torch.channels_last)
        about = {
            "prior": Path(asked.prior).name + (", channels last" if asked.channels_last else ""),
            "precision": str(prior.dtype).removeprefix("torch."),
            "parameters": sum(weight.numel() for weight in prior.unet.parameters()) / 1e6,
            "machine": machine(),
            "commit": commit(),
            "date": str(date.today()),
            "rounds": asked.rounds,
            "command": command,
        }
        for n in asked.particles:
            entries = json.loads(kept.read_text()) if kept.is_file() else []
            entries.append(record(measure(prior, n, rounds=asked.rounds, compiled=asked.compile), about))
            kept.write_text(json.dumps(entries, indent=1) + "\n")
            page = table(entries)
            (asked.output / "speed.md").write_text(page)
            print(page[page.rindex("## ") :], flush=True)


if __name__ == "__main__":
    main()
