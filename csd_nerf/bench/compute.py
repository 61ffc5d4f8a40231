"""What a cell computes: from its settings and the files of the cells that it needs, its own files.

scene  data/ (nerfstudio's layout), scene/step-*.ckpt, before/00000.png ... (held-out views), result.json
truth  truths.npz (every true edit of the held-out views, and the source), result.json; of an ambiguous instruction
       views.npz too (the same of the training views)
edit   after/00000.png ... (held-out views), edited/00000.png ... (training views as they were last edited), result.json
"""

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.bench.agreement import view_agreement
from csd_nerf.bench.plan import check_machine
from csd_nerf.bench.results import RESULT, Files, Kind, computed, pack_truths, picture_files, read_pictures, read_truths
from csd_nerf.bench.scenes import Instruction, instruction
from csd_nerf.toyworld.cameras import Cameras
from csd_nerf.toyworld.nerf_scene import scene_cameras, write_nerfstudio
from csd_nerf.toyworld.render import Renderer, to_bytes
from csd_nerf.toyworld.scene import Scene

if TYPE_CHECKING:
    from csd_nerf.metrics import PinholeViews
    from csd_nerf.scenes import EditRun
    from csd_nerf.scenes.trainer_config import EditTrainerConfig


def compute(spec: Mapping[str, Any], where: Mapping[str, Any], inputs: tuple[Files, ...]) -> dict[str, bytes]:
    """Compute a cell; arguments as in `Cell`, with the files of its `needs` in their order."""
    if spec["kind"] != "truth":
        check_machine(spec, where)
    return computed(_KINDS, spec, where, inputs)


def _compute_scene(
    spec: Mapping[str, Any], where: Mapping[str, Any], inputs: tuple[Files, ...]
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Render the photos and train on them."""
    from csd_nerf.scenes import run_edit

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write_nerfstudio(
            data, scene_of(spec), count=spec["views"], test_count=spec["held_out"], size=spec["size"], seed=0
        )
        # The scene is kept as it is before its first edit. A run without any edit does not exist, so that it has the
        # smallest one: one view, one step.
        run = run_edit(
            data,
            "make it red",
            output_dir=Path(folder) / "runs",
            prior=where["prior"],
            scene_steps=spec["steps"],
            edit_steps=1,
            max_num_iterations=1,
            timestamp="scene",
            configure=lambda config: setattr(config.pipeline, "edit_batch_size", 1),
        )
        photos, renders = _held_out(run, run.scene_checkpoint)
        error = float((photos - renders).square().mean())
        files = {f"data/{path.relative_to(data).as_posix()}": path.read_bytes() for path in _files(data)}
        files |= {f"scene/{run.scene_checkpoint.name}": run.scene_checkpoint.read_bytes()}
        return files | picture_files("before", renders), {
            "PSNR to the photos": -10 * float(np.log10(error)),
            "nerf_seconds": round(run.nerf_seconds, 2),
        }


def _compute_truth(
    spec: Mapping[str, Any], where: Mapping[str, Any], inputs: tuple[Files, ...]
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Render everything that the instruction can mean."""
    scene = scene_of(spec)
    asked = instruction(spec["instruction"], scene)
    files = {"truths.npz": _render_truths(scene, asked, held_out_cameras(spec))}
    if asked.ambiguous:
        files["views.npz"] = _render_truths(scene, asked, training_cameras(spec))
    colours = [edit.colour for edit in asked.edits]
    return files, {"meanings": [edit.meaning for edit in asked.edits], "colours": colours}


def _render_truths(scene: Scene, asked: Instruction, cameras: Cameras) -> bytes:
    renderer = Renderer(cameras)
    truths = [to_bytes(renderer.edited(scene, edit)) for edit in asked.edits]
    return pack_truths(truths, to_bytes(renderer.render(scene)))


def _compute_edit(
    spec: Mapping[str, Any], where: Mapping[str, Any], inputs: tuple[Files, ...]
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Edit the trained scene with one method, and measure it."""
    from csd_nerf.bench.measure import measure

    base, truth = inputs
    before, truths, source = read_pictures(base, "before"), *read_truths(truth)
    edited: dict[int, bytes] = {}
    result: dict[str, Any] = {"network_samples": 0, "nerf_seconds": 0.0, "edit_seconds": 0.0, "rounds": 0}
    if spec["settings"] is None:
        renders = before
    else:
        with tempfile.TemporaryDirectory() as folder:
            run = _edit(Path(folder), spec, where, base)
            renders, edited = _held_out(run, run.checkpoint)[1], edited_views(run.edits)
            result = {
                "network_samples": run.network_samples,
                # A run counts the time of those that it goes on from.
                "nerf_seconds": round(run.nerf_seconds - json.loads(base[RESULT])["nerf_seconds"], 2),
                "edit_seconds": round(run.edit_seconds, 2),
                "rounds": run.rounds,
            }
    measured = measure(renders, before, source, truths, _geometry(spec) if spec["ambiguous"] else None)
    known = json.loads(truth[RESULT])
    result |= {
        "measures": measured.measures,
        "nearest": measured.nearest,
        "meaning": known["meanings"][measured.nearest],
    }
    files = picture_files("after", renders) | {f"edited/{view:05d}.png": picture for view, picture in edited.items()}
    if spec["ambiguous"] and edited:
        truths, source = read_truths(truth, "views.npz")
        views = sorted(edited)
        agreement = view_agreement(read_pictures(files, "edited"), source[views], truths[:, views], known["colours"])
        result["measures"] |= {"view agreement": agreement.share, "views edited": agreement.edited}
        result["choices"] = {views[at]: choice for at, choice in zip(agreement.shown, agreement.choices, strict=True)}
    return files, result


_KINDS: dict[str, Kind] = {"scene": _compute_scene, "truth": _compute_truth, "edit": _compute_edit}


def _edit(folder: Path, spec: Mapping[str, Any], where: Mapping[str, Any], base: Files) -> "EditRun":
    """The run of a method on the trained scene."""
    from csd_nerf.scenes import run_edit

    for name, content in base.items():
        if name.startswith(("data/", "scene/")):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def configure(config: "EditTrainerConfig") -> None:
        for name, value in spec["settings"].items():
            setattr(config.pipeline, name, value)

    return run_edit(
        folder / "data",
        spec["settings"]["prompt"],
        output_dir=folder / "runs",
        prior=where["prior"],
        seed=spec["seed"],
        max_num_iterations=spec["nerf_steps"],
        load_dir=folder / "scene",
        timestamp="edit",
        configure=configure,
    )


def edited_views(folder: Path) -> dict[int, bytes]:
    """From a run's folder of edits: the last picture of every view that was edited, by the number of its camera."""
    index = json.loads((folder / "edits.json").read_text())
    numbers = [int(Path(name).stem) for name in index["view_names"]]
    last = {int(view): path for entry in index["rounds"] for view, path in entry["views"].items()}
    return {numbers[view]: (folder / path).read_bytes() for view, path in sorted(last.items())}


def _held_out(run: "EditRun", checkpoint: Path) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n 3 h w"]]:
    """Photos and renders of the views that training never saw."""
    from csd_nerf.scenes import load_scene
    from csd_nerf.scenes.showcase import render_compared

    compared = render_compared(load_scene(run.config_path, checkpoint))
    return torch.stack(compared.photos), torch.stack(compared.renders)


def scene_of(spec: Mapping[str, Any]) -> Scene:
    """The scene of a cell."""
    return Scene(**{**spec["scene"], "proportions": tuple(spec["scene"]["proportions"])})


def held_out_cameras(spec: Mapping[str, Any]) -> Cameras:
    """The cameras of the views that no training sees."""
    return _cameras(spec, slice(spec["views"], None))


def training_cameras(spec: Mapping[str, Any]) -> Cameras:
    """The cameras of the views that are trained on and edited."""
    return _cameras(spec, slice(0, spec["views"]))


def _cameras(spec: Mapping[str, Any], chosen: slice) -> Cameras:
    cameras = scene_cameras(spec["views"], spec["held_out"], spec["size"], seed=0)
    return replace(
        cameras,
        camera_to_world=cameras.camera_to_world[chosen],
        azimuth=cameras.azimuth[chosen],
        elevation=cameras.elevation[chosen],
    )


def _geometry(spec: Mapping[str, Any]) -> Callable[[int], "PinholeViews"]:
    from csd_nerf.bench.measure import true_geometry

    scene = scene_of(spec)
    edits = instruction(spec["instruction"], scene).edits
    return lambda index: true_geometry(edits[index].scene(scene), held_out_cameras(spec))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
