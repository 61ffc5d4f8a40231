"""What is compared on panoramas and on videos: editors of csd_nerf.images, and how each spends its budget.

All get the same number of UNet samples for each patch or frame, as nearly as their steps allow, and the run counts what
it used. A panorama is counted in the patches that lie side by side on it: editors whose patches overlap evaluate more
of them and so make fewer steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from csd_nerf.bench.methods import REFERENCE, SHARED, UNEDITED, Method, Pace
from csd_nerf.images.running import TOY
from csd_nerf.toyworld.panorama import PICTURE

FRAMES_PER_SECOND = 12.0
TEMPORAL = 0.25
"""Scale of the temporal kernel in seconds: three frames."""


@dataclass(frozen=True)
class PictureBudget:
    """What each method may spend on one edit."""

    samples_per_part: int
    """UNet samples for each patch (of those side by side) or frame."""
    parts: int
    """Objects of a panorama, each on a patch of its own, or frames of a video."""
    batch: int
    """Patches or frames in an optimisation step."""

    @property
    def samples(self) -> int:
        """UNet samples in all."""
        return self.samples_per_part * self.parts


@dataclass(frozen=True)
class PictureProtocol:
    """Sizes and budgets that all cells of a benchmark share."""

    budget: PictureBudget
    size: int = PICTURE
    """Pixels: the height of a panorama, which is `budget.parts` times as wide, or the side of a frame."""


PANORAMA_FULL = PictureProtocol(PictureBudget(600, parts=5, batch=4))
PANORAMA_QUICK = PictureProtocol(PictureBudget(300, parts=5, batch=4))
VIDEO_FULL = PictureProtocol(PictureBudget(240, parts=24, batch=8))
VIDEO_QUICK = PictureProtocol(PictureBudget(120, parts=24, batch=8))


def optimised(method: Method, budget: PictureBudget) -> dict[str, Any]:
    """Steps of one batch, in ten of which the learning rate falls."""
    batch = min(budget.batch, budget.parts)
    steps = max(1, round(budget.samples / (batch * method.samples_per_step)))
    return {**TOY, "batch_size": batch, "steps": steps, "lr_decay_every": max(1, steps // 10)}


def sampled(method: Method, budget: PictureBudget) -> dict[str, Any]:
    """DDIM steps of every part by itself."""
    return _sampling(budget.samples_per_part / method.samples_per_step)


def sampled_together(method: Method, budget: PictureBudget) -> dict[str, Any]:
    """DDIM steps of all patches a quarter of a patch apart (CSD C.1)."""
    patches = 4 * (budget.parts - 1) + 1
    return _sampling(budget.samples / (patches * method.samples_per_step))


def _sampling(steps: float) -> dict[str, Any]:
    return {"guidance_scale": TOY["guidance_scale"], "steps": max(1, round(steps))}


def _of_editor(
    name: str, about: str, samples: int, what: str, pace: Pace = optimised, canvas: bool = False, **settings: Any
) -> list[Method]:
    """An editor whose parts have noise of their own, and with other noise: what that does is not the kernel's."""
    own = Method(name, about, samples, {"editor": name, **settings, "noise": "independent"}, pace)
    shared = {**own.settings, "noise": "shared"}
    made = [own, replace(own, name=name + SHARED, about=f"{name}, with one noise for every {what}", settings=shared)]
    if canvas:
        words = f"{name}, where each {what} sees its part of the noise of a canvas"
        made.append(replace(own, name=f"{name}-canvas", about=words, settings={**own.settings, "noise": "canvas"}))
    return made


def _table(*methods: Method) -> dict[str, Method]:
    return {method.name: method for method in methods}


_CSD = "RBF kernel, source score subtracted (CSD Section 3.2)"
_NO_SVGD = "csd-edit without the kernel: no {} listens to another (CSD Figure 6)"
_RANDOM = "csd-edit, injected noise subtracted in place of the source score (CSD Figure 6)"
PANORAMA: Mapping[str, Method] = _table(
    Method(UNEDITED, "the picture as the prior's autoencoder shows it, which every method starts from", 0),
    *_of_editor(REFERENCE, _CSD, 5, "patch", canvas=True),
    *_of_editor("no-svgd", _NO_SVGD.format("patch"), 5, "patch", canvas=True),
    *_of_editor("random-noise", _RANDOM, 3, "patch"),
    Method(
        "ip2p-patches",
        "patches side by side, each sampled by itself (Brooks et al. 2023; CSD Section 4.1)",
        3,
        {"editor": "ip2p-patches"},
        sampled,
    ),
    Method(
        "multidiffusion",
        "overlapping patches sampled together, averaged after each step (Bar-Tal et al. 2023; CSD Section 4.1)",
        3,
        {"editor": "multidiffusion"},
        sampled_together,
    ),
)
"""By name, in the order of the report. A bare name means noise of its own for each patch."""
PANORAMA_QUICK_METHODS = (
    UNEDITED,
    REFERENCE,
    f"{REFERENCE}{SHARED}",
    "no-svgd",
    "random-noise",
    "ip2p-patches",
    "multidiffusion",
)
_IN_TIME = "csd-edit-temporal"
VIDEO: Mapping[str, Method] = _table(
    Method(UNEDITED, "the frames as the prior's autoencoder shows them, which every method starts from", 0),
    *_of_editor(REFERENCE, _CSD, 5, "frame"),
    *_of_editor(
        _IN_TIME,
        f"csd-edit, where frames listen less the further apart in time they are, to {TEMPORAL:g} s with exp(-1/2)",
        5,
        "frame",
        editor=REFERENCE,
        temporal=TEMPORAL,
    ),
    *_of_editor("no-svgd", _NO_SVGD.format("frame"), 5, "frame"),
    *_of_editor("random-noise", _RANDOM, 3, "frame"),
    *_of_editor("ip2p", "each frame sampled by itself (Brooks et al. 2023)", 3, "frame", sampled),
)
"""By name, in the order of the report. A bare name means noise of its own for each frame."""
VIDEO_QUICK_METHODS = (
    UNEDITED,
    REFERENCE,
    f"{REFERENCE}{SHARED}",
    _IN_TIME,
    "no-svgd",
    "random-noise",
    "ip2p",
    f"ip2p{SHARED}",
)
