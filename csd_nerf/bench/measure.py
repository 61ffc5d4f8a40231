"""Measures of one edit, on views that no training saw.

Three sets of pixels, from the true edit that comes nearest to the result (for a deterministic instruction there is only
one): the *edited part* (the true edit changes them by more than `EDITED`), the *unedited region* (by less than
`UNCHANGED`), and faint shadows in between, which belong to neither. Changes are mean absolute differences over the
channels of sRGB values in [0, 1].
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from csd_nerf.metrics import (
    PerceptualDistance,
    PinholeViews,
    change_outside,
    colour_spread,
    load_perceptual_distance,
    nearest_views,
    psnr,
    ssim,
    warp_error_3d,
)
from csd_nerf.metrics.perceptual import SMALLEST_FOR_LPIPS
from csd_nerf.metrics.pixel_scores import SMALLEST_FOR_SSIM
from csd_nerf.toyworld.cameras import Cameras
from csd_nerf.toyworld.scene import Scene
from csd_nerf.toyworld.trace import trace

EDITED, UNCHANGED = 0.1, 0.02
LOWER_IS_BETTER = frozenset({"LPIPS", "ST-LPIPS", "change outside", "colour spread", "warp error"})
"""Of the measures; the others are better when higher, except those in `BEST_AT_ONE`."""
BEST_AT_ONE = frozenset({"edit strength", "seam visibility"})


@dataclass(frozen=True)
class Measured:
    """What one edit scores."""

    nearest: int
    """Index of the true edit that comes nearest."""
    measures: dict[str, float | None]
    """By name; None where it is not defined, such as the change of an unedited region that does not exist."""


def nearest_truth(renders: Float[Tensor, "n 3 h w"], truths: Float[Tensor, "k n 3 h w"]) -> int:
    """Index of the true edit with the smallest mean squared error over all views."""
    return int((truths - renders).square().flatten(1).mean(dim=1).argmin())


def true_geometry(scene: Scene, cameras: Cameras) -> PinholeViews:
    """Cameras of the views, and the distance along each ray to the scene's true surface.

    The sky lies a thousand units away.
    """
    buffer = trace(scene.table, cameras, scene.sun_azimuth, samples=1)
    centres = cameras.camera_to_world[:, :3, 3]
    rays = cameras.height * cameras.width
    depth = (buffer.position - centres.T.repeat_interleave(rays, dim=1)).norm(dim=0)
    intrinsics = torch.tensor([cameras.focal, cameras.focal, cameras.width / 2, cameras.height / 2])
    return PinholeViews(
        cameras.camera_to_world[:, :3],
        intrinsics.expand(len(cameras), 4),
        depth.reshape(len(cameras), cameras.height, cameras.width),
    )


def measure(
    renders: Float[Tensor, "n 3 h w"],
    unedited: Float[Tensor, "n 3 h w"],
    source: Float[Tensor, "n 3 h w"],
    truths: Float[Tensor, "k n 3 h w"],
    geometry: Callable[[int], PinholeViews] | None = None,
    pairs: Sequence[tuple[int, int]] | None = None,
) -> Measured:
    """Score the views of an edited scene.

    - `PSNR`, `SSIM`, `LPIPS` (or `ST-LPIPS`, where LPIPS's network cannot be had): to the nearest true edit.
    - `change outside`: of the unedited region, to the *unedited NeRF* and not to the photos, so that what the NeRF
      blurs is not laid at the editor's door.
    - `edit strength`: change of the edited part to the unedited NeRF, divided by the true change. A method that does
      nothing agrees with itself perfectly: consistency counts only beside this.

    and, where `geometry` is given (ambiguous instructions):

    - `colour spread` of the edited part, and that of the true edit, which shading alone gives.
    - `warp error` of the edited part between neighbouring views, and that of the true edit (highlights move with the
      camera). The surface is that of the nearest *true* edit, not that which the NeRF has: by its own depth a NeRF
      without view dependence agrees with itself whatever its views were told, whereas a hat that stands elsewhere, or
      is a blur of several, is seen at one true point in several colours.

    Args:
        renders: the edited scene, in [0, 1].
        unedited: the scene before the edit, from the same cameras.
        source: the true scene before the edit.
        truths: every true edit.
        geometry: cameras and true depths, for the index of a true edit.
        pairs: which views the warp error compares; default: neighbours, both ways.
    """
    nearest = nearest_truth(renders, truths)
    truth = truths[nearest]
    change = (truth - source).abs().mean(dim=1)
    edited, unchanged = change > EDITED, change < UNCHANGED
    height, width = renders.shape[-2:]
    found: dict[str, float | None] = {"PSNR": psnr(renders, truth).mean}
    if min(height, width) >= SMALLEST_FOR_SSIM:
        found["SSIM"] = ssim(renders, truth).mean
    if min(height, width) >= SMALLEST_FOR_LPIPS:
        score = perceptual_distance()(renders, truth)
        found[score.name] = score.mean
    found["change outside"] = change_outside(renders, unedited, ~unchanged).mean if unchanged.any() else None
    found["edit strength"] = _strength(renders, unedited, truth, source, edited)
    if geometry is not None:
        views = geometry(nearest)
        found["colour spread"], found["true colour spread"] = _spread(renders, edited), _spread(truth, edited)
        found["warp error"], found["true warp error"] = (
            _warp(shown, views, edited, pairs) for shown in (renders, truth)
        )
    return Measured(nearest, found)


@lru_cache
def perceptual_distance() -> PerceptualDistance:
    """The network, once in a process."""
    return load_perceptual_distance("auto")


def _strength(
    renders: Tensor, unedited: Tensor, truth: Tensor, source: Tensor, edited: Bool[Tensor, "n h w"]
) -> float | None:
    if not edited.any():
        return None
    shown, true = ((a - b).abs().mean(dim=1)[edited].mean() for a, b in ((renders, unedited), (truth, source)))
    return float(shown / true)


def _spread(images: Tensor, edited: Bool[Tensor, "n h w"]) -> float | None:
    return colour_spread(images, edited).mean if edited.flatten(1).any(dim=1).sum() > 1 else None


def _warp(
    images: Tensor, views: PinholeViews, edited: Bool[Tensor, "n h w"], pairs: Sequence[tuple[int, int]] | None
) -> float | None:
    if pairs is None:
        pairs = [pair for a, b in nearest_views(views.camera_to_world) for pair in ((a, b), (b, a))]
    try:
        return warp_error_3d(images, views, pairs=pairs, mask=edited).mean
    except ValueError:  # no two views show one point of the edited part
        return None
