"""A voxel grid against slow interpolation, and the emptiness loss against its derivative."""

import itertools
import math

import pytest
import torch

from csd_nerf.scenes.voxel_field import VoxelField, emptiness_loss, emptiness_weight


def interpolated(grid: torch.Tensor, point: torch.Tensor) -> torch.Tensor:
    """Trilinear interpolation of `grid` (c x y z) between the centres of its voxels, one corner after the other."""
    sides = torch.tensor(grid.shape[1:])
    place = ((point + 1) / 2 * sides - 0.5).clamp(torch.zeros(3), sides - 1.0)
    low = place.floor().long().clamp(max=sides - 2)
    total = torch.zeros(grid.shape[0])
    for corner in itertools.product((0, 1), repeat=3):
        index = low + torch.tensor(corner)
        share = torch.stack([1 - (place - index).abs()]).prod()
        total += share * grid[:, index[0], index[1], index[2]]
    return total


def test_interpolation():
    torch.manual_seed(0)
    field = VoxelField(resolution=5, channels=4, shift=-1.0)
    with torch.no_grad():
        field.density_grid.normal_()
        field.log_scale.fill_(0.3)
    points = torch.rand(50, 3) * 2 - 1
    channels, density = field.channels(points), field.density(points)
    for row, point in enumerate(points):
        torch.testing.assert_close(channels[row], interpolated(field.channel_grid[0], point), atol=1e-5, rtol=1e-4)
        raw = interpolated(field.density_grid[0], point)[0] * math.exp(0.3) - 1
        torch.testing.assert_close(density[row], torch.log1p(raw.exp()), atol=1e-5, rtol=1e-4)


def test_axes_are_not_exchanged():
    field = VoxelField(resolution=8, channels=1)
    with torch.no_grad():
        field.channel_grid.zero_()
        field.channel_grid[0, 0, -1] = 1.0  # x near 1
    at = field.channels(torch.tensor([[0.9, 0.0, 0.0], [0.0, 0.9, 0.0], [0.0, 0.0, 0.9]]))[:, 0]
    assert at[0] > 0.5 and at[1:].abs().max() == 0


def test_nothing_is_outside_of_the_cube():
    field = VoxelField(resolution=4)
    points = torch.tensor([[0.0, 0.0, 0.99], [0.0, 0.0, 1.01], [-1.5, 0.0, 0.0]])
    assert (field.density(points) > 0).tolist() == [True, False, False]


def test_shapes_and_gradients():
    field = VoxelField(resolution=4, channels=3)
    with torch.no_grad():
        field.density_grid.add_(0.1)
    points = torch.rand(2, 5, 3) * 2 - 1
    directions = torch.nn.functional.normalize(torch.randn(2, 5, 3), dim=-1)
    assert field.density(points).shape == (2, 5)
    assert field.channels(points).shape == field.background(directions).shape == (2, 5, 3)
    (field.density(points).sum() + field.channels(points).sum() + field.background(directions).sum()).backward()
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in field.parameters())


def test_the_background_learns_slowly_and_nothing_is_left_out():
    field = VoxelField(resolution=4)
    groups = field.parameter_groups(0.05)
    learned = [value for group in groups for value in group["params"]]
    assert {id(value) for value in learned} == {id(value) for value in field.parameters()}
    (slow,) = groups[1]["params"]
    assert slow is field.background_picture and groups[1]["lr"] == pytest.approx(1e-4)


def test_fog_costs_more_than_what_is_opaque():
    """The same total weight costs more when it is spread over many samples, and the slope at 0 is `scale`."""
    fog, wall = torch.full((100,), 0.01), torch.zeros(100)
    wall[3] = 1.0
    assert emptiness_loss(fog) > 3 * emptiness_loss(wall)
    weights = torch.zeros(1, requires_grad=True)
    emptiness_loss(weights, scale=7.0).backward()
    assert weights.grad is not None and weights.grad.item() == pytest.approx(7.0)


def test_the_second_half_is_for_cleaning():
    assert [emptiness_weight(step, 100) for step in (0, 49, 50, 99)] == [1e4, 1e4, 2e5, 2e5]
