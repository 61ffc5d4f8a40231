"""What a cell of the benchmarks of panoramas and videos computes; all pictures of one are its frames, or it alone.

scene  source/00000.png ..., before/00000.png ... (as the prior's autoencoder shows them), result.json
truth  truths.npz (every true edit, and the source), result.json
edit   after/00000.png ..., result.json
"""

import json
from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from csd_nerf.bench.agreement import view_agreement
from csd_nerf.bench.picture_edits import Edited, edit, prior_of, unedited
from csd_nerf.bench.picture_measure import measure_panorama, measure_video, object_agreement
from csd_nerf.bench.results import (
    RESULT,
    Files,
    Kind,
    computed,
    pack_truths,
    picture_files,
    read_pictures,
    read_truths,
)
from csd_nerf.bench.scenes import Instruction, instruction
from csd_nerf.metrics import psnr
from csd_nerf.toyworld.cameras import Cameras, arc_cameras
from csd_nerf.toyworld.edits import Edit
from csd_nerf.toyworld.panorama import Panorama, PanoramaRenderer
from csd_nerf.toyworld.render import Renderer, to_bytes
from csd_nerf.toyworld.scene import Scene


def compute_pictures(spec: Mapping[str, Any], where: Mapping[str, Any], inputs: tuple[Files, ...]) -> dict[str, bytes]:
    """Compute a cell, as `compute` does those of scenes."""
    return computed(_KINDS, spec, where, inputs)


def _compute_scene(
    spec: Mapping[str, Any], where: Mapping[str, Any], inputs: tuple[Files, ...]
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Render what is edited, and send it through the autoencoder."""
    source = to_bytes(_Renders(spec).source).permute(0, 3, 1, 2).float() / 255
    before = unedited(spec["benchmark"], prior_of(where["prior"], spec["prior_dtype"]), source)
    files = picture_files("source", source) | picture_files("before", before)
    return files, {"PSNR of the autoencoder": psnr(before, source).mean}


def _compute_truth(
    spec: Mapping[str, Any], where: Mapping[str, Any], inputs: tuple[Files, ...]
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Render everything that the instruction can mean."""
    asked, renders = _asked(spec), _Renders(spec)
    truths = [to_bytes(renders.edited(one)) for one in asked.edits]
    known = {"meanings": [one.meaning for one in asked.edits], "colours": [one.colour for one in asked.edits]}
    return {"truths.npz": pack_truths(truths, to_bytes(renders.source))}, known


def _compute_edit(
    spec: Mapping[str, Any], where: Mapping[str, Any], inputs: tuple[Files, ...]
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Edit with one method, and measure it."""
    base, truth = inputs
    before, (truths, source), asked = read_pictures(base, "before"), read_truths(truth), _asked(spec)
    known, panorama = json.loads(truth[RESULT]), spec["benchmark"] == "panorama"
    done = Edited(before, 0, 0.0, 0)
    if spec["settings"] is not None:
        prior = prior_of(where["prior"], spec["prior_dtype"])
        done = edit(spec["benchmark"], prior, source, asked.text, spec["settings"], spec["seed"])
    files = picture_files("after", done.pictures)
    shown = read_pictures(files, "after")
    if panorama:
        measured = measure_panorama(shown, before, source, truths)
    else:
        measured = measure_video(shown, before, source, truths, scenes_of(spec)[0], asked, video_cameras(spec))
    result: dict[str, Any] = {
        "network_samples": done.network_samples,
        "edit_seconds": round(done.seconds, 2),
        "steps": done.steps,
        "measures": dict(measured.measures),
        "nearest": measured.nearest,
        "meaning": known["meanings"][measured.nearest],
    }
    if asked.ambiguous:
        agree = object_agreement if panorama else view_agreement
        agreement, noun = agree(shown, source, truths, known["colours"]), "object" if panorama else "frame"
        result["measures"] |= {f"{noun} agreement": agreement.share, f"{noun}s edited": agreement.edited}
        result["choices"] = agreement.choices
    return files, result


_KINDS: dict[str, Kind] = {"scene": _compute_scene, "truth": _compute_truth, "edit": _compute_edit}


def scenes_of(spec: Mapping[str, Any]) -> tuple[Scene, ...]:
    """The scenes of a cell: those of a panorama, or the one of a video."""
    return tuple(Scene(**{**one, "proportions": tuple(one["proportions"])}) for one in spec["scene"]["scenes"])


def video_cameras(spec: Mapping[str, Any]) -> Cameras:
    """The path of a video."""
    return arc_cameras(spec["views"], spec["scene"]["seed"], spec["size"])


def _asked(spec: Mapping[str, Any]) -> Instruction:
    first, *others = scenes_of(spec)
    return instruction(spec["instruction"], first, others)


class _Renders:
    """Pictures of what a cell edits, before and after."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self._scenes = scenes_of(spec)
        panorama = spec["benchmark"] == "panorama"
        self._panorama = PanoramaRenderer(spec["size"]) if panorama else None
        self._video = None if panorama else Renderer(video_cameras(spec))

    @property
    def source(self) -> Float[Tensor, "n 3 h w"]:
        """Before the edit."""
        if self._panorama is not None:
            return self._panorama.render(Panorama(self._scenes))[None]
        assert self._video is not None
        return self._video.render(self._scenes[0])

    def edited(self, change: Edit) -> Float[Tensor, "n 3 h w"]:
        """After it."""
        if self._panorama is not None:
            return self._panorama.edited(Panorama(self._scenes), change)[None]
        assert self._video is not None
        return self._video.edited(self._scenes[0], change)
