"""Reading weights and naming what is damaged."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from csd_nerf.priors.errors import PriorLayoutError
from csd_nerf.priors.layout import Weights


def read_weights(folder: Path, weights: Weights) -> dict[str, Tensor]:
    """All tensors of a network, by name, on the CPU."""
    from safetensors.torch import load_file

    state: dict[str, Tensor] = {}
    for name in weights.files:
        file = folder / name
        state.update(torch.load(file, map_location="cpu", weights_only=True) if weights.pickled else load_file(file))
    return state


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Name the folder at fault: a damaged download fails deep inside the libraries, each time with another error."""
    try:
        yield
    except Exception as error:
        raise PriorLayoutError(
            f"{folder} cannot be loaded ({type(error).__name__}: {error}); a broken download? "
            "Files of a few hundred bytes are pointers of git-lfs, not weights"
        ) from error
