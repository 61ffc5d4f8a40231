"""Files of generators: safetensors, or torch's own where they hold nothing but tensors. No pickle is ever executed.

Files that hold objects are refused with the command that converts them, `csd stylegan convert`; see `conversion`.
"""

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from csd_nerf.images.picture_files import check_place
from csd_nerf.images.stylegan.generator import Generator
from csd_nerf.images.stylegan.layouts import CheckpointError, Layout, read_generator, write_generator
from csd_nerf.whole_files import write_atomically

SUFFIXES = (".safetensors", ".pt", ".pth")
NETWORKS = ("g_ema", "G_ema", "generator", "g")
"""Where checkpoints of several networks keep the generator, the best first: the averaged one."""


def load_generator(path: Path) -> Generator:
    """A generator without gradients, in either layout.

    Raises `CheckpointError` (a `ValueError`) for files that are missing, hold pickled objects (the converter is named),
    or have other weights than a generator has (the keys are named).
    """
    return read_generator(flat(read_tensors(path), str(path)), str(path))


def save_generator(path: Path, generator: Generator, layout: Layout, *, half: bool = False) -> None:
    """Write safetensors, whole or not at all; `half` stores float16.

    Raises `CheckpointError` for other suffixes, and for weights that float16 does not hold.
    """
    from safetensors.torch import save_file

    check_output(path)
    weights = write_generator(generator, layout)
    if half:
        weights = {name: value.half() for name, value in weights.items()}
        too_large = next((name for name, value in weights.items() if not value.isfinite().all()), None)
        if too_large is not None:
            raise CheckpointError(
                f"{path}: {too_large} has values above 65504, which float16 does not hold: store float32"
            )
    facts = {"format": "pt", "layout": layout, "architecture": "StyleGAN2 generator"}
    write_atomically(path, lambda temporary: save_file(weights, str(temporary), metadata=facts))


def check_output(path: Path) -> None:
    """Raise `CheckpointError` unless safetensors can be written there, and `ValueError` as `check_place`."""
    if path.suffix.lower() != ".safetensors":
        raise CheckpointError(
            f"{path}: generators are written as safetensors; name it {path.stem or 'generator'}.safetensors"
        )
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder: give the name of a file")
    check_place(path)


def read_tensors(path: Path) -> dict[str, Any]:
    """What is in a file, tensors in dicts. Nothing in the file is executed."""
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}: give a generator's checkpoint ({', '.join(SUFFIXES)})")
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return _safetensors(path)
    if suffix == ".pkl":
        raise refusal(path, "is a pickle")
    if suffix not in SUFFIXES:
        raise CheckpointError(f"{path}: checkpoints of generators end with {', '.join(SUFFIXES)}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise refusal(path, f"holds more than tensors ({reason(error)})") from error
    except (RuntimeError, EOFError, ValueError, zipfile.BadZipFile, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint ({reason(error)})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, no state dict of a generator")
    return content


def flat(content: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """The generator's state dict out of a checkpoint, float32, with `latent_avg` beside it."""
    nested = next((name for name in NETWORKS if isinstance(content.get(name), Mapping)), None)
    chosen: Mapping[str, Any] = content[nested] if nested else content
    weights = {}
    for name, value in chosen.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{source}: {name} is a {type(value).__name__}, no tensor: this is no state dict")
        weights[name.removeprefix("module.")] = value.float()
    mean = content.get("latent_avg")
    if nested and isinstance(mean, Tensor):
        weights["latent_avg"] = mean.float()
    return weights


def refusal(path: Path, what: str) -> CheckpointError:
    """The message for files that only the converter reads."""
    return CheckpointError(
        f"{path} {what}, and unpickling can run code: it is not read. Convert it once with\n"
        f"  csd stylegan convert {path} {path.with_suffix('.safetensors').name}\n"
        "which reads tensors and plain values out of it and executes nothing"
    )


def _safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(str(path)))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors ({reason(error)})") from error


def reason(error: Exception) -> str:
    """What torch says in one line: of objects that it refuses, their class or function."""
    said = str(error).strip()
    wanted = re.search(r"GLOBAL ([\w.]+)", said)
    if wanted:
        return wanted[1]
    return said.splitlines()[0][:160] if said else type(error).__name__
