import math

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.metrics import PinholeViews, nearest_views, warp_error_3d, warp_error_video

SIZE, FOCAL = 32, 40.0


def looking_down(x: float, y: float = 0.0, height: float = 2.0) -> Tensor:
    """A camera above the plane z = 0, its x and y axes the world's."""
    pose = torch.eye(4)[:3]
    pose[:, 3] = torch.tensor([x, y, height])
    return pose


def rays(pose: Tensor, cx: float = SIZE / 2) -> tuple[Tensor, Tensor]:
    """Origin and unit directions (h w 3) of a view's pixels, written out for themselves."""
    directions = torch.zeros(SIZE, SIZE, 3)
    for row in range(SIZE):
        for column in range(SIZE):
            local = torch.tensor([(column + 0.5 - cx) / FOCAL, (SIZE / 2 - row - 0.5) / FOCAL, -1.0])
            directions[row, column] = pose[:, :3] @ (local / local.norm())
    return pose[:, 3], directions


def seen(pose: Tensor, cx: float = SIZE / 2, block: bool = False) -> tuple[Tensor, Tensor]:
    """Picture and ray distances of a painted plane z = 0, with a grey block's top, |x| < 0.2, at z = 0.8, on it."""
    origin, directions = rays(pose, cx)
    distance = -origin[2] / directions[..., 2]
    top = (0.8 - origin[2]) / directions[..., 2]
    hit = block & ((origin + top[..., None] * directions)[..., 0].abs() < 0.2)
    distance = torch.where(hit, top, distance)
    points = origin + distance[..., None] * directions
    paint = torch.stack([0.5 + 0.3 * torch.sin(2 * points[..., 0]), 0.5 + 0.2 * points[..., 1], points[..., 0] * 0])
    return torch.where(hit, torch.full_like(paint, 0.2), paint).clamp(0, 1), distance


def views_of(poses: list[Tensor], block: bool = False) -> tuple[Float[Tensor, "n 3 h w"], PinholeViews]:
    pictures, depths = zip(*(seen(pose, block=block) for pose in poses), strict=True)
    intrinsics = torch.tensor([[FOCAL, FOCAL, SIZE / 2, SIZE / 2]]).expand(len(poses), -1)
    return torch.stack(pictures), PinholeViews(torch.stack(poses), intrinsics, torch.stack(depths))


def tilted() -> list[Tensor]:
    angle = 0.3
    pose = looking_down(0.5, 0.2)
    pose[:, :3] = torch.tensor(
        [[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]]
    )
    return [looking_down(0.0), pose, looking_down(-0.3, 0.1, 2.5)]


def test_one_painted_surface_has_no_error():
    images, views = views_of(tilted())
    score = warp_error_3d(images, views)
    assert len(score.values) == 3 and score.note == "3 pairs, through depth"
    assert score.mean < 1e-3


def test_a_colour_that_changes_between_views_is_the_error():
    images, views = views_of([looking_down(0.0), looking_down(0.2)])
    images[1, 0] += 0.15
    score = warp_error_3d(images, views)
    assert score.values == pytest.approx([0.05], abs=1e-3), "0.15 in one channel of three"


def test_depth_along_the_axis_is_the_wrong_depth():
    """The views agree through ray distances; taking them for z-depths, or the reverse, moves the points."""
    images, views = views_of(tilted())
    flat = []
    for pose, depth in zip(views.camera_to_world, views.depths, strict=True):
        flat.append(depth * (rays(pose)[1] @ -pose[:, 2]))
    wrong = PinholeViews(views.camera_to_world, views.intrinsics, torch.stack(flat))
    assert warp_error_3d(images, wrong, tolerance=1.0).mean > 20 * warp_error_3d(images, views, tolerance=1.0).mean


def test_what_a_view_hides_does_not_count():
    """The block hides ground from one side; without the check of depths its grey would be compared with the ground."""
    poses = [looking_down(-0.25), looking_down(0.25)]
    images, views = views_of(poses, block=True)
    assert warp_error_3d(images, views).mean < 3e-3
    assert warp_error_3d(images, views, tolerance=10.0).mean > 0.02


def test_principal_point_and_focal_lengths_of_each_view():
    images, views = views_of([looking_down(0.0), looking_down(0.2)])
    picture, depth = seen(looking_down(0.2), cx=10.0)
    moved = PinholeViews(
        views.camera_to_world,
        torch.tensor([[FOCAL, FOCAL, SIZE / 2, SIZE / 2], [FOCAL, FOCAL, 10.0, SIZE / 2]]),
        torch.stack([views.depths[0], depth]),
    )
    assert warp_error_3d(torch.stack([images[0], picture]), moved).mean < 1e-3
    assert warp_error_3d(torch.stack([images[0], picture]), views).mean > 0.02


def test_pairs_and_mask():
    images, views = views_of([looking_down(0.0), looking_down(0.1), looking_down(0.2)])
    images[1] += 0.1
    assert warp_error_3d(images, views, pairs=[(0, 2)]).mean < 1e-3
    assert warp_error_3d(images, views, pairs=[(0, 1), (1, 0)]).values == pytest.approx([0.1, 0.1], abs=2e-3)
    images[0, :, : SIZE // 2] += 0.3
    upper = torch.zeros(3, SIZE, SIZE, dtype=torch.bool)
    upper[:, : SIZE // 2] = True
    assert warp_error_3d(images, views, pairs=[(0, 2)], mask=upper).mean == pytest.approx(0.3, abs=2e-3)
    assert warp_error_3d(images, views, pairs=[(0, 2)], mask=~upper).mean < 1e-3


def test_views_of_nothing_in_common_are_refused():
    images, views = views_of([looking_down(0.0), looking_down(100.0)])
    with pytest.raises(ValueError, match="no pair of views shows a common surface point"):
        warp_error_3d(images, views)


def test_a_view_against_itself_reaches_the_border():
    images, views = views_of([looking_down(0.0)])
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    assert warp_error_3d(noise, views, pairs=[(0, 0)]).mean < 1e-4


def test_neighbours_are_near_and_look_the_same_way():
    ring = []
    for angle in (0, 100, 10, 110, 250):
        a = math.radians(angle)
        back = torch.tensor([math.cos(a), math.sin(a), 0.0])
        right, up = torch.tensor([-math.sin(a), math.cos(a), 0.0]), torch.tensor([0.0, 0, 1])
        ring.append(torch.stack([right, up, back, 2 * back], dim=1))
    assert nearest_views(torch.stack(ring)) == [(0, 2), (0, 4), (1, 3)]
    inside_out = torch.stack(ring)
    inside_out[:, :, 3] = 0
    assert {(0, 2), (1, 3)} <= set(nearest_views(inside_out)), "cameras in one place"
    with pytest.raises(ValueError, match="no neighbour"):
        nearest_views(inside_out[:1])


def painted(count: int, step: int, size: int = 64) -> Float[Tensor, "n 3 h w"]:
    """Frames of a camera that moves `step` pixels a frame over a smooth painting."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[0:size, 0 : size + count * step]
    canvas = np.zeros((3, *x.shape))
    for channel in range(3):
        for _ in range(12):
            kx, ky, phase = generator.uniform(-0.5, 0.5), generator.uniform(-0.5, 0.5), generator.uniform(0, 6)
            canvas[channel] += np.sin(kx * x + ky * y + phase) / 24
    canvas = torch.from_numpy(canvas + 0.5).float().clamp(0, 1)
    return torch.stack([canvas[:, :, i * step : i * step + size] for i in range(count)])


def test_a_moving_video_without_flicker_has_little_error():
    frames = painted(4, 2)
    naive = float((frames[1:] - frames[:-1]).abs().mean())
    score = warp_error_video(frames)
    assert len(score.values) == 3 and "optical flow" in score.note
    assert score.mean < 0.1 * naive


def test_flicker_is_the_error_whatever_the_motion():
    source = painted(4, 2) * 0.6
    edited = source + torch.tensor([0.0, 0.2, 0.0, 0.2])[:, None, None, None]
    assert warp_error_video(edited, source).values == pytest.approx([0.2] * 3, abs=0.01)


def test_a_still_video_has_none():
    still = painted(1, 0).expand(3, -1, -1, -1)
    assert warp_error_video(still).mean < 1e-6


def test_flow_of_a_guide_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="at least two frames"):
        warp_error_video(painted(1, 1))
    with pytest.raises(ValueError, match="before the edit"):
        warp_error_video(painted(3, 1), painted(2, 1))
    with pytest.raises(ValueError, match="at least 16 pixels a side, these have 12 x 12"):
        warp_error_video(painted(2, 1, size=12))
