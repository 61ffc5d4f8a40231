"""The quick grid and contraction are nerfstudio's own."""

import pytest
import torch
from nerfstudio.field_components.encodings import HashEncoding
from nerfstudio.field_components.spatial_distortions import SceneContraction
from nerfstudio.utils.math import Gaussians

from csd_nerf.scenes.quick_field import quicken


def grid(**options) -> HashEncoding:
    torch.manual_seed(0)
    return HashEncoding(implementation="torch", hash_init_scale=1.0, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"num_levels": 6, "max_res": 256, "log2_hashmap_size": 14},
        {"num_levels": 1, "max_res": 16, "log2_hashmap_size": 5, "features_per_level": 4},
        {"num_levels": 16, "max_res": 8192, "log2_hashmap_size": 19},
    ],
)
@pytest.mark.parametrize("through_points", [True, False])
def test_values_and_gradients_are_the_same(options, through_points: bool):
    """Where a gradient into the points is asked for, values are equal to the bit; else up to rounding."""
    slow, quick = grid(**options), grid(**options)
    quicken(torch.nn.Sequential(quick))
    points = torch.rand(7, 300, 3, generator=torch.Generator().manual_seed(1))
    points[0, :8] = torch.tensor([[x, y, z] for x in (0.0, 1.0) for y in (0.0, 1.0) for z in (0.0, 1.0)])
    points[1] = points[1] * 2 - 0.7  # outside of [0, 1]
    points[2] = (points[2] * 16).round() / 16  # on the cells' corners
    inputs = [points.clone().requires_grad_(through_points) for _ in range(2)]
    outputs = [encoding(x) for encoding, x in zip((slow, quick), inputs, strict=True)]
    assert outputs[0].abs().max() > 0.5
    if through_points:
        assert torch.equal(*outputs)
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(quick(points), outputs[0].detach(), rtol=1e-5, atol=1e-6)
    weights = torch.randn(outputs[0].shape, generator=torch.Generator().manual_seed(2))
    for output in outputs:
        (output * weights).sum().backward()
    torch.testing.assert_close(quick.hash_table.grad, slow.hash_table.grad, rtol=1e-4, atol=1e-4)
    if through_points:
        torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=1e-4, atol=1e-3)
    assert list(quick.state_dict()) == list(slow.state_dict())


def test_the_contraction_is_the_same_inside_and_outside_of_the_unit_cube():
    slow, quick = SceneContraction(order=float("inf")), SceneContraction(order=float("inf"))
    quicken(torch.nn.Sequential(quick))
    positions = 2 * torch.randn(50, 20, 3, generator=torch.Generator().manual_seed(0))
    positions[0, 0], positions[0, 1] = 0.0, 1.0
    assert torch.equal(quick(positions), slow(positions))
    inside = positions.abs().amax(dim=-1) < 1
    assert 0.02 < inside.float().mean() < 0.9
    gaussians = Gaussians(positions[0, 2:], torch.eye(3).expand(18, 3, 3))
    assert torch.equal(quick(gaussians).mean, slow(gaussians).mean)


def test_other_norms_are_left_alone():
    other = SceneContraction()
    quicken(torch.nn.Sequential(other))
    assert "forward" not in vars(other)
