"""The report of `csd bench speed`: what was measured, kept as JSON, and its page in Markdown."""

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from csd_nerf.bench.matching_speed import MatchingTimes
from csd_nerf.bench.speed import OUTSIDE, Measured

_TARGETS = {
    "cpu": (("ours", "limit", 1.05, False), ("released", "ours", 1.5, True), ("unsliced", "ours", 1.2, True)),
    "cuda": (("ours", "limit", 1.15, False), ("released", "ours", 3.0, True), ("unsliced", "ours", 1.2, True)),
}
"""Slower, faster, ratio, and whether the ratio should be at least (or at most) that."""
_MATCHING_TARGET = 1.25
_OUTSIDE_TARGET = 0.02
"""Share of a step on a CPU that may be spent outside of the network."""


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
    """A measurement as it is kept; `about` says of what, where and when."""
    return about | {
        "particles": measured.particles,
        "sample_tflop": measured.sample_flops / 1e12,
        "failures": measured.failures,
        "rows": {
            name: asdict(timing) | {"tflops": measured.rate(name) / 1e12} for name, timing in measured.timings.items()
        },
    }


def matching_record(measured: MatchingTimes, about: dict[str, Any], decoder: str) -> dict[str, Any]:
    """The same of feature matching; `decoder` says with which."""
    return about | {"matching": asdict(measured), "decoder": decoder}


def page(entries: Sequence[dict[str, Any]]) -> str:
    """All measurements, in Markdown."""
    lines = [
        "# The distillation step",
        "",
        "`csd bench speed`; csd_nerf/bench/speed.py says what is compared. Times are medians over rounds in which the",
        "contestants take turns, on a CPU with one thread in processor time; a ratio is the median of the rounds'",
        "ratios. TFLOP/s counts the network's operations alone (5 samples a particle, also for the released schedule,",
        "which computes 6; 3 with a source bank). Memory is that of tensors beyond the weights; on a GPU all that is",
        "held.",
    ]
    for entry in entries:
        lines += ["", *section(entry)]
    return "\n".join(lines) + "\n"


def section(entry: dict[str, Any]) -> list[str]:
    """One measurement."""
    return _matching_section(entry) if "matching" in entry else _step_section(entry)


def _matching_section(entry: dict[str, Any]) -> list[str]:
    row = entry["matching"]
    met = "met" if row["ratio"] >= _MATCHING_TARGET else "missed"
    return [
        f"## Feature matching, {entry['decoder']}: {entry['machine']}",
        "",
        f"Commit {entry['commit']}, {entry['date']}, {entry['rounds']} rounds. `{entry['command']}`",
        "",
        f"Two whole decodes take {row['ratio']:.2f} times as long as ours ({row['seconds'] * 1e3:.0f} ms; at least "
        f"{_MATCHING_TARGET}: {met}), {row['operations_ratio']:.2f} times the operations and {row['memory_ratio']:.2f} "
        f"times the memory. The gradients differ by {row['error']:.1e}. What the last block of the decoder costs, and "
        "only forwards, is all there is to save: the operations' ratio is the bound where they decide.",
    ]


def _step_section(entry: dict[str, Any]) -> list[str]:
    lines = [
        f"## {entry['prior']}, {entry['precision']}, {entry['particles']} particles: {entry['machine']}",
        "",
        f"Commit {entry['commit']}, {entry['date']}, {entry['rounds']} rounds; {entry['parameters']:.1f} M parameters,",
        f"{entry['sample_tflop']:.4g} TFLOP a sample. `{entry['command']}`",
        "",
        "| | ms | time / ours | particle-steps/s | TFLOP/s | peak memory | gradient's error | first call |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in entry["rows"].items():
        step = name not in ("matrix product", "limit", OUTSIDE)
        cells = [
            name,
            f"{row['seconds'] * 1e3:.1f}",
            f"{row['ratio']:.3f}" if name != "matrix product" else "",
            f"{entry['particles'] / row['seconds']:.1f}" if step else "",
            f"{row['tflops']:.3g}" if name != OUTSIDE else "",
            f"{row['peak_bytes'] / 1e6:.1f} MB" if row["peak_bytes"] and name != "matrix product" else "",
            f"{row['error']:.1e}" if row["error"] is not None and name != "ours" else "",
            f"+{row['setup']:.1f} s" if row["setup"] > 1 else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"Targets: {'; '.join(_judged(entry))}."]
    return lines + [f"\n{name} is left out: {why}" for name, why in entry["failures"].items()]


def _judged(entry: dict[str, Any]) -> list[str]:
    rows, said = entry["rows"], []
    for slower, faster, wanted, least in _TARGETS[entry["device"]]:
        if slower not in rows or faster not in rows:
            continue
        if slower == "ours" and rows.get("captured", rows["ours"])["ratio"] < 1:
            slower = "captured"  # as a prior on a GPU does by itself
        ratio = rows[slower]["ratio"] / rows[faster]["ratio"]
        met = ratio >= wanted if least else ratio <= wanted
        limit = f"at {'least' if least else 'most'} {wanted}"
        said.append(f"{slower} / {faster} {ratio:.2f} ({limit}: {'met' if met else 'missed'})")
    if OUTSIDE in rows:
        share = rows[OUTSIDE]["ratio"]
        limit = f" (at most {_OUTSIDE_TARGET:.0%}: {'met' if share <= _OUTSIDE_TARGET else 'missed'})"
        said.append(f"outside of the network {share:.1%}{limit if entry['device'] == 'cpu' else ''}")
    if entry["device"] == "cuda":
        share = rows["ours"]["tflops"] / rows["matrix product"]["tflops"]
        said.append(f"matrix-product rate {share:.0%} (at least 50 %: {'met' if share >= 0.5 else 'missed'})")
    return said
