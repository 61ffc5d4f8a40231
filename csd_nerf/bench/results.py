"""What a cell gives: files by path, some of them pictures, and what it has cost."""

import io
import json
import platform
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from csd_nerf.bench.checkout import commit_at_start
from csd_nerf.images.writing import to_pil

Files = Mapping[str, bytes]
"""By path, with `/`."""
RESULT = "result.json"
Kind = Callable[
    [Mapping[str, Any], Mapping[str, Any], tuple[Files, ...]],
    tuple[dict[str, bytes], dict[str, Any]],
]
"""Computes cells of one kind: from `spec`, `where` and the files of `needs`, files and a result."""


def computed(
    kinds: Mapping[str, Kind], spec: Mapping[str, Any], where: Mapping[str, Any], inputs: tuple[Files, ...]
) -> dict[str, bytes]:
    """A cell's files, and its result with what it has cost and which commit computed it."""
    version = commit_at_start()  # before the work: the checkout may be another one after it
    started, busy = time.monotonic(), time.process_time()
    files, result = kinds[spec["kind"]](spec, where, inputs)
    result |= {
        "seconds": round(time.monotonic() - started, 2),
        "processor_seconds": round(time.process_time() - busy, 2),  # what it costs, whatever else the machine does
        "threads": torch.get_num_threads(),
        "machine": platform.machine() + (", CUDA" if torch.cuda.is_available() else ""),
        "torch": torch.__version__,
        "commit": version,
    }
    return {**files, RESULT: json.dumps(result, indent=1).encode()}


def read_pictures(files: Files, folder: str) -> Float[Tensor, "n 3 h w"]:
    """The pictures in a folder of a cell's files, in [0, 1]."""
    names = sorted(name for name in files if name.startswith(f"{folder}/"))
    return _unit(np.stack([np.array(Image.open(io.BytesIO(files[name]))) for name in names]))


def picture_files(folder: str, images: Float[Tensor, "n 3 h w"]) -> dict[str, bytes]:
    """Pictures as the files of a folder, numbered."""
    files = {}
    for index, image in enumerate(images):
        encoded = io.BytesIO()
        to_pil(image).save(encoded, "PNG")
        files[f"{folder}/{index:05d}.png"] = encoded.getvalue()
    return files


def read_truths(files: Files, name: str = "truths.npz") -> tuple[Float[Tensor, "k n 3 h w"], Float[Tensor, "n 3 h w"]]:
    """Every true edit of a truth cell, and the source."""
    with np.load(io.BytesIO(files[name])) as packed:
        return _unit(packed["truths"]), _unit(packed["source"])


def pack_truths(truths: list[Tensor], source: Tensor) -> bytes:
    """What `read_truths` reads, from uint8 pictures [n, h, w, 3]."""
    packed = io.BytesIO()
    np.savez_compressed(packed, truths=np.stack([truth.numpy() for truth in truths]), source=source.numpy())
    return packed.getvalue()


def _unit(pictures: np.ndarray) -> Float[Tensor, "*n 3 h w"]:
    return torch.from_numpy(pictures).movedim(-1, -3).float() / 255
