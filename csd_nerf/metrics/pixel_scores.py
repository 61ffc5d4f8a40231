"""Scores of pixel values: against a known truth, and of the part that was edited or was not."""

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor
from torch.nn.functional import conv2d

from csd_nerf.metrics.levels import unit
from csd_nerf.metrics.types import Score

SMALLEST_FOR_SSIM = 11
"""Pixels along a window's side."""


def psnr(images: Real[Tensor, "n 3 h w"], truths: Real[Tensor, "n 3 h w"]) -> Score:
    """Peak signal-to-noise ratio in dB, per picture. Higher is better.

    -10 log10 mean((x - y)^2) over pixels and channels, for values in [0, 1] (Huynh-Thu and Ghanbari 2008). Equal
    pictures give 100 dB, which is where it is capped.
    """
    errors = torch.stack([(unit(x) - unit(y)).square().mean() for x, y in zip(images, truths, strict=True)])
    errors = errors.clamp_min(1e-10)
    return Score("PSNR", (-10 * errors.log10()).tolist(), "higher", "dB")


def ssim(images: Real[Tensor, "n 3 h w"], truths: Real[Tensor, "n 3 h w"]) -> Score:
    """Structural similarity, per picture. Higher is better, 1 at most.

    mean over windows of (2 m_x m_y + c_1)(2 s_xy + c_2) / ((m_x^2 + m_y^2 + c_1)(s_x^2 + s_y^2 + c_2)), with m, s^2 and
    s_xy the means, variances and covariance in Gaussian windows of 11 x 11 pixels (sigma 1.5) that lie in the picture,
    c_1 = 0.01^2, c_2 = 0.03^2, mean over channels (Wang et al. 2004). In float64: variances are small differences of
    large squares. torchmetrics, and so `ns-eval`, mirror the border and differ in the third decimal.

    Raises `ValueError` for pictures smaller than a window.
    """
    if min(images.shape[-2:]) < SMALLEST_FOR_SSIM:
        size = f"{images.shape[-1]} x {images.shape[-2]}"
        raise ValueError(f"SSIM needs pictures of at least {SMALLEST_FOR_SSIM} pixels a side, these have {size}")
    pairs = zip(images, truths, strict=True)  # one by one, since float64 takes room
    return Score("SSIM", [_ssim(unit(x).double(), unit(y).double()) for x, y in pairs], "higher")


def _ssim(x: Float[Tensor, "3 h w"], y: Float[Tensor, "3 h w"]) -> float:
    radius = SMALLEST_FOR_SSIM // 2
    row = torch.exp(-torch.arange(-radius, radius + 1).to(x).square() / (2 * 1.5**2))
    row = (row / row.sum()).reshape(1, 1, 1, -1)
    moments = torch.cat([x, y, x * x, y * y, x * y])[:, None]
    moments = conv2d(conv2d(moments, row), row.transpose(2, 3))[:, 0]
    m_x, m_y, xx, yy, xy = moments.split(3)
    c_1, c_2 = 0.01**2, 0.03**2
    like = (2 * m_x * m_y + c_1) * (2 * (xy - m_x * m_y) + c_2)
    unlike = (m_x**2 + m_y**2 + c_1) * (xx - m_x**2 + yy - m_y**2 + c_2)
    return float((like / unlike).mean())


def change_outside(
    images: Float[Tensor, "n 3 h w"], sources: Float[Tensor, "n 3 h w"], edited: Bool[Tensor, "n h w"]
) -> Score:
    """How far the part that no edit asked for has moved: mean |x - source| over the pixels outside `edited`.

    Per picture that has such pixels. Lower is better. Raises `ValueError` when every pixel is edited.
    """
    difference = (images - sources).abs().mean(dim=1)
    values = [float(d[~mask].mean()) for d, mask in zip(difference, edited, strict=True) if not mask.all()]
    if not values:
        raise ValueError("every pixel belongs to the edit: there is no outside")
    return Score("change outside the edit", values, "lower")


def colour_spread(images: Float[Tensor, "n 3 h w"], edited: Bool[Tensor, "n h w"]) -> Score:
    """Whether views agree on the colour of what was edited. Lower is better; shading alone gives more than 0.

    Standard deviation over the views of the mean colour of the pixels in `edited`, averaged over the three channels
    (views that do not show the part are left out). Raises `ValueError` for fewer than two views that show it.
    """
    means = [image[:, mask].mean(dim=1) for image, mask in zip(images, edited, strict=True) if mask.any()]
    if len(means) < 2:
        raise ValueError("the edited part must be seen in at least two views")
    return Score("colour spread", [float(torch.stack(means).std(dim=0).mean())], "lower", f"{len(means)} views")
