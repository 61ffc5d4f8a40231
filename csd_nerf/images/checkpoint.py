"""An edit that was stopped, on disk: what it had reached, and what it was asked for.

It goes on only as what it was: under other flags it would end as something that no flags describe.
"""

import hashlib
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from csd_nerf.whole_files import write_atomically

_FORMAT = 1
_READ_FOR_DIGEST, _PIECES = 1 << 28, 16
Asked = Mapping[str, str | int | float | bool | None]
"""What decides a result, by the names of the flags."""


@dataclass(frozen=True)
class Checkpoint:
    """Where an edit stands."""

    step: int
    """Steps made."""
    latents: Float[Tensor, "*shape"]
    """What is optimised, on the CPU; empty where that is in `networks`."""
    generator: UInt8[Tensor, " bytes"]
    """State of the random generator."""
    network_samples: int = 0
    """Network samples spent so far."""
    seconds: float = 0.0
    """Wall-clock time spent so far."""
    networks: dict[str, Any] = field(default_factory=dict)
    """State dicts of networks and optimisers: tensors, numbers and containers of them."""


def checkpoint_path(output: Path) -> Path:
    """Where the state of the edit that writes `output` is kept while it is not finished."""
    return output.with_name(f"{output.name}.resume")


def save_checkpoint(path: Path, checkpoint: Checkpoint, asked: Asked) -> None:
    """Write it, whole or not at all."""
    content = {"format": _FORMAT, "asked": dict(asked), **vars(checkpoint)}
    write_atomically(path, lambda temporary: torch.save(content, temporary))


def load_checkpoint(path: Path, asked: Asked) -> Checkpoint:
    """Read it.

    Raises `ValueError`, naming the file or the flags, if it is missing, no such file, or was asked for something else.
    """
    if not path.is_file():
        raise ValueError(f"--resume: there is no {path}; leave --resume out to start from the beginning")
    try:
        # Mapped, not read: the latents of a long video are copied once, to where they are edited.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        before = content.pop("asked")
        if content.pop("format") != _FORMAT:
            raise KeyError("format")
        found = Checkpoint(**content)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"--resume: {path} is no state of a stopped edit ({error}); remove it and leave --resume out"
        ) from error
    changed = [name for name in {**before, **asked} if before.get(name) != asked.get(name)]
    if changed:
        said = ", ".join(f"{name} {before.get(name)!r} (now {asked.get(name)!r})" for name in changed)
        raise ValueError(
            f"--resume: {path} was begun with {said}: give the same again, or leave --resume out to start anew"
        )
    return found


def content_digest(files: Sequence[Path]) -> str:
    """What tells these files from others of the same names: sizes and bytes, of very large ones 16 parts."""
    digest, most = hashlib.sha256(), max(1 << 16, _READ_FOR_DIGEST // max(1, len(files)))
    for path in files:
        size = path.stat().st_size
        digest.update(size.to_bytes(8, "little"))
        with path.open("rb") as file:
            if size <= most:
                digest.update(file.read())
                continue
            for piece in range(_PIECES):  # evenly spread, the beginning and the end among them
                file.seek(piece * (size - most // _PIECES) // (_PIECES - 1))
                digest.update(file.read(most // _PIECES))
    return digest.hexdigest()[:16]
