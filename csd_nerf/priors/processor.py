"""What a CPU can do, as far as it decides how a prior runs on it."""

import os
import platform
from pathlib import Path

_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""In Linux's words: of x86 (the first two) and of ARM."""


def has_native_bfloat16(info: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU has instructions for products of bfloat16 matrices: without, bfloat16 is slower than float32."""
    try:
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # no Linux
        return platform.system() == "Darwin" and platform.machine() == "arm64" and _has_sysctl_bf16()
    flags = [line.partition(":")[2].split() for line in lines if line.lower().startswith(("flags", "features"))]
    return any(_FLAGS & set(line) for line in flags)


def _has_sysctl_bf16() -> bool:
    """Apple's chips from the second generation on."""
    import subprocess

    command = ["sysctl", "-n", "hw.optional.arm.FEAT_BF16"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() == "1"


def usable_cores() -> int:
    """Cores that this process may keep busy: those it may run on, and no more than its share of time (cgroup v2)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return cores if quota == "max" else max(1, min(cores, round(int(quota) / int(period))))
    except (OSError, ValueError):
        return cores


def limit_threads() -> int:
    """Let torch use no more threads than there are cores for them, unless OMP_NUM_THREADS says how many; returns them.

    In a container torch sees all cores of the machine; threads beyond the container's share only wait for each other.
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > usable_cores():
        torch.set_num_threads(usable_cores())
    return torch.get_num_threads()
