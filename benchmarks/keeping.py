"""What benchmarks computed, on disk: it is not computed again, and says which commit it comes from."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from csd_nerf.bench.checkout import commit
from csd_nerf.whole_files import write_atomically


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `make` gives, computed once; `commit` is added to it."""
    if not path.is_file():
        made = {**make(), "commit": commit()}
        write_atomically(path, lambda temporary: torch.save(made, temporary))
    return torch.load(path, weights_only=True)


def commits(found: Iterable[dict[str, Any]]) -> str:
    """The commits that results come from, in words."""
    names = sorted({one.get("commit", "unknown") for one in found})
    return f"commit{'s' * (len(names) > 1)} {', '.join(names)}"
