"""Composed prompts: which region of a picture follows which prompt (CSD D.1).

A patch i of the canvas is edited by the mean of its prompts' noise estimates, with

    alpha_k,i proportional to the overlap of patch i and region k,    sum_k alpha_k,i = 1.

Row 0 of the weights is everything else: a pixel p that the regions cover by c_k(p) in [0, 1] leaves max(0, 1 -
sum_k c_k(p)) to it. That share belongs to the base prompt or, where there is none, to the prompt of the baseline (the
empty one, or with text guidance alone the source's caption), which changes nothing: a patch that is half covered is
then edited half as strongly. That is so where the source's estimate is subtracted; the injected noise cancels with
nothing, and the rest of a patch that a region touches drifts. Padding belongs to nobody, and the columns that a canvas
which wraps around repeats belong to whom the originals belong.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import ImageOps
from torch import Tensor

from csd_nerf.images.deep_pictures import is_inverted
from csd_nerf.images.patches import Crop, cut
from csd_nerf.images.picture_files import opened_picture

ROUNDING = 1e-6
"""Shares of a patch below this are rounding errors of masks; as zeros they cost no network samples."""
_TOGETHER = 1024
"""Patches that are cut at once: all of a large picture take more memory than the picture."""
_NUMBER = re.compile(r"(?P<pixels>[+-]?\d+)|(?P<percent>[+-]?\d+(\.\d*)?)%")


@dataclass(frozen=True)
class Region:
    """Where a prompt applies: a box or a mask, in pixels of the picture."""

    prompt: str
    """What to change there."""
    box: tuple[int, int, int, int] | None = None
    """Left, top, right, bottom; right and bottom are excluded. Parts outside the picture are ignored."""
    mask: Float[Tensor, "H W"] | None = None
    """How much of each pixel belongs to the region, in [0, 1]."""
    origin: str | None = None
    """Where the mask came from (its file), for messages."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for an empty prompt, and unless there is exactly one of box and mask, in range."""
        if not self.prompt.strip():
            raise ValueError("--region: its prompt is empty: say what to change there")
        if (self.box is None) == (self.mask is None):
            raise ValueError(f"--region {self.prompt!r}: give either a box or a mask")
        if self.mask is not None and not ((self.mask >= 0) & (self.mask <= 1)).all():
            raise ValueError(f"{self.name}: its values must lie in [0, 1]")

    @property
    def name(self) -> str:
        """What it is called in messages."""
        if self.mask is None:
            return f"--region of {self.prompt!r}"
        return f"--mask of {self.prompt!r}" if self.origin is None else f"--mask {self.origin!r} of {self.prompt!r}"

    def coverage(self, height: int, width: int) -> Float[Tensor, "H W"]:
        """How much of each pixel of a picture of this size the region covers, in [0, 1], on the CPU.

        Raises `ValueError` for a box that is empty or wholly outside, and for a mask of another size or of zeros.
        """
        if self.mask is None:
            assert self.box is not None
            left, top, right, bottom = _clip(self.box, width, height, f"box of {self.prompt!r}")
            covered = torch.zeros(height, width)
            covered[top:bottom, left:right] = 1
            return covered
        if self.mask.shape != (height, width):
            raise ValueError(
                f"{self.name} has {self.mask.shape[1]} x {self.mask.shape[0]} pixels, but the picture "
                f"has {width} x {height}: give a mask of the picture's size"
            )
        if not self.mask.any():
            raise ValueError(f"{self.name} is empty: at least one pixel must not be black (or clear)")
        return self.mask.detach().float().cpu()


def parse_box(text: str, width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom in pixels from "X0,Y0,X1,Y1" (right and bottom excluded), clipped to the picture.

    Each number is in whole pixels, or in percent of the width or the height ("50%,0,100%,100%"; rounded to pixels).
    Raises `ValueError` for other texts and for boxes that are empty, inverted or wholly outside the picture.
    """
    sides = (width, height, width, height)
    found = [_NUMBER.fullmatch(part.strip()) for part in text.split(",")]
    if len(found) != 4 or not all(found):
        raise ValueError(
            f"--region {text!r} is no box: give X0,Y0,X1,Y1 in pixels or percent, such as 0,0,256,512 or "
            "50%,0,100%,100%"
        )
    left, top, right, bottom = (
        int(match["pixels"]) if match["pixels"] else round(float(match["percent"]) / 100 * side)
        for match, side in zip(found, sides, strict=True)
        if match
    )
    return _clip((left, top, right, bottom), width, height, repr(text))


def _clip(box: tuple[int, int, int, int], width: int, height: int, name: str) -> tuple[int, int, int, int]:
    left, top, right, bottom = box
    if left >= right or top >= bottom:
        raise ValueError(
            f"--region {name} is empty, {left},{top} to {right},{bottom}: X0 must be below X1 and Y0 below Y1"
        )
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        raise ValueError(
            f"--region {name}, {left},{top} to {right},{bottom}, lies outside the picture of {width} x {height} pixels"
        )
    return max(left, 0), max(top, 0), min(right, width), min(bottom, height)


def read_mask(path: Path) -> Float[Tensor, "H W"]:
    """A mask file in [0, 1]: its opacity if it is not opaque everywhere, otherwise its luminance; 8 or 16 bits.

    Numbers in floating point (TIFF) are taken as they are. Raises `ValueError` that names the file if it cannot be read
    as a picture of at most `picture_files.MOST_PIXELS`, and for such numbers outside [0, 1].
    """
    try:
        with opened_picture(path) as opened:
            picture = ImageOps.exif_transpose(opened)
            if picture.mode.startswith("F"):
                values = np.asarray(picture).astype(np.float32)
                if not ((values >= 0) & (values <= 1)).all():
                    least, most = values.min(), values.max()
                    raise ValueError(f"{path} has values from {least:g} to {most:g}: give a mask of 0 (out) to 1 (in)")
                return torch.from_numpy(values)
            if picture.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip to 8 instead of scaling
                values = torch.from_numpy(np.asarray(picture).astype(np.float32) / 65535).clamp(0, 1)
                return 1 - values if is_inverted(opened) else values
            if picture.has_transparency_data:
                opacity = np.asarray(picture.convert("RGBA").getchannel("A"))
                if opacity.min() < 255:
                    return torch.from_numpy(opacity.astype(np.float32) / 255)
            return torch.from_numpy(np.asarray(picture.convert("L")).astype(np.float32) / 255)
    except ValueError as error:
        raise ValueError(f"--mask {error}") from error


def composed_prompts(regions: Sequence[Region], base_prompt: str | None = None) -> tuple[str, ...]:
    """The prompts in the order of `region_weights`: base prompt, then the regions'.

    Without a base prompt the first is "". Encode it as the baseline's text of the edit: the *null* text, so with the
    negative prompt if there is one, or the source's caption. Only then is it exactly 'no change'.
    """
    return (base_prompt or "", *(region.prompt for region in regions))


def region_weights(
    regions: Sequence[Region], corners: Int[Tensor, "n 2"], patch: tuple[int, int], factor: int, crop: Crop
) -> Float[Tensor, "k n"]:
    """Shares alpha of everything else (row 0) and of each region in each patch; columns sum to 1 (`Target.weights`).

    Overlaps are counted in pixels of the picture; a region's mask counts by its values. Patches that show nothing but
    padding belong to row 0.

    Args:
        regions: May overlap; shares are then divided in proportion.
        corners: Top and left of the patches in latent pixels.
        patch: Height and width in latent pixels.
        factor: Pixels per latent pixel.
        crop: How the picture lies in the padded one that was encoded, and whether it wraps around.

    Raises `ValueError` for regions that do not fit the picture, or are too faint or too small to count in any patch.
    """
    covered = torch.zeros(crop.height, crop.width)
    areas = []
    for region in regions:
        coverage = region.coverage(crop.height, crop.width)
        covered += coverage
        areas.append(_overlap(coverage, corners, patch, factor, crop))
    areas.insert(0, _overlap((1 - covered).clamp(min=0), corners, patch, factor, crop))
    shares = torch.stack(areas)
    shares[0, shares.sum(dim=0) == 0] = 1
    shares = shares / shares.sum(dim=0)
    shares[shares < ROUNDING] = 0
    for region, row in zip(regions, shares[1:], strict=True):
        if not row.any():
            raise ValueError(
                f"{region.name} covers less than a millionth of every patch that it touches, which counts as nothing: "
                "give a brighter or a larger one"
            )
    return (shares / shares.sum(dim=0)).float()


def untouched(weights: Float[Tensor, "k n"]) -> Bool[Tensor, " n"]:
    """Patches in which no region has a share: without a base prompt they need not be visited at all."""
    return (weights[1:] == 0).all(dim=0)


def _overlap(
    coverage: Float[Tensor, "H W"], corners: Int[Tensor, "n 2"], patch: tuple[int, int], factor: int, crop: Crop
) -> Float[Tensor, " n"]:
    """Sum of the coverage over the pixels of each patch, float64: exact for boxes and for masks of 8 bits."""
    tall, wide = crop.padded_height // factor, crop.padded_width // factor
    if crop.wrap:
        coverage = coverage[:, torch.arange(crop.padded_width) % crop.width]
    rows = torch.arange(coverage.shape[0]) // factor
    columns = torch.arange(coverage.shape[1]) // factor
    by_row = torch.zeros(tall, coverage.shape[1], dtype=torch.float64).index_add_(0, rows, coverage.double())
    cells = torch.zeros(tall, wide, dtype=torch.float64).index_add_(1, columns, by_row)
    some = corners.cpu().split(_TOGETHER)
    return torch.cat([cut(cells[None], few, patch).sum(dim=(1, 2, 3)) for few in some])
