"""All random numbers of the process, in types that `torch.load(weights_only=True)` accepts."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed all of these generators, as `ns-train` does at its start."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def capture_random_state() -> dict[str, Any]:
    """States of torch's (CPU and every GPU), numpy's and Python's generators."""
    algorithm, keys, position, has_gauss, gauss = np.random.get_state()
    version, internal, next_gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [algorithm, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss],
        "python": [version, torch.tensor(internal, dtype=torch.int64), next_gauss],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Set every generator to `capture_random_state()`."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])
    algorithm, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((algorithm, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    version, internal, next_gauss = state["python"]
    random.setstate((version, tuple(internal.tolist()), next_gauss))


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """Let something draw random numbers without changing what is drawn afterwards."""
    state = capture_random_state()
    try:
        yield
    finally:
        restore_random_state(state)


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Within, sums on the CPU are made in one order; without, threads race in the hash grid's gradient."""
    before, warn = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    if wanted:
        torch.use_deterministic_algorithms(True, warn_only=True)
        memory.fill_uninitialized_memory = False  # costs time and changes nothing here
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn)
        memory.fill_uninitialized_memory = fill
