"""From what a user types to a prior: a name, a folder in diffusers layout, or a hub id.

Names are looked up first, then folders, then the hub; `./toy` is a folder even where `toy` is a name.
"""

import difflib
import importlib.resources
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from csd_nerf.priors.components import load_components, load_networks
from csd_nerf.priors.configurations import check_configurations
from csd_nerf.priors.deepfloyd import DeepFloydPrior
from csd_nerf.priors.diffusion import DiffusionPrior, check_batch_size
from csd_nerf.priors.errors import PriorLayoutError, PriorNotFoundError
from csd_nerf.priors.hub import HubModel, fetch, find_on_hub, is_offline
from csd_nerf.priors.instruct_pix2pix import InstructPix2PixPrior
from csd_nerf.priors.layout import Layout, files_below, inspect_layout
from csd_nerf.priors.text_to_image import TextToImagePrior
from csd_nerf.processor import gains_from_bfloat16

DType = Literal["auto", "fp32", "fp16", "bf16"]
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Embedded:
    """A prior inside the installed package."""

    folder: str
    """Folder inside `csd_nerf.data`."""


@dataclass(frozen=True)
class Hub:
    """A prior on the Hugging Face hub."""

    repository: str
    hint: str = ""
    """What to do first, for messages."""


PRIORS: dict[str, Embedded | Hub] = {
    "toy": Embedded("toy_prior"),
    "instruct-pix2pix": Hub("timbrooks/instruct-pix2pix"),
    "stable-diffusion": Hub("stable-diffusion-v1-5/stable-diffusion-v1-5"),
    "deepfloyd": Hub(
        "DeepFloyd/IF-I-XL-v1.0",
        "its authors ask you to accept their licence on https://huggingface.co/DeepFloyd/IF-I-XL-v1.0 and to log in "
        "before the download: hf auth login",
    ),
}
"""Short names. Everything else is a folder or a hub id."""


def load_prior(
    name: str | Path,
    *,
    device: str | torch.device = "auto",
    dtype: DType = "auto",
    batch_size: int | None = None,
    offline: bool | None = None,
    variant: str | None = None,
    allow_pickles: bool = False,
    needs_image: bool = False,
) -> DiffusionPrior:
    """Load a frozen diffusion model: InstructPix2Pix, text-to-image or DeepFloyd IF, as its configuration says.

    Args:
        name: A name in `PRIORS`, a local folder in diffusers layout, or a hub id `org/name`.
        device: 'auto' takes the GPU if there is one.
        dtype: Precision of the networks; 'auto' is fp16 on CUDA (bf16 is several times less exact here) and fp32
            elsewhere. Inputs and outputs are float32 whatever it is.
        batch_size: Rows per network call, to bound memory; None sends all rows at once.
        offline: Whether only the hub's cache may be used; None does as the environment variable HF_HUB_OFFLINE says.
        variant: Weights to prefer, such as 'fp16' for `model.fp16.safetensors`; the plain ones where there are none.
        allow_pickles: Whether weights may be pickles (.bin) where there are no safetensors. Reading a pickle can run
            code: only for files whose origin you trust.
        needs_image: Refuse models without an image input (text-to-image), which cannot edit.

    Everything that file names and configurations tell is checked before weights are downloaded or read.

    Raises:
        PriorNotFoundError: Nothing is reachable under this name.
        PriorLayoutError: It is no model that we can run; the message names the missing or wrong files.
        ValueError: Unknown device, dtype or batch size.
    """
    shown = str(name)
    where, precision = _device(device), _dtype(dtype)
    check_batch_size(batch_size)
    precision = precision or (torch.float16 if where.type == "cuda" else torch.float32)
    options = _Options(is_offline(offline), variant, allow_pickles, needs_image)
    folder, layout = _locate(shown, options)
    kind = check_configurations(folder, shown, needs_image=needs_image)
    if kind == "deepfloyd":
        networks = load_networks(folder, layout, name=shown, device=where, dtype=precision)
        return DeepFloydPrior(networks, name=shown, batch_size=batch_size)
    components = load_components(folder, layout, name=shown, device=where, dtype=precision)
    prior = InstructPix2PixPrior if kind == "instruct-pix2pix" else TextToImagePrior
    return prior(components, name=shown, batch_size=batch_size)


def auto_precision(dtype: DType, device: str | torch.device) -> DType:
    """What 'auto' means for edits and objects: bf16 on a CPU that gains from it, at half the time.

    Edited pictures differ from float32's by rounding (54 dB with the toy prior). Elsewhere, and for everything else, it
    stays what it is for `load_prior`.
    """
    if dtype == "auto" and _device(device).type == "cpu" and gains_from_bfloat16():
        return "bf16"
    return dtype


def toy_folder() -> Path:
    """Folder of the embedded prior. Raises `PriorNotFoundError` if the installation carries none."""
    return _embedded("toy", PRIORS["toy"])


@dataclass(frozen=True)
class _Options:
    """Which files may be taken, and from where; see `load_prior`."""

    offline: bool
    variant: str | None
    allow_pickles: bool
    needs_image: bool


def _locate(name: str, options: _Options) -> tuple[Path, Layout]:
    source = PRIORS.get(name)
    path = Path(name).expanduser()
    if isinstance(source, Embedded):
        folder = _embedded(name, source)
    elif source is None and name.strip() and path.is_dir():
        folder = path
    else:
        repository = source.repository if isinstance(source, Hub) else name
        if source is None and not _is_hub_id(name):
            raise PriorNotFoundError(_not_found(name, f"{name!r} is no known name, no folder here and no hub id"))
        return _locate_on_hub(name, repository, options)
    return folder, _inspect(files_below(folder), str(folder), options)


def _inspect(files: frozenset[str], where: str, options: _Options) -> Layout:
    return inspect_layout(files, where, variant=options.variant, allow_pickles=options.allow_pickles)


def _locate_on_hub(name: str, repository: str, options: _Options) -> tuple[Path, Layout]:
    """Check the list of files, then the configurations, and only then fetch weights."""
    try:
        model = find_on_hub(repository, offline=options.offline)
        layout = _inspect_on_hub(model, options)
        check_configurations(fetch(model, layout.configs), name, needs_image=options.needs_image)
        return fetch(model, layout.configs + layout.weights), layout
    except PriorNotFoundError as error:
        raise PriorNotFoundError(_not_found(name, str(error))) from error


def _inspect_on_hub(model: HubModel, options: _Options) -> Layout:
    try:
        return _inspect(model.files, model.repository, options)
    except PriorLayoutError as error:
        if model.cached_only:
            raise PriorLayoutError(
                f"{error}\nThis is what the hub's cache holds of it: connect once to complete the download"
            ) from error
        raise


def _embedded(name: str, source: Embedded | Hub) -> Path:
    assert isinstance(source, Embedded)
    try:
        folder = Path(str(importlib.resources.files("csd_nerf.data").joinpath(source.folder)))
    except ModuleNotFoundError as error:
        reason = "csd_nerf.data is not installed; in a checkout, run `pip install -e .`"
        raise PriorNotFoundError(_not_found(name, reason)) from error
    if not folder.is_dir():
        raise PriorNotFoundError(_not_found(name, f"the installation carries no {folder}; train it: csd prior train"))
    return folder


def _is_hub_id(name: str) -> bool:
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) is not None


def _not_found(name: str, tried: str) -> str:
    source = PRIORS.get(name)
    hint = source.hint if isinstance(source, Hub) else ""
    guesses = difflib.get_close_matches(name, PRIORS, n=1)
    names = ", ".join(f"{key} (embedded)" if isinstance(value, Embedded) else key for key, value in PRIORS.items())
    return (
        f"prior {name!r} cannot be loaded: {tried}."
        + (f"\nFor this one {hint}." if hint else "")
        + (f" Did you mean {guesses[0]!r}?" if guesses and guesses[0] != name else "")
        + "\nA prior is one of\n"
        f"  - a name: {names}; 'toy' needs no download\n"
        "  - a local folder in diffusers layout (with model_index.json), such as ./my-prior\n"
        "  - a Hugging Face hub id, such as timbrooks/instruct-pix2pix (needs the hub or its cache)"
    )


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device {str(device)!r} is unknown: give auto, cpu, cuda or cuda:N") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {str(device)!r}: torch sees no GPU here; give 'auto' or 'cpu'")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(f"device {str(device)!r}: torch sees {count} GPU(s) here, from cuda:0 on; give one of them")
    return chosen


def _dtype(dtype: str) -> torch.dtype | None:
    if dtype == "auto":
        return None
    if dtype not in _DTYPES:
        raise ValueError(f"dtype {dtype!r} is unknown: choose auto, {', '.join(_DTYPES)}")
    return _DTYPES[dtype]
