import pytest
import torch

from csd_nerf.toyworld.judging.colour import to_lab


@pytest.mark.parametrize(
    ("srgb", "lab"),
    [
        ((1.0, 1.0, 1.0), (100.0, 0.0, 0.0)),
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
        ((1.0, 0.0, 0.0), (53.24, 80.09, 67.20)),
        ((0.0, 0.0, 1.0), (32.30, 79.19, -107.86)),
    ],
)
def test_textbook_values(srgb: tuple[float, ...], lab: tuple[float, ...]):
    found = to_lab(torch.tensor(srgb)[None, :, None, None])[0, :, 0, 0] * 100
    assert found.tolist() == pytest.approx(list(lab), abs=0.05)
