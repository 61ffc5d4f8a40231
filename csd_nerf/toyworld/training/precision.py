"""Where training computes in bfloat16: on GPUs, and on CPUs whose matrix instructions take it natively.

Weights, optimiser, averages and losses stay in single precision; only matrix products and convolutions are rounded.
A CPU without such instructions emulates them and becomes slower.
"""

from contextlib import AbstractContextManager

import torch


def has_native_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware (AVX-512 BF16 or AMX)."""
    probes = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(probe() for probe in probes if probe is not None)


def mixed_precision(device: str) -> AbstractContextManager[object]:
    """Autocast to bfloat16 where `device` gains from it, else nothing."""
    kind = device.split(":")[0]
    return torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda" or has_native_bfloat16())
