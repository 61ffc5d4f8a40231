"""What a CPU can do, as far as it decides how a prior runs on it."""

import os
import platform
from pathlib import Path


def gains_from_bfloat16(info: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether products of bfloat16 matrices are quicker than float32's on this CPU; elsewhere they are slower.

    So it is with AMX, ARM's BF16 and AMD's AVX-512 BF16. With Intel's AVX-512 BF16 but no AMX, as virtual machines show
    it, a step with the toy prior takes 1.3 to 1.5 times as long as in float32 (benchmarks/results/speed_study.md).
    """
    try:
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # no Linux
        return platform.system() == "Darwin" and platform.machine() == "arm64" and _has_sysctl_bf16()
    said = [line.partition(":") for line in lines]
    flags = {flag for name, _, value in said if name.strip().lower() in ("flags", "features") for flag in value.split()}
    amd = any(name.strip() == "vendor_id" and value.strip() == "AuthenticAMD" for name, _, value in said)
    return bool({"amx_bf16", "bf16"} & flags) or (amd and "avx512_bf16" in flags)


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
