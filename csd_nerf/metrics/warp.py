"""Warp error: does one surface point have one colour in all pictures that show it?"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor
from torch.nn.functional import grid_sample

from csd_nerf.metrics.levels import unit
from csd_nerf.metrics.types import Score

SMALLEST_FOR_FLOW = 16
"""Pixels a side: the flow is searched with patches of eight, at half the size."""


@dataclass(frozen=True)
class PinholeViews:
    """Where pictures were taken from; OpenGL axes (x right, y up, z backwards), as in transforms.json."""

    camera_to_world: Float[Tensor, "n 3 4"]
    intrinsics: Float[Tensor, "n 4"]
    """fx, fy, cx, cy of each view in pixels; the middle of the first pixel is at (0.5, 0.5)."""
    depths: Float[Tensor, "n h w"]
    """Distance along each pixel's ray to the surface, in the world's units (not along the optical axis)."""


def warp_error_3d(
    images: Float[Tensor, "n 3 h w"],
    views: PinholeViews,
    *,
    tolerance: float = 0.05,
    pairs: Sequence[tuple[int, int]] | None = None,
    mask: Bool[Tensor, "n h w"] | None = None,
) -> Score:
    """Warp error of a scene's views, through its own depth. Lower is better.

    mean_p |x_a(p) - x_b(q(p))|, per pair of views (a, b), over the pixels p of a whose surface point b sees, at q; mean
    over channels, values in [0, 1]. After the warping error that Lai et al. 2018 define for video (they square the
    difference), with the flow replaced by the scene's geometry. Points that b does not show, being hidden from it or
    outside of it, do not count. Highlights and whatever else moves with the camera are errors by this measure too, so
    compare it with that of the scene before the edit.

    Args:
        images: the views.
        views: their cameras and depths.
        tolerance: a point is seen in b if its distance from b's camera is within this share of b's depth there.
        pairs: which (a, b) to compare; default: each view with the next one, and the last with the first.
        mask: pixels of a that count; default: all.

    Raises:
        ValueError: no pair of views sees a common point.
    """
    count = len(images)
    if pairs is None:
        pairs = [(a, (a + 1) % count) for a in range(count if count > 2 else count - 1)]
    values = []
    for a, b in pairs:
        grid, distance = _project(views, b, _surface(views, a))
        # Between a near and a far pixel the interpolated depth is neither's: colours mixed at an edge do not count.
        seen_depth = _sample(views.depths[b][None], grid)[0]
        inside = (grid.abs() <= 1).all(dim=-1) & (distance > 0)
        seen = inside & ((distance - seen_depth).abs() <= tolerance * seen_depth)
        if mask is not None:
            seen = seen & mask[a]
        if seen.any():
            values.append(float((images[a] - _sample(images[b], grid)).abs().mean(dim=0)[seen].mean()))
    if not values:
        raise ValueError("no pair of views shows a common surface point: are depths and cameras of one scene?")
    return Score("warp error", values, "lower", f"{len(values)} pairs, through depth")


def warp_error_video(
    frames: Real[Tensor, "n 3 h w"], guide: Real[Tensor, "m 3 p q"] | None = None, *, tolerance: float = 1.0
) -> Score:
    """Warp error of a video's consecutive frames, through optical flow. Lower is better.

    mean_p |x_t(p) - x_{t+1}(p + F_t(p))| over the pixels that both frames show; mean over channels, values in [0, 1]
    (after Lai et al. 2018, who square the difference). The flow F (DIS, Kroeger et al. 2016, by OpenCV) is measured on
    `guide`, the video before the edit, where there is one: an edit that flickers would mislead it. A pixel counts if
    the flow there and back returns to within `tolerance` pixels.

    Raises `ValueError` for fewer than two frames, for frames below 16 pixels a side or unlike the guide's, and when no
    pixel's flow is reliable.
    """
    if len(frames) < 2:
        raise ValueError("the warp error of a video needs at least two frames")
    guide = frames if guide is None else guide
    if guide.shape != frames.shape:
        raise ValueError(f"the frames before the edit are {guide.shape}, those after it {frames.shape}")
    if min(frames.shape[-2:]) < SMALLEST_FOR_FLOW:
        size = f"{frames.shape[-1]} x {frames.shape[-2]}"
        raise ValueError(f"optical flow needs frames of at least {SMALLEST_FOR_FLOW} pixels a side, these have {size}")
    values = []
    for a in range(len(frames) - 1):
        forward, backward = _flow(unit(guide[a]), unit(guide[a + 1])), _flow(unit(guide[a + 1]), unit(guide[a]))
        grid, inside = _moved(forward)
        back = _sample(backward.permute(2, 0, 1), grid).permute(1, 2, 0)
        seen = inside & ((forward + back).norm(dim=-1) <= tolerance)
        if seen.any():
            values.append(float((unit(frames[a]) - _sample(unit(frames[a + 1]), grid)).abs().mean(dim=0)[seen].mean()))
    if not values:
        raise ValueError("no two consecutive frames have a pixel whose optical flow is reliable")
    return Score("warp error", values, "lower", f"{len(values)} pairs, through optical flow")


def nearest_views(camera_to_world: Float[Tensor, "n 3 4"]) -> list[tuple[int, int]]:
    """Pairs (a, b), a < b, of each view with the one most like it; every pair once.

    How unlike two are is the distance of the cameras, in units of their mean distance from their middle, plus one minus
    the cosine of the angle between their directions: cameras in one place that look elsewhere are no neighbours. Raises
    `ValueError` for fewer than two views.
    """
    if len(camera_to_world) < 2:
        raise ValueError("a single view has no neighbour")
    centres, directions = camera_to_world[:, :, 3], camera_to_world[:, :, 2]
    scale = (centres - centres.mean(dim=0)).norm(dim=1).mean().clamp_min(1e-8)
    unlike = torch.cdist(centres, centres) / scale + 1 - directions @ directions.T
    unlike.fill_diagonal_(torch.inf)
    return sorted({(min(a, b), max(a, b)) for a, b in enumerate(unlike.argmin(dim=1).tolist())})


def _surface(views: PinholeViews, index: int) -> Float[Tensor, "h w 3"]:
    """World position of what each pixel shows."""
    depth, pose = views.depths[index], views.camera_to_world[index]
    fx, fy, cx, cy = views.intrinsics[index]
    x, y = _pixels(depth)
    rays = torch.stack([(x - cx) / fx, (cy - y) / fy, -torch.ones_like(x)], dim=-1)
    rays = rays / rays.norm(dim=-1, keepdim=True)
    return depth[..., None] * (rays @ pose[:, :3].T) + pose[:, 3]


def _project(
    views: PinholeViews, index: int, points: Float[Tensor, "h w 3"]
) -> tuple[Float[Tensor, "h w 2"], Float[Tensor, "h w"]]:
    """Where points are seen by a view, in -1..1, and their distance from it; 0 for points behind it."""
    pose = views.camera_to_world[index]
    fx, fy, cx, cy = views.intrinsics[index]
    height, width = views.depths.shape[1:]
    local = (points - pose[:, 3]) @ pose[:, :3]
    ahead = -local[..., 2]
    safe = ahead.clamp_min(1e-6)
    x, y = cx + fx * local[..., 0] / safe, cy - fy * local[..., 1] / safe
    grid = torch.stack([2 * x / width - 1, 2 * y / height - 1], dim=-1)
    return grid, torch.where(ahead > 1e-6, local.norm(dim=-1), torch.zeros_like(ahead))


def _flow(a: Float[Tensor, "3 h w"], b: Float[Tensor, "3 h w"]) -> Float[Tensor, "h w 2"]:
    """Optical flow from a to b, pixels (x, y)."""
    import cv2

    luma = torch.tensor([0.299, 0.587, 0.114]).to(a)[:, None, None]
    grey = [(255 * (image.clamp(0, 1) * luma).sum(0)).round().byte().cpu().numpy() for image in (a, b)]
    method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow = method.calc(grey[0], grey[1], None)  # pyright: ignore[reportCallIssue, reportArgumentType]
    return torch.from_numpy(flow).to(a)


def _moved(flow: Float[Tensor, "h w 2"]) -> tuple[Float[Tensor, "h w 2"], Bool[Tensor, "h w"]]:
    """Sampling grid of the pixels after the flow, and which of them stay in the picture."""
    height, width = flow.shape[:2]
    x, y = _pixels(flow[..., 0])
    grid = torch.stack([(x + flow[..., 0]) / width * 2 - 1, (y + flow[..., 1]) / height * 2 - 1], dim=-1)
    return grid, (grid.abs() <= 1).all(dim=-1)


def _pixels(like: Float[Tensor, "h w"]) -> tuple[Float[Tensor, "h w"], Float[Tensor, "h w"]]:
    """Columns and rows of the pixels' middles, x and y."""
    rows, columns = (torch.arange(side).to(like) + 0.5 for side in like.shape)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return x, y


def _sample(picture: Float[Tensor, "c h w"], grid: Float[Tensor, "p q 2"]) -> Float[Tensor, "c p q"]:
    """Bilinear; the outermost half pixel shows the border's colour, not a mixture with black."""
    return grid_sample(picture[None], grid[None], mode="bilinear", padding_mode="border", align_corners=False)[0]
