import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from csd_nerf.metrics import change_outside, colour_spread, psnr, ssim
from tests.metrics.fake_encoder import plain


def test_psnr_in_closed_form():
    """A difference of d everywhere gives -20 log10 d."""
    truth = torch.rand(3, 3, 8, 9) * 0.5
    shifted = truth + torch.tensor([0.1, 0.01, 0.0])[:, None, None, None]
    assert psnr(shifted, truth).values == pytest.approx([20, 40, 100], abs=1e-2)


def test_psnr_of_noise():
    truth = torch.full((1, 3, 200, 200), 0.5)
    noisy = truth + 0.05 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    assert psnr(noisy, truth).mean == pytest.approx(-20 * math.log10(0.05), abs=0.05)


def test_ssim_of_constants_in_closed_form():
    """Without variance only the means are left: (2 a b + c) / (a^2 + b^2 + c)."""
    a, b, c = 0.3, 0.6, 0.01**2
    score = ssim(plain((a, a, a), (b, b, b), size=16), plain((b, b, b), (b, b, b), size=16))
    assert score.values == pytest.approx([(2 * a * b + c) / (a * a + b * b + c), 1], abs=1e-6)


def test_ssim_of_a_picture_and_its_negative_is_negative():
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert ssim(image, image).mean == pytest.approx(1, abs=1e-5)
    assert ssim(1 - image, image).mean < -0.8


def test_ssim_against_another_computation():
    """Scipy's Gaussian filter (radius 5, sigma 1.5), window by window where a whole window fits."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, 24, 30, generator=generator)
    y = (0.7 * x + 0.3 * torch.rand(2, 3, 24, 30, generator=generator)).clamp(0, 1)

    def blurred(values: np.ndarray) -> np.ndarray:
        return gaussian_filter(values, sigma=(0, 0, 1.5, 1.5), truncate=5 / 1.5, mode="nearest")[..., 5:-5, 5:-5]

    a, b = x.double().numpy(), y.double().numpy()
    ma, mb = blurred(a), blurred(b)
    va, vb, vab = blurred(a * a) - ma**2, blurred(b * b) - mb**2, blurred(a * b) - ma * mb
    full = (2 * ma * mb + 1e-4) * (2 * vab + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))
    assert ssim(x, y).values == pytest.approx(full.mean(axis=(1, 2, 3)).tolist(), abs=1e-6)


def test_ssim_needs_a_window():
    assert ssim(torch.rand(1, 3, 11, 11), torch.rand(1, 3, 11, 11)).mean < 1
    with pytest.raises(ValueError, match="at least 11 pixels a side, these have 12 x 10"):
        ssim(torch.rand(1, 3, 10, 12), torch.rand(1, 3, 10, 12))


def test_change_outside_the_edit():
    source = torch.full((2, 3, 4, 4), 0.5)
    edited = torch.zeros(2, 4, 4, dtype=torch.bool)
    edited[0, :2], edited[1] = True, True
    image = source.clone()
    image[0, :, :2] += 0.4  # asked for
    image[0, :, 2:] += 0.1  # not asked for
    image[1] += 0.3  # all of it asked for
    assert change_outside(image, source, edited).values == pytest.approx([0.1])
    with pytest.raises(ValueError, match="no outside"):
        change_outside(image[1:], source[1:], edited[1:])


def test_colour_spread_in_closed_form():
    """Two views of one colour and its opposite: a standard deviation of |a - b| / sqrt(2)."""
    images = plain((0.2, 0.5, 0.5), (0.8, 0.5, 0.5), (0.0, 0.0, 0.0))
    shown = torch.ones(3, 4, 4, dtype=torch.bool)
    shown[2] = False
    score = colour_spread(images, shown)
    assert score.mean == pytest.approx(0.6 / math.sqrt(2) / 3) and score.note == "2 views"
    assert colour_spread(plain((0.2, 0.3, 0.4), (0.2, 0.3, 0.4)), shown[:2]).mean == 0
    with pytest.raises(ValueError, match="at least two views"):
        colour_spread(images, shown & torch.tensor([True, False, False])[:, None, None])
