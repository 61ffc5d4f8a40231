"""8-bit pictures score as the same in [0, 1]."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from csd_nerf.metrics import fid, load_perceptual_distance, psnr, ssim, warp_error_video
from csd_nerf.metrics.frechet import Features
from csd_nerf.metrics.levels import eight_bit, unit
from csd_nerf.metrics.openclip import OpenClip
from csd_nerf.metrics.types import Score
from tests.metrics.tiny_clip import NAME, make_tiny_clip
from tests.metrics.tiny_inception import MeanColours


def levels(seed: int) -> Tensor:
    return torch.randint(0, 256, (3, 3, 40, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_levels_and_values():
    every = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256)
    assert unit(every)[0, 0, 51] == pytest.approx(0.2) and torch.equal(eight_bit(unit(every)), every)
    outside = torch.tensor([-0.1, 1.01, 0.5]).reshape(1, 1, 3).expand(3, -1, -1)
    assert eight_bit(outside)[0, 0].tolist() == [0, 255, 128]
    assert unit(outside) is outside and eight_bit(every) is every
    for value in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="not finite"):
            eight_bit(torch.full((3, 2, 2), value))


@pytest.mark.parametrize(
    "score",
    [
        psnr,
        ssim,
        lambda a, b: fid(a, b, Features("tiny", MeanColours(3))),
        lambda a, b: warp_error_video(a, b, tolerance=50.0),
        lambda a, b: load_perceptual_distance("st-lpips")(a, b),
    ],
)
def test_scores_are_those_of_values(score: Callable[[Tensor, Tensor], Score]):
    first, second = levels(0), levels(1)
    found, expected = score(first, second), score(first.float() / 255, second.float() / 255)
    assert found.values == pytest.approx(expected.values, rel=1e-6)
    assert score(first, second.float() / 255).values == pytest.approx(expected.values, rel=1e-6), "one of each"
    assert expected.mean != 0


def test_embeddings_are_those_of_values(tmp_path: Path):
    clip = OpenClip(NAME, make_tiny_clip(tmp_path))
    assert torch.equal(clip.encode_images(levels(0)), clip.encode_images(levels(0).float() / 255))
