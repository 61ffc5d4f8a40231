"""Checkpoint files: found, read, compared with the model, written whole."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from csd_nerf.scenes.errors import SceneError, writing_to
from csd_nerf.scenes.files import write_atomically

_STEP = re.compile(r"step-(\d+)\.ckpt")
_MODEL = "_model."
_TOLERATED = ("lpips.", "camera_optimizer.", "device_indicator_param")
"""Parts of a nerfacto checkpoint that may be missing or superfluous: a frozen metric, corrections of camera poses."""
_GRID = {"num_levels": "levels", "log2_hashmap_size": "log2 of entries a level", "max_res": "finest grid"}
"""Buffers that say how a hash grid reads its table: tables of one size can mean different grids."""


def find_checkpoint(load_dir: Path, load_step: int | None = None) -> Path:
    """The checkpoint of `load_step`, or the newest one, in a folder of checkpoints or in a run's folder.

    Raises `SceneError` if there is none.
    """
    if not load_dir.is_dir():
        raise SceneError(f"--load-dir {load_dir} is no folder: give the nerfstudio_models folder of a run.")
    folder = load_dir / "nerfstudio_models" if (load_dir / "nerfstudio_models").is_dir() else load_dir
    steps = {int(match[1]): path for path in folder.iterdir() if (match := _STEP.fullmatch(path.name))}
    if not steps:
        raise SceneError(
            f"--load-dir {load_dir} holds no checkpoint (step-*.ckpt): give the nerfstudio_models folder of a run."
        )
    if load_step is not None and load_step not in steps:
        raise SceneError(f"--load-step {load_step} is not in {folder}: choose one of {sorted(steps)}.")
    return steps[max(steps) if load_step is None else load_step]


def keep_scene(checkpoint: Path, folder: Path) -> Path:
    """Have the checkpoint of the scene before its first edit in a run's own `folder`, as a link where the disk can.

    The run it comes from may delete it, or be deleted. Returns its place in `folder`.
    """
    kept = folder / checkpoint.name
    if kept.exists():
        return kept
    with writing_to(kept):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            kept.hardlink_to(checkpoint)
        except OSError:  # another disk, or one without links
            with checkpoint.open("rb") as source:
                write_atomically(kept, lambda file: shutil.copyfileobj(source, file), scratch=folder.parent)
    return kept


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a nerfstudio checkpoint, allowing tensors and plain values only."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - zip, pickle and torch each have their own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SceneError(
            f"checkpoint {path} cannot be read ({reason}): choose another one with --load-step."
        ) from error
    if not isinstance(state, dict) or not {"step", "pipeline"} <= state.keys():
        raise SceneError(f"{path} is no nerfstudio checkpoint: give --load-dir the nerfstudio_models folder of a run.")
    return state


def write_checkpoint(path: Path, content: Mapping[str, Any], scratch: Path) -> None:
    """Write a checkpoint that is whole or absent.

    The temporary file lies in `scratch`: nerfstudio reads a step out of every name in the folder of checkpoints.
    """

    def write(file: Any) -> None:
        try:
            torch.save(dict(content), file)
        except RuntimeError as error:  # torch's zip writer hides the OSError of the file below it
            cause = error.__context__ or error.__cause__
            raise (cause if isinstance(cause, OSError) else error) from error

    write_atomically(path, write, scratch=scratch)


def fitting_weights(model: nn.Module, pipeline_state: Mapping[str, Any], method: str, path: Path) -> dict[str, Any]:
    """The checkpoint's pipeline state with exactly the weights that `model` has.

    Camera corrections and metrics may be missing or superfluous; everything else must fit in name, shape and, for the
    field's grid, resolution. Raises one `SceneError` that says what does not.
    """
    weights = {key[len(_MODEL) :]: value for key, value in pipeline_state.items() if key.startswith(_MODEL)}
    own = model.state_dict()
    found = {key: value for key, value in weights.items() if not key.startswith(_TOLERATED)}
    wanted = {key: value for key, value in own.items() if not key.startswith(_TOLERATED)}
    problem = _difference(wanted, found)
    if problem:
        trained = method_of_run(path)
        raise SceneError(
            f"--load-dir: checkpoint {path} ({trained or 'unknown method'}) does not fit {method}: {problem}. "
            "Give a nerfacto checkpoint to csd-edit and one of csd-edit-lite to csd-edit-lite, or set "
            "--pipeline.model.* as in training."
        )
    fitting = {key: value for key, value in pipeline_state.items() if not key.startswith(_MODEL)}
    for key, value in own.items():  # what the checkpoint does not have keeps its first value
        given = weights.get(key)
        same = torch.is_tensor(given) and given.shape == value.shape
        fitting[_MODEL + key] = given if same else value.detach().clone()
    return fitting


def lost_camera_corrections(model: nn.Module, pipeline_state: Mapping[str, Any]) -> str | None:
    """Why `fitting_weights` leaves a checkpoint's corrections of camera poses out; None if nothing is lost."""
    name = "camera_optimizer.pose_adjustment"
    given, own = pipeline_state.get(_MODEL + name), model.state_dict().get(name)
    if not torch.is_tensor(given) or not given.any():
        return None
    if own is None:
        return "the cameras stay as in --data (--pipeline.model.camera-optimizer.mode off)"
    if given.shape != own.shape:
        return f"they are of {len(given)} views, the data has {len(own)}"
    return None


def method_of_run(checkpoint: Path) -> str | None:
    """Name of the method that made a checkpoint, from the run's config.yml."""
    config = checkpoint.parent.parent / "config.yml"
    if not config.is_file():
        return None
    match = re.search(r"^method_name: (\S+)$", config.read_text(errors="replace"), re.MULTILINE)
    return match[1] if match else None


def _difference(wanted: Mapping[str, Tensor], found: Mapping[str, Any]) -> str | None:
    """What keeps a checkpoint's weights from fitting, in words."""
    shared = wanted.keys() & found.keys()
    if len(shared) < len(wanted) / 2:
        tcnn = any("tcnn_encoding" in key for key in wanted.keys() ^ found.keys())
        if tcnn:
            return "one was made with tinycudann, the other without (--pipeline.model.implementation)"
        return "it is of another method"
    sizes = [
        f"{part} {_GRID[name]} {int(found[key])}, here {int(wanted[key])}"
        for key in sorted(shared)
        if (part := key.rpartition(".")[0]) and (name := key.rpartition(".")[2]) in _GRID
        if int(found[key]) != int(wanted[key])
    ]
    if sizes:
        return "its field is of another size (" + "; ".join(sizes) + ")"
    embedding = "field.embedding_appearance.embedding.weight"
    if embedding in shared and found[embedding].shape != wanted[embedding].shape:
        return (
            f"it was trained on {len(found[embedding])} views, the data has {len(wanted[embedding])} "
            "(same --data and same split?)"
        )
    shapes = [key for key in shared if found[key].shape != wanted[key].shape]
    names = sorted(wanted.keys() ^ found.keys())
    if shapes or names:
        return (
            f"{len(shapes)} weights of another size, {len(names)} missing or superfluous, such as {(shapes + names)[0]}"
        )
    return None
