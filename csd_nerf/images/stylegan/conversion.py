"""Tensors out of pickled checkpoints, without executing them.

A pickle is a program that may name any function to call. NVIDIA's network files (.pkl) are pickles that carry the
source code of their classes and run it when they are loaded; rosinality's training checkpoints (.pt) hold an
`argparse.Namespace` beside the tensors. Here every name in a pickle is looked up in a table of harmless stand-ins:
tensors and their storages, containers, numpy's single numbers, and records that only keep the state that they are
given. Any other name ends the reading with an error. What the table holds is sealed: a pickle may give a state not only
to what it made but to a name that it looked up, and so change a function for the whole process. The source code in
NVIDIA's files is read as the text it is.

A state dict does not tell all: NVIDIA's layers have an activation, and a gain that is the learning-rate multiplier of
their part of the network. Those are among the attributes of their records; files that differ from what this generator
computes are refused, since they would be converted to one that makes other pictures.
"""

import collections
import io
import math
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._utils import _rebuild_parameter, _rebuild_tensor_v2

from csd_nerf.images.stylegan.files import NETWORKS, SUFFIXES, read_tensors, reason
from csd_nerf.images.stylegan.generator import MAPPING_RATE
from csd_nerf.images.stylegan.layouts import CheckpointError

_TENSORFLOW = "Files of the TensorFlow versions are converted first by NVIDIA's legacy.py (stylegan2-ada-pytorch)"
_ACTIVATION = "lrelu"
_MAPPING_LAYER, _CONVOLUTION = re.compile(r"mapping\.fc\d+"), re.compile(r"synthesis\.b\d+\.conv[01]")


class Record:
    """In the place of an object of a class that is not loaded: its state."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """Keep what the object was made of."""
        self.state: dict[str, Any] = {"arguments": arguments, **named}

    def __setstate__(self, state: Any) -> None:
        self.state = dict(state) if isinstance(state, dict) else {"state": state}


class _Dictionary(dict):
    """In the place of subclasses of dict."""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.update(state)


def read_pickled(path: Path) -> dict[str, Any]:
    """What is in a pickled checkpoint, for `files.flat`: of NVIDIA's .pkl the generator's state dict, of a .pt all.

    Raises `CheckpointError` that names what the file wanted to load, if it is more than a checkpoint's contents.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}: give the checkpoint to convert")
    suffix = path.suffix.lower()
    if suffix == ".pkl":
        content = _nvidia(path)
    elif suffix in SUFFIXES:
        content = _torch(path)
    else:
        raise CheckpointError(f"{path}: checkpoints that can be converted end with .pkl, {', '.join(SUFFIXES)}")
    return content


def _torch(path: Path) -> Any:
    """A file of torch's, with argparse's container of options allowed: it has attributes and no behaviour."""
    import argparse

    if path.suffix.lower() == ".safetensors":
        return read_tensors(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} wants to load {reason(error)}, which is no part of a generator's checkpoint: it is not converted. "
            "If you trust it, take the tensors out with the code that wrote it"
        ) from error
    except (RuntimeError, EOFError, ValueError, zipfile.BadZipFile, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint ({reason(error)})") from error


def _nvidia(path: Path) -> dict[str, Tensor]:
    try:
        with open(path, "rb") as file:
            content = _Unpickler(file, path).load()
    except CheckpointError as error:
        raise error if str(path) in str(error) else CheckpointError(f"{path} is not read: {error}") from error
    except Exception as error:  # whatever damaged bytes make of an unpickler
        raise CheckpointError(f"{path} cannot be read as a pickle ({type(error).__name__}: {error})") from error
    network = content
    if isinstance(content, dict):
        network = next((content[name] for name in NETWORKS if content.get(name) is not None), None)
    if not isinstance(network, Record) or "_modules" not in network.state:
        found = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path} holds no generator of stylegan2-ada-pytorch: {found}. {_TENSORFLOW}")
    modules = dict(_modules(network))
    for name, module in modules.items():
        _check_layer(name, module, path)
    return {name: value for prefix, module in modules.items() for name, value in _tensors(prefix, module)}


def _modules(module: Record, name: str = "") -> Iterator[tuple[str, Record]]:
    """A module and those in it, by the names that `torch.nn.Module.named_modules` gives them."""
    yield name, module
    for part, child in (module.state.get("_modules") or {}).items():
        if isinstance(child, Record):
            yield from _modules(child, f"{name}.{part}" if name else str(part))


def _tensors(prefix: str, module: Record) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers of a module without those in it, as `torch.nn.Module.state_dict` names them."""
    for kind in ("_parameters", "_buffers"):
        for name, value in (module.state.get(kind) or {}).items():
            if isinstance(value, Tensor):
                yield f"{prefix}.{name}" if prefix else name, value.detach()


def _check_layer(name: str, module: Record, path: Path) -> None:
    """Raise `CheckpointError` if a layer computes something else than ours; what a record lacks is not asked for."""
    mapping = _MAPPING_LAYER.fullmatch(name) is not None
    if not mapping and _CONVOLUTION.fullmatch(name) is None:
        return
    activation = module.state.get("activation", _ACTIVATION)
    if activation != _ACTIVATION:
        raise CheckpointError(
            f"{path}: {name} has the activation {activation!r}. Only {_ACTIVATION!r}, as in NVIDIA's published "
            "generators, is supported: with it the pictures would be others, so the file is not converted"
        )
    gain = module.state.get("bias_gain", MAPPING_RATE) if mapping else MAPPING_RATE
    if not isinstance(gain, (int, float, np.number)) or not math.isclose(gain, MAPPING_RATE, rel_tol=1e-5):
        raise CheckpointError(
            f"{path}: {name} has the bias_gain {gain}, the lr_multiplier of its mapping network. Only {MAPPING_RATE}, "
            "as in NVIDIA's published generators, is supported: with it the pictures would be others, so the file is "
            "not converted"
        )


class _Unpickler(pickle.Unpickler):
    """Finds nothing but what is in the table."""

    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file)
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in; raises `CheckpointError` for names that are not in the table."""
        found = _TABLE.get((module.replace("numpy._core", "numpy.core"), name))
        if found is None:
            raise CheckpointError(
                f"{self.path} wants to load {module}.{name}, which is no part of a generator's checkpoint: it is not "
                "converted, and nothing in it was executed"
                + (f". {_TENSORFLOW}" if module.startswith("dnnlib.tflib") else "")
            )
        return found

    def persistent_load(self, pid: Any) -> Any:
        """Nothing is stored outside the file."""
        raise CheckpointError(f"{self.path} refers to something outside of it ({pid!r})")


def _persistent(meta: dict[str, Any]) -> Record:
    """In the place of NVIDIA's function that executes the source code in `meta`."""
    record = Record()
    record.state = dict(meta.get("state") or {})
    return record


def _storage(content: bytes) -> Any:
    """A storage, as torch pickles it inside other pickles: bytes of a file of torch's own, read safely."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _scalar(dtype: "_DType", content: bytes) -> Any:
    return np.frombuffer(content, dtype=dtype.made)[0]


class _DType:
    """In the place of numpy's types of numbers and texts: what they are is said in a string."""

    def __init__(self, *arguments: Any) -> None:
        self.made = np.dtype(str(arguments[0]))
        if self.made.hasobject:
            raise CheckpointError("a numpy array of objects is no part of a generator's checkpoint")

    def __setstate__(self, state: Any) -> None:
        """Of numpy's state only the order of bytes is taken: the rest could say that numbers are objects."""
        if state[1] in ("<", ">"):
            self.made = self.made.newbyteorder(state[1])


class _Sealed:
    """What a name stands for: it can be called, and not be changed."""

    __slots__ = ("_call", "_name")

    def __init__(self, name: tuple[str, str], call: Callable[..., Any]) -> None:
        object.__setattr__(self, "_name", ".".join(name))
        object.__setattr__(self, "_call", call)

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        self.__setstate__({name: value})

    def __setstate__(self, state: Any) -> None:
        raise CheckpointError(f"it changes {self._name}, which no generator's checkpoint does: it is not converted")


_CALLED: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("builtins", "set"): set,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("torch", "Size"): torch.Size,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy", "dtype"): _DType,
}
# Subclasses of dict are made by an operation that takes only classes. A state for a class itself fails: its
# `__setstate__` is no bound method.
_TABLE = {
    **{name: _Sealed(name, call) for name, call in _CALLED.items()},
    ("dnnlib.util", "EasyDict"): _Dictionary,
}
