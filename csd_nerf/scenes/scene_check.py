"""What can be known to fail before anything is loaded: the data folder, the output folder."""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from PIL import Image

from csd_nerf.scenes.errors import SceneError, writing_to
from csd_nerf.scenes.scene_dataset import check_mode, readable
from csd_nerf.scenes.terminal import say


def check_data(data: Path | None, dataparser: DataParserConfig) -> None:
    """Raise `SceneError` for a scene that is missing, empty or incomplete.

    A scene of a single view cannot be centred and scaled by its cameras; the data parser is then told to leave it as it
    is.
    """
    folder = Path(data or dataparser.data)
    if data is None and folder == Path():
        raise SceneError("no data is given: add --data FOLDER, a folder with transforms.json (see ns-process-data).")
    if not folder.exists():
        raise SceneError(f"--data {folder} does not exist: give a folder with transforms.json (see ns-process-data).")
    if folder.is_dir() and not any(folder.iterdir()):
        raise SceneError(f"--data {folder} is empty: give a folder with transforms.json (see ns-process-data).")
    if isinstance(dataparser, NerfstudioDataParserConfig):
        frames = _frames(folder)
        if len(frames) == 1 and dataparser.auto_scale_poses:
            say("The scene has a single view: its camera is used as it is, neither centred nor scaled.")
            dataparser.auto_scale_poses, dataparser.center_method, dataparser.orientation_method = False, "none", "none"


def check_device(flag: str, device: str | None) -> None:
    """Raise `SceneError` for a device that torch does not see here; None and 'auto' are left to others."""
    if device is None or device == "auto":
        return
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise SceneError(f"{flag} {device} is no device: give auto, cpu, cuda or cuda:N.") from error
    count = torch.cuda.device_count()
    if chosen.type == "cuda" and (chosen.index or 0) >= count:
        there = f"{count} GPU(s), cuda:0 to cuda:{count - 1}" if count else "no GPU"
        raise SceneError(f"{flag} {device}: torch sees {there} here; give one of them, cpu or auto.")


def check_writable(folder: Path) -> None:
    """Raise `SceneError` if no file can be made in `folder`, which is made if need be."""
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def _frames(data: Path) -> list[dict[str, Any]]:
    """Frames of a transforms.json whose pictures all exist and are pictures."""
    path = data if data.suffix == ".json" else data / "transforms.json"
    if not path.is_file():
        raise SceneError(
            f"--data {data} has no transforms.json: make one with ns-process-data, or name the format after the flags "
            "(such as `blender-data`)."
        )
    try:
        frames = json.loads(path.read_text(encoding="utf-8"))["frames"]
        files = [path.parent / frame["file_path"] for frame in frames]
    except (ValueError, KeyError, TypeError) as error:
        raise SceneError(f"{path} is no nerfstudio scene ({type(error).__name__}: {error}): make it anew.") from error
    if not frames:
        raise SceneError(f"{path} lists no frames: make it anew with ns-process-data.")
    for file in files:
        if file.is_file() or not any(path.parent.glob(f"images_*/{file.name}")):
            with readable(file), Image.open(file) as image:  # reads the header only
                check_mode(file, image)
    return frames
