"""LPIPS between all pairs of a set, against pairs one by one."""

import pytest
import torch

from csd_nerf.metrics import PerceptualDistance, diversity


def mean_difference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a - b).abs().flatten(1).mean(dim=1)


def test_it_is_the_mean_over_all_pairs() -> None:
    images = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = diversity(PerceptualDistance("L1", "plain", mean_difference), images, batch=3)
    pairs = [float((images[i] - images[j]).abs().mean()) for i in range(5) for j in range(i)]
    assert found.name == "L1 diversity" and len(found.values) == 10 and "all pairs of 5" in found.note
    assert found.mean == pytest.approx(sum(pairs) / 10)
    assert diversity(PerceptualDistance("L1", "", mean_difference), images[:1].expand(3, -1, -1, -1)).mean == 0


def test_one_picture_has_no_diversity() -> None:
    with pytest.raises(ValueError, match="at least two"):
        diversity(PerceptualDistance("L1", "", mean_difference), torch.rand(1, 3, 32, 32))
