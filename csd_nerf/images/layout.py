"""How a picture of any size is cut into patches of the prior's size.

The patches lie on a grid of `stride`. A pixel in the middle is seen by k = patch / stride of them along each side, one
at an edge by a single one: drawn as often as the others, as the paper draws them, patches at an edge leave a border
that is edited k times less often (k^2 in a corner) and may look unedited. `even` lists them k - 1 times: pixels at an
edge are then seen k - 1 times. It also scatters the patches and lets them fade into one another, with equal weight
everywhere: on a photo of a sky at night there was a lattice of the stride, and a line where patches at an edge end.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from csd_nerf.distill import ImagePrior
from csd_nerf.images.patches import Crop, Fading, even_fading, pad_to, patch_corners, scattered_corners

SIGHTS = 213
"""How often a latent pixel is optimised by default, on average: that of 200 steps of 4 patches of 64 x 64 on a canvas
of 240 x 64 (CSD C.1)."""


@dataclass(frozen=True)
class PanoramaLayout:
    """How a picture is cut into patches."""

    crop: Crop
    """From the padded picture back to the picture."""
    corners: Int[Tensor, "n 2"]
    """Top and left of each patch, in latent pixels; some of them several times (see `even`)."""
    patch: int
    """Side of a patch, in latent pixels."""
    multiple: int
    """Of which the padded sides are, in pixels."""
    size: tuple[int, int]
    """Height and width of the canvas, in latent pixels."""
    stride: int
    """Distance of neighbouring patches, in latent pixels."""
    fading: Fading | None = None
    """How patches fade into one another; None: they do not."""

    @property
    def patches(self) -> int:
        """How many there are."""
        return len(torch.unique(self.corners, dim=0))

    def side_by_side(self, rows: Int[Tensor, " n"], factor: int) -> "PanoramaLayout":
        """Of the picture that shows these patches side by side; `factor` pixels are a latent pixel."""
        count, side = len(rows), self.patch * factor
        corners = torch.stack([torch.zeros(count, dtype=torch.int64), torch.arange(count) * self.patch], dim=1)
        crop = Crop(side, side * count, side, side * count)
        return PanoramaLayout(crop, corners, self.patch, factor, (self.patch, self.patch * count), self.patch)

    def pad(self, picture: Float[Tensor, "c H W"]) -> Float[Tensor, "c _H _W"]:
        """The picture as it is edited."""
        least = (self.crop.padded_height, self.crop.padded_width)
        return pad_to(picture, self.multiple, least, self.crop.wrap)[0]

    def steps(self, batch_size: int, sights: int = SIGHTS) -> int:
        """Optimisation steps in which a latent pixel is optimised `sights` times, on average."""
        in_step = min(batch_size, len(self.corners))
        return max(1, round(sights * self.size[0] * self.size[1] / (in_step * self.patch**2)))


def panorama_layout(
    prior: ImagePrior,
    height: int,
    width: int,
    *,
    stride: int | None = None,
    wrap: bool = False,
    side_by_side: bool = False,
    even: bool = True,
) -> PanoramaLayout:
    """How a picture of this size, in pixels, is cut into patches.

    `stride` is the distance of neighbouring patches in latent pixels; None is a quarter of a patch (16 of 64 with
    Stable Diffusion, CSD C.1). With `side_by_side` patches do not overlap, nor do they wrap around.

    Raises `ValueError` for strides that leave gaps between patches.
    """
    patch = prior.size // prior.factor
    apart = max(1, patch // 4) if stride is None else stride
    if not 1 <= apart <= patch:
        raise ValueError(f"stride={apart}: give 1 to {patch} latent pixels, the side of a patch")
    multiple = prior.factor
    if side_by_side:
        apart, wrap, multiple = patch, False, prior.size
    least = (prior.size, 1 if wrap else prior.size)
    _, crop = pad_to(torch.empty(0, height, width), multiple, least, wrap)
    size = crop.padded_height // prior.factor, crop.padded_width // prior.factor
    corners = patch_corners(*size, (patch, patch), apart, wrap)
    if not even:
        return PanoramaLayout(crop, corners, patch, multiple, size, apart)
    repeats = _repeats(corners, size, patch, patch // apart - 1, wrap)
    corners = scattered_corners(corners, size, (patch, patch), apart, wrap).repeat_interleave(repeats, dim=0)
    # Wider ramps let the middle of a patch rule, where a prior that knows single objects would put one.
    ramp = min(max(1, patch // 16), patch - apart)
    fading = even_fading(corners, size, (patch, patch), ramp, wrap)
    return PanoramaLayout(crop, corners, patch, multiple, size, apart, fading)


def _repeats(
    corners: Int[Tensor, "n 2"], size: tuple[int, int], patch: int, times: int, wrap: bool
) -> Int[Tensor, " n"]:
    """How often each patch is listed: at an edge `times` times, in a corner times squared."""
    repeats = torch.ones(len(corners), dtype=torch.int64)
    for axis, length in enumerate(size):
        if length == patch or (axis == 1 and wrap):
            continue
        at_edge = (corners[:, axis] == 0) | (corners[:, axis] == length - patch)
        repeats *= torch.where(at_edge, max(1, times), 1)
    return repeats
