"""Patches cover the canvas, cutting and scattering are adjoint, padding comes off without a trace."""

import pytest
import torch
from torch import Tensor

from csd_nerf.distill.noise import CanvasNoise
from csd_nerf.images.canvas import PatchLatents
from csd_nerf.images.patches import (
    Crop,
    cut,
    even_fading,
    normalised,
    pad_to,
    patch_corners,
    patch_windows,
    scatter,
    scattered_corners,
)

LAYOUTS = [(9, 14, (4, 5), 3, False), (8, 8, (8, 8), 8, False), (9, 14, (4, 5), 3, True), (5, 3, (4, 7), 2, True)]
"""Height, width, patch, stride, wrap; in the last a patch sees columns up to three times."""


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_grid_has_the_stride_and_ends_flush() -> None:
    corners = patch_corners(9, 14, (4, 5), 3)
    assert corners.tolist() == [[top, left] for top in (0, 3, 5) for left in (0, 3, 6, 9)]


@pytest.mark.parametrize("width", [1, 5, 16, 17, 31, 64])
@pytest.mark.parametrize("stride", [1, 3, 8])
def test_circle_is_divided_evenly(width: int, stride: int) -> None:
    corners = patch_corners(8, width, (8, 8), stride, wrap=True)
    assert (corners[:, 0] == 0).all()
    lefts = corners[:, 1].tolist()
    steps = [after - before for before, after in zip(lefts, [*lefts[1:], lefts[0] + width], strict=True)]
    assert min(steps) >= 1 and max(steps) <= stride and max(steps) - min(steps) <= 1


@pytest.mark.parametrize(("height", "width", "patch", "stride", "wrap"), LAYOUTS)
def test_patches_cover_the_canvas_and_stay_on_it(height, width, patch, stride, wrap) -> None:
    corners = patch_corners(height, width, patch, stride, wrap)
    seen = set()
    for top, left in corners.tolist():
        assert 0 <= top <= height - patch[0]
        assert wrap or 0 <= left <= width - patch[1]
        seen |= {(top + y, (left + x) % width) for y in range(patch[0]) for x in range(patch[1])}
    assert len(seen) == height * width


@pytest.mark.parametrize(
    ("height", "width", "patch", "stride", "wrap"), [*LAYOUTS, (40, 70, (16, 16), 4, False), (24, 61, (8, 8), 4, True)]
)
def test_scattered_patches_still_cover_the_canvas(height, width, patch, stride, wrap) -> None:
    grid = patch_corners(height, width, patch, stride, wrap)
    corners = scattered_corners(grid, (height, width), patch, stride, wrap)
    assert torch.equal(corners, scattered_corners(grid, (height, width), patch, stride, wrap))
    _, visits = scatter(torch.zeros(len(corners), 1, *patch), corners, height, width)
    assert visits.min() >= 1
    assert corners[:, 0].max() <= height - patch[0] and (wrap or corners[:, 1].max() <= width - patch[1])
    moved = corners - grid
    if wrap:
        moved[:, 1] = (moved[:, 1] + width // 2) % width - width // 2
    assert moved.abs().max() <= stride // 2
    if patch == (16, 16):
        assert moved[grid[:, 0] > 0].abs().float().mean() > 0.5  # of 0, 1 and 2
    assert not moved[grid[:, 0] == 0, 0].any()


def test_windows_of_overlapping_patches_add_up_to_as_many_patches() -> None:
    size, patch, stride, ramp = (40, 16), (16, 16), 4, 4
    for wrap, width in ((False, 16), (True, 32)):
        corners = patch_corners(size[0], width, patch, stride, wrap)
        windows = patch_windows(corners, (size[0], width), patch, ramp, wrap)
        total, _ = scatter(windows, corners, size[0], width)
        # 4 rows of patches, 1 column, which has no window, or 4 around the circle; whole away from top and bottom.
        torch.testing.assert_close(total[0, 12:28], torch.full_like(total[0, 12:28], 16.0 if wrap else 4.0))
        rise = torch.sin(torch.pi / 2 * (torch.arange(16) + 0.5) / 4).square().where(torch.arange(16) < 4, 1)
        one = windows[int(torch.nonzero(corners[:, 0] == 8)[0])]
        torch.testing.assert_close(one[0, :, 8], rise * rise.flip(0) / 0.75 * (1 / 0.75 if wrap else 1.0))
    assert torch.equal(patch_windows(corners, size, patch, 0), torch.ones(len(corners), 1, *patch))


def test_the_border_of_patches_leaves_no_lattice() -> None:
    """A network that errs at its borders: on a grid the errors lie above one another."""
    size, patch, stride = (16, 144), (16, 16), 4
    error = torch.zeros(1, *patch)
    error[:, :, [0, -1]] = 1.0
    grid = patch_corners(*size, patch, stride)
    scattered, lattice = scattered_corners(grid, size, patch, stride), []
    for corners, fading in ((grid, None), (scattered, even_fading(scattered, size, patch, 4, wrap=False))):
        patches = PatchLatents(torch.zeros(1, *size), corners, patch, fading)
        for row in range(len(corners)):
            patches.descend(torch.tensor([row]), error[None])
        column = patches.canvas[0, 0, 32:112]
        lattice.append(float(torch.fft.rfft(column)[len(column) // stride].abs()))
    assert lattice[1] < lattice[0] / 20


@pytest.mark.parametrize(
    ("size", "stride", "wrap", "said"),
    [
        ((7, 20), 2, True, "smaller"),
        ((20, 7), 2, False, "smaller"),
        ((20, 20), 9, False, "gaps"),
        ((20, 20), 0, True, "1 to 8"),
    ],
)
def test_canvas_that_cannot_be_covered_is_refused(size, stride, wrap, said) -> None:
    with pytest.raises(ValueError, match=said):
        patch_corners(size[0], size[1], (8, 8), stride, wrap)


@pytest.mark.parametrize(("height", "width", "patch", "stride", "wrap"), LAYOUTS)
def test_cutting_and_scattering_equal_loops_and_are_adjoint(height, width, patch, stride, wrap) -> None:
    corners = patch_corners(height, width, patch, stride, wrap)
    canvas, gradients = random(2, height, width), random(len(corners), 2, *patch, seed=1)
    patches = torch.zeros_like(gradients)
    total, visits = torch.zeros_like(canvas), torch.zeros(height, width, dtype=torch.float64)
    for i, (top, left) in enumerate(corners.tolist()):
        for y in range(patch[0]):
            for x in range(patch[1]):
                place = top + y, (left + x) % width
                patches[i, :, y, x] = canvas[:, place[0], place[1]]
                total[:, place[0], place[1]] += gradients[i, :, y, x]
                visits[place] += 1
    assert torch.equal(cut(canvas, corners, patch), patches)
    summed, counted = scatter(gradients, corners, height, width)
    torch.testing.assert_close(summed, total)
    assert torch.equal(counted, visits)
    torch.testing.assert_close((cut(canvas, corners, patch) * gradients).sum(), (canvas * summed).sum())


def test_mean_over_visits_gives_back_the_canvas_and_zero_elsewhere() -> None:
    canvas, corners = random(3, 6, 10), torch.tensor([[0, 0], [2, 1], [1, 8]])
    total, visits = scatter(cut(canvas, corners, (3, 4)), corners, 6, 10)
    seen = visits > 0
    assert 0 < seen.sum() < 60 and visits.max() > 1
    torch.testing.assert_close(normalised(total, visits), canvas * seen)


def test_patches_match_their_noise() -> None:
    """The same corners mean the same places for both, wrapped ones included."""
    corners = patch_corners(6, 9, (4, 5), 3, wrap=True)
    noise = CanvasNoise(6, 9, corners)(torch.zeros(len(corners), 2, 4, 5), torch.Generator().manual_seed(3))
    total, visits = scatter(noise, corners, 6, 9)
    torch.testing.assert_close(cut(normalised(total, visits), corners, (4, 5)), noise)


def test_padding_mirrors_or_repeats_or_continues() -> None:
    ramp = torch.arange(5.0).expand(1, 2, 5)
    padded, crop = pad_to(ramp, 4)
    assert padded[0, 0].tolist() == [0, 1, 2, 3, 4, 3, 2, 1] and padded.shape == (1, 4, 8)
    assert crop == Crop(2, 5, 4, 8, False)
    assert pad_to(ramp, 1, (1, 10))[0][0, 0].tolist() == [0, 1, 2, 3, 4, 4, 4, 4, 4, 4]
    assert pad_to(ramp, 3, (1, 10), wrap=True)[0][0, 0].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    column = torch.arange(3.0)[None, :, None].expand(1, 3, 4)
    assert pad_to(column, 4, (5, 1), wrap=True)[0][0, :, 0].tolist() == [0, 1, 2, 2, 2, 2, 2, 2]


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("size", [(16, 24), (17, 23), (3, 50), (1, 1)])
def test_padding_comes_off_exactly(size, wrap) -> None:
    picture = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    padded, crop = pad_to(picture, 8, (16, 16), wrap)
    assert padded.shape[-2] % 8 == padded.shape[-1] % 8 == 0 and min(padded.shape[-2:]) >= 16
    assert torch.equal(crop.undo(padded), picture)


@pytest.mark.parametrize(("width", "wide"), [(21, 32), (20, 64)])
def test_crossfade_leaves_no_seam(width, wide) -> None:
    """An edit that drifts along the canvas, as edits do: the repeated columns differ from the original ones."""
    _, crop = pad_to(torch.zeros(3, 8, width), 8, (8, wide), wrap=True)
    drift = torch.linspace(0, 1, crop.padded_width).expand(3, 8, crop.padded_width)
    undone = crop.undo(drift)
    jumps = (undone - undone.roll(1, dims=-1)).abs()
    twice = min(width, wide - width)
    step = 1 / (crop.padded_width - 1)
    # From the repeated column back to the original one, `width` steps, spread over the columns that exist twice.
    assert jumps.max() <= step * (width / twice + 1) + 1e-6
    assert (drift[..., 0] - drift[..., width - 1]).abs().max() > 1.5 * jumps.max()


def test_another_size_cannot_be_undone() -> None:
    with pytest.raises(ValueError, match="24 x 16"):
        pad_to(torch.zeros(3, 10, 20), 8)[1].undo(torch.zeros(3, 10, 20))
