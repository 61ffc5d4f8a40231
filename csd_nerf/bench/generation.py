"""`csd bench generate`: objects from toy captions, made by several methods with the same seeds, and judged.

Measures of an object, all over the same views around it, 20 degrees above the horizon:

- R-precision: share of views whose nearest neighbour among toy-world renders of every object in every colour is the
  object in the colour that the caption names (`csd_nerf.toyworld.judging.pictures`).
- object: the same for the object alone, whatever its colour.
- warp error: mean colour difference of the same surface point in neighbouring views, through the object's depth.
- saturation, sharpness, coverage: see `csd_nerf.scenes.generation.view_scores`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from csd_nerf.bench.plan import Cell, Precision, configuration_hash, precision_of, weights_hash
from csd_nerf.bench.results import Files, Kind, computed, picture_files

VIEWS, SIZE, ELEVATION = 8, 64, 20.0
CAPTIONS = (
    "a red mushroom",
    "a blue snowman",
    "a green tree",
    "a yellow duck",
    "a pink house",
    "an orange teapot",
    "a purple robot",
    "a red car",
    "a white cat",
    "an orange bear",
    "a yellow mushroom",
    "a purple snowman",
)
"""An article, a colour and an object of the toy world."""
_VERSION = 1
_JUDGE_CAMERAS = 8
_REFINED = 5
"""Latent methods refine in colour for one in so many steps."""


@dataclass(frozen=True)
class GenerationMethod:
    """How objects are made."""

    run: str
    """The nerfstudio method."""
    options: Mapping[str, Any]
    """What of the pipeline's flags it changes."""
    steps: tuple[int, int] = (1000, 300)
    """Steps of the training: in full, and with --quick."""
    revision: str = ""
    """What of its mathematics has changed: results of before are none of this."""


def _latent(matching: bool, kl: bool) -> GenerationMethod:
    options: dict[str, Any] = {}
    if not matching:
        options["feature_matching_weight"] = 0.0
    if not kl:
        options["kl_weight"] = 0.0
    return GenerationMethod("latent-fm-lite", options, revision="KL of each view" if kl else "")


METHODS: dict[str, GenerationMethod] = {
    "csd": GenerationMethod("csd-dreamfusion-lite", {}),
    "sds": GenerationMethod("csd-dreamfusion-lite", {"kernel": "independent"}),
    "lsd": _latent(False, False),
    "lsd+kl": _latent(False, True),
    "lsd+fm": _latent(True, False),
    "lsd+fm+kl": _latent(True, True),
}
COMPARED = (("csd", "sds"), ("lsd+kl", "lsd"), ("lsd+fm", "lsd"), ("lsd+fm+kl", "lsd"))
"""Which methods' differences are told, paired within captions."""
MEASURES = {
    "R-precision": "higher",
    "object": "higher",
    "warp error": "lower",
    "saturation": "",
    "sharpness": "",
    "coverage": "",
}


def named(caption: str) -> tuple[str, str]:
    """Object and colour of a caption. Raises `ValueError` for other captions."""
    from csd_nerf.toyworld.scene import COLOURS, OBJECT_NAMES

    words = caption.lower().split()
    if len(words) == 3 and words[0] in ("a", "an") and words[1] in COLOURS and words[2] in OBJECT_NAMES:
        return words[2], words[1]
    raise ValueError(
        f'--instructions "{caption}": give captions such as "a red mushroom", of the colours {", ".join(COLOURS)} and '
        f"the objects {', '.join(OBJECT_NAMES)}"
    )


def make_cells(
    captions: Sequence[str],
    methods: Sequence[str],
    seeds: Sequence[int],
    *,
    quick: bool,
    prior: str,
    precision: Precision,
) -> list[Cell]:
    """One cell for each caption, method and seed; whole captions one after the other. Raises `ValueError`."""
    for caption in captions:
        named(caption)
    unknown = [method for method in methods if method not in METHODS]
    if unknown:
        raise ValueError(f"--methods {unknown[0]} is unknown: choose from {', '.join(METHODS)}")
    used = precision_of(precision)
    return [
        _cell(caption, method, seed, METHODS[method].steps[quick], prior, used)
        for caption in captions
        for seed in seeds
        for method in methods
    ]


def _cell(caption: str, method: str, seed: int, steps: int, prior: str, precision: str) -> Cell:
    known = METHODS[method]
    spec: dict[str, Any] = {
        "kind": "edit",
        "version": _VERSION,
        "caption": caption,
        "method": method,
        "run": known.run,
        "options": dict(known.options),
        "seed": seed,
        "steps": steps,
        "configuration": _configuration(known.run),
        "prior": weights_hash(prior),
        "precision": precision,
    }
    if known.revision:
        spec["revision"] = known.revision
    return Cell(spec, where={"prior": prior}, label=f"{caption}, {method}, seed {seed}", name=caption)


@lru_cache
def _configuration(run: str) -> str:
    """Hash of a nerfstudio method's defaults."""
    from csd_nerf.scenes.generation.config import dreamfusion_lite_config
    from csd_nerf.scenes.generation.latent_config import latent_lite_config

    made = {"csd-dreamfusion-lite": dreamfusion_lite_config, "latent-fm-lite": latent_lite_config}[run]()
    return configuration_hash(made.pipeline, made.optimizers)


def compute_object(spec: Mapping[str, Any], where: Mapping[str, Any], inputs: tuple[Files, ...]) -> dict[str, bytes]:
    """Files of a cell, in any process."""
    kinds: dict[str, Kind] = {"edit": _make}
    return computed(kinds, spec, where, inputs)


def _make(
    spec: Mapping[str, Any], where: Mapping[str, Any], inputs: tuple[Files, ...]
) -> tuple[dict[str, bytes], dict[str, Any]]:
    import tempfile
    from pathlib import Path

    from csd_nerf.scenes.generation.cameras import turntable
    from csd_nerf.scenes.generation.run import run_generation

    def configure(config: Any) -> None:
        config.steps_per_save = spec["steps"]
        config.pipeline.prior_dtype = spec["precision"]
        if hasattr(config.pipeline, "refine_steps"):
            config.pipeline.refine_steps = spec["steps"] // _REFINED
        for name, value in spec["options"].items():
            setattr(config.pipeline, name, value)

    with tempfile.TemporaryDirectory(prefix="csd_nerf-bench-") as folder:
        run = run_generation(
            spec["caption"],
            method=spec["run"],
            output_dir=Path(folder),
            prior=where["prior"],
            seed=spec["seed"],
            max_num_iterations=spec["steps"],
            configure=configure,
        )
        views = turntable(run.pipeline.datamanager.config.ranges(), VIEWS, SIZE, ELEVATION)
        seen = run.pipeline.render(views)
    pictures = torch.stack([one["rgb"].permute(2, 0, 1).clamp(0, 1) for one in seen])
    depths = torch.stack([one["depth"][..., 0] for one in seen])
    opacity = torch.stack([one["accumulation"][..., 0] for one in seen])
    measures = measure(spec["caption"], pictures, depths, opacity, views)
    near = ((sum(run.pipeline.datamanager.config.radius) / 2 + 1 - depths) / 2).clamp(0, 1)
    files = picture_files("after", pictures) | picture_files("depth", near[:, None].expand(-1, 3, -1, -1))
    return files, {"measures": measures, "network_samples": run.network_samples, "train_seconds": run.seconds}


def measure(caption: str, pictures: Any, depths: Any, opacity: Any, views: Any) -> dict[str, float]:
    """All measures of an object's views (n 3 h w; n h w; n h w; `OrbitViews`)."""
    from csd_nerf.metrics.warp import PinholeViews, warp_error_3d
    from csd_nerf.scenes.generation.view_scores import view_scores
    from csd_nerf.toyworld.cameras import orbit_cameras
    from csd_nerf.toyworld.judging.pictures import CaptionScene, PictureJudge
    from csd_nerf.toyworld.scene import HELD_OUT_SEEDS, Scene

    wanted, colour = named(caption)
    scene = Scene(HELD_OUT_SEEDS, wanted, (0.0, 0.0, 0.0, 0.0), colour, "studio")
    asked = [CaptionScene(scene, orbit_cameras([float(angle)], [ELEVATION])) for angle in views.azimuth]
    verdicts = PictureJudge(_JUDGE_CAMERAS)(pictures, asked)
    scores = [view_scores(picture, solid) for picture, solid in zip(pictures, opacity, strict=True)]
    found = {name: sum(score[name] for score in scores) / len(scores) for name in scores[0]}
    cameras = views.cameras
    intrinsics = torch.cat([cameras.fx, cameras.fy, cameras.cx, cameras.cy], dim=1)
    solid = opacity > 0.5
    try:
        pinholes = PinholeViews(cameras.camera_to_worlds, intrinsics, depths)
        found["warp error"] = warp_error_3d(pictures, pinholes, mask=solid).mean
    except ValueError:
        pass  # nothing solid is seen from two sides: there is no such measure
    found["R-precision"] = sum(verdict.right(scene) for verdict in verdicts) / len(verdicts)
    found["object"] = sum(verdict.object == wanted for verdict in verdicts) / len(verdicts)
    return found
