"""Diffusers' folder layout: which files a prior consists of.

    model_index.json
    unet/config.json          unet/diffusion_pytorch_model.safetensors
    vae/config.json           vae/diffusion_pytorch_model.safetensors
    text_encoder/config.json  text_encoder/model.safetensors
    tokenizer/                vocab.json and merges.txt, or tokenizer.json
    scheduler/scheduler_config.json

A model of pixels (DeepFloyd IF) has no `vae/`, and its tokenizer is tokenizer.json or sentencepiece's spiece.model.

Large weights may be split (`...-00001-of-00002.safetensors` with an index). Everything is decided from file names and
small JSON files, so a wrong model is refused before gigabytes of weights are fetched or read. Without its scheduler's
file a model is refused, too: a guessed schedule or prediction type gives wrong pictures, not an error.
"""

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csd_nerf.priors.errors import PriorLayoutError

INDEX = "model_index.json"
SCHEDULER = "scheduler/scheduler_config.json"
_STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
_PICKLED_STEMS = {**_STEMS, "text_encoder": "pytorch_model"}


@dataclass(frozen=True)
class Weights:
    """The files that hold one network's weights."""

    files: tuple[str, ...]
    """Relative to the prior's folder; more than one if they are split."""
    variant: str | None
    """As in `model.fp16.safetensors`; None for the plain name."""
    pickled: bool
    """Whether they are pickles (.bin) instead of safetensors."""


@dataclass(frozen=True)
class Layout:
    """The files of a prior, relative to its folder."""

    configs: tuple[str, ...]
    """JSON files and the tokenizer."""
    unet: Weights
    vae: Weights | None
    """None for a model of pixels."""
    text_encoder: Weights

    @property
    def weights(self) -> tuple[str, ...]:
        """All weight files."""
        return self.unet.files + (self.vae.files if self.vae else ()) + self.text_encoder.files


def files_below(folder: Path) -> frozenset[str]:
    """Names of the files that can belong to a prior, relative to `folder`, with forward slashes."""
    parts = (*_STEMS, "tokenizer", "scheduler")
    names = [INDEX, *(f"{part}/{file.name}" for part in parts for file in _in(folder / part))]
    return frozenset(name for name in names if (folder / name).is_file())


def _in(folder: Path) -> Iterator[Path]:
    return folder.iterdir() if folder.is_dir() else iter(())


def inspect_layout(files: Collection[str], where: str, *, variant: str | None, allow_pickles: bool) -> Layout:
    """Find a prior's parts among file names.

    `where` is what the user called it, for the message of the `PriorLayoutError` that names every missing file.
    """
    pixels = is_of_pixels(files)
    parts = [part for part in _STEMS if not (pixels and part == "vae")]
    required = (INDEX, *(f"{part}/config.json" for part in parts), SCHEDULER)
    problems = [f"{name} is missing" for name in required if name not in files]
    problems += _missing_tokenizer(files, pixels)
    found: dict[str, Weights] = {}
    for part in parts:
        weights = _find_weights(files, part, variant, allow_pickles)
        if weights is None:
            problems.append(_missing_weights(files, part, allow_pickles))
        else:
            found[part] = weights
    if problems:
        raise PriorLayoutError(
            f"{where} is not a {'pixel' if pixels else 'latent'} diffusion model in diffusers layout:\n"
            + "\n".join(f"  - {problem}" for problem in problems)
        )
    configs = [name for name in files if name.startswith(("tokenizer/", "scheduler/"))]
    configs += [name for name in files if re.fullmatch(r".*\.safetensors\.index(\.[\w-]+)?\.json", name)]
    return Layout(tuple(sorted({*required, *configs})), found["unet"], found.get("vae"), found["text_encoder"])


def is_of_pixels(files: Collection[str]) -> bool:
    """Whether a model works on pixels: two networks are there, but no part of an autoencoder or of CLIP's tokenizer."""
    parts = {name.partition("/")[0] for name in files}
    return {"unet", "text_encoder"} <= parts and "vae" not in parts and "tokenizer/vocab.json" not in files


def _missing_tokenizer(files: Collection[str], pixels: bool) -> list[str]:
    if "tokenizer/tokenizer.json" in files:
        return []
    if pixels:
        found = "tokenizer/spiece.model" in files
        return [] if found else ["tokenizer/tokenizer.json (or tokenizer/spiece.model) is missing"]
    found = {"tokenizer/vocab.json", "tokenizer/merges.txt"} <= set(files)
    return [] if found else ["tokenizer/vocab.json and tokenizer/merges.txt (or tokenizer/tokenizer.json) are missing"]


def _find_weights(files: Collection[str], part: str, variant: str | None, allow_pickles: bool) -> Weights | None:
    stem = f"{part}/{_STEMS[part]}"
    for candidate in dict.fromkeys((variant, None)):
        suffix = "" if candidate is None else f".{candidate}"
        if (name := f"{stem}{suffix}.safetensors") in files:
            return Weights((name,), candidate, pickled=False)
        shard = re.compile(rf"{re.escape(stem + suffix)}-\d+-of-(\d+)\.safetensors")
        shards = {name: int(match[1]) for name in files if (match := shard.fullmatch(name))}
        if f"{stem}.safetensors.index{suffix}.json" in files and shards and len(shards) == max(shards.values()):
            return Weights(tuple(sorted(shards)), candidate, pickled=False)
    pickle = f"{part}/{_PICKLED_STEMS[part]}.bin"
    if allow_pickles and pickle in files:
        return Weights((pickle,), None, pickled=True)
    return None


def _missing_weights(files: Collection[str], part: str, allow_pickles: bool) -> str:
    stem = f"{part}/{_STEMS[part]}"
    name = f"{stem}.safetensors"
    pickle = f"{part}/{_PICKLED_STEMS[part]}.bin"
    if pickle in files and not allow_pickles:
        return (
            f"{name} is missing and {pickle} is a pickle, a format that can run code when it is read: "
            "allow it explicitly (allow_pickles=True) if you trust where it came from"
        )
    pattern = re.compile(rf"{re.escape(stem)}\.([\w-]+?)(-\d+-of-\d+)?\.safetensors")
    variants = sorted({match[1] for match in map(pattern.fullmatch, files) if match})
    there = ", ".join(f"{_STEMS[part]}.{variant}.safetensors" for variant in variants)
    return f"{name} is missing" + (f" (there is {there}: load with variant={variants[0]!r})" if variants else "")


def read_json(path: Path) -> dict[str, Any]:
    """Read one of the layout's JSON files. Raises `PriorLayoutError` naming the file if it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise PriorLayoutError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise PriorLayoutError(f"{path} should hold a JSON object")
    return content
