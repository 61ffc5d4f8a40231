"""The geometry of a canvas that is edited in overlapping patches (CSD B.4, C.1): a panorama, or any large picture.

The particles are the patches `x_i = C_i v` of one canvas v of latent pixels, where C_i cuts. A gradient `g_i` on each
patch goes back to the canvas by the adjoint of cutting, divided by how often a pixel was seen ("we normalize the
gradient of each pixel by counting the appearance", B.4):

    g(p) = sum_i (C_i^T g_i)(p) / sum_i (C_i^T 1)(p),    0 where no patch was visited.

Corners are (top, left) in latent pixels. Positions past an edge continue on the opposite one, as they do in
`csd_nerf.distill.noise.CanvasNoise`; only patches of a canvas that wraps around (360 degree panoramas) ever do.

A picture whose sides do not fit is padded at the right and at the bottom, not around its centre: its pixel (0, 0) stays
pixel (0, 0), so that boxes, masks and corners need no offset, and a circle can only be continued where it ends.
"""

from dataclasses import dataclass
from math import ceil

import torch
from jaxtyping import Float, Int
from torch import Tensor


def patch_corners(
    height: int, width: int, patch: tuple[int, int], stride: int, wrap: bool = False
) -> Int[Tensor, "n 2"]:
    """Corners (top, left) of patches that cover a canvas, row by row; all in latent pixels.

    The spacing is `stride`; the last row and column end flush with the far edge, however little they add. With `wrap`
    left and right are neighbours: the columns are spread evenly over the whole circle, at most `stride` apart, and a
    patch may be wider than the canvas and see pixels twice.

    Args:
        height: Of the canvas.
        width: Of the canvas.
        patch: Height and width of a patch.
        stride: From 1 to the patch's shorter side, so that nothing is left out.
        wrap: Whether the canvas continues horizontally.

    Raises `ValueError` for other strides and for a canvas that is smaller than a patch.
    """
    if not 1 <= stride <= min(patch):
        raise ValueError(
            f"a stride of {stride} latent pixels for patches of {patch[1]} x {patch[0]}: give 1 to {min(patch)}, since "
            "a larger one would leave gaps"
        )
    if height < patch[0] or (width < patch[1] and not wrap):
        raise ValueError(
            f"a canvas of {width} x {height} latent pixels is smaller than its patches of {patch[1]} x {patch[0]}: "
            "enlarge or pad the picture"
        )
    if wrap:
        columns = ceil(width / stride)
        lefts = torch.arange(columns) * width // columns
    else:
        lefts = _flush(width, patch[1], stride)
    return torch.cartesian_prod(_flush(height, patch[0], stride), lefts)


def _flush(length: int, patch: int, stride: int) -> Int[Tensor, " m"]:
    count = ceil((length - patch) / stride) + 1
    return (torch.arange(count) * stride).clamp(max=length - patch)


def scattered_corners(
    corners: Int[Tensor, "n 2"], size: tuple[int, int], patch: tuple[int, int], stride: int, wrap: bool = False
) -> Int[Tensor, "n 2"]:
    """The patches of `patch_corners`, each moved by up to half a stride along both sides, the same for every call.

    A network's estimate is off at the border of its patch, and in the period of its strided convolutions. On a grid
    these places lie above one another and show as a lattice on plain backgrounds; scattered, they average out. No
    patch is moved away from an edge of the canvas, and none farther than leaves everything covered.

    Args:
        corners: What `patch_corners` gave for the other arguments.
        size: Height and width of the canvas.
        patch: Height and width of a patch.
        stride: As for `patch_corners`.
        wrap: As for `patch_corners`.
    """
    generator = torch.Generator().manual_seed(0)  # a property of the layout: it has to be the same on resuming
    moved = corners.clone()
    for axis, (length, side) in enumerate(zip(size, patch, strict=True)):
        reach = min(stride, side - stride) // 2
        offsets = torch.randint(-reach, reach + 1, (len(corners),), generator=generator)
        places = corners[:, axis]
        if axis == 1 and wrap:
            moved[:, axis] = (places + offsets) % length
        else:
            at_edge = (places == 0) | (places == length - side)
            moved[:, axis] = torch.where(at_edge, places, (places + offsets).clamp(0, length - side))
    return moved


def patch_windows(
    corners: Int[Tensor, "n 2"], size: tuple[int, int], patch: tuple[int, int], ramp: int, wrap: bool = False
) -> Float[Tensor, "n 1 h w"]:
    """How much the pixels of each patch count: less within `ramp` of its borders, but for those at the canvas's edge.

    A raised cosine along each side, divided by the mean of one that has both ramps, so that patches that overlap
    count as much together as without windows.

    Args:
        corners: Top and left of each patch.
        size: Height and width of the canvas.
        patch: Height and width of a patch.
        ramp: Width of the ramps in latent pixels; 0 is none.
        wrap: Whether left and right are no edges.
    """
    sides = []
    for axis, (length, side) in enumerate(zip(size, patch, strict=True)):
        circle = axis == 1 and wrap
        rise = torch.sin(torch.pi / 2 * ((torch.arange(side) + 0.5) / max(ramp, 0.5)).clamp(0, 1)).square()
        ones, starts = torch.ones(side), corners[:, axis, None].cpu()
        before = torch.where((starts > 0) | circle, rise, ones)
        after = torch.where((starts < length - side) | circle, rise.flip(0), ones)
        mean = 1.0 if length <= side and not circle else float((rise * rise.flip(0)).mean())
        sides.append(before * after / mean)
    return (sides[0][:, :, None] * sides[1][:, None, :])[:, None]


@dataclass(frozen=True)
class Fading:
    """How patches fade into one another, so that all of a canvas is optimised equally often."""

    ramp: int
    """Width in which a patch fades towards its borders, in latent pixels."""
    wrap: bool
    """Whether left and right are no edges."""
    gain: Float[Tensor, "H W"]
    """What makes up for places that more, or fewer, patches show than others."""

    def weights(self, corners: Int[Tensor, "n 2"], patch: tuple[int, int]) -> Float[Tensor, "n 1 h w"]:
        """How much the pixels of patches at these corners count."""
        size = (self.gain.shape[0], self.gain.shape[1])
        windows = patch_windows(corners, size, patch, self.ramp, self.wrap)
        return windows * cut(self.gain[None], corners, patch)


def even_fading(
    corners: Int[Tensor, "n 2"], size: tuple[int, int], patch: tuple[int, int], ramp: int, wrap: bool
) -> Fading:
    """The fading with which the weights of all patches at `corners` add up to the same everywhere.

    That is how often they show a pixel on average. Nothing counts more than twice what its window says.
    """
    total = torch.zeros(1, *size)
    for some in corners.split(1024):
        total += scatter(patch_windows(some, size, patch, ramp, wrap), some, *size)[0]
    mean = len(corners) * patch[0] * patch[1] / (size[0] * size[1])
    return Fading(ramp, wrap, (mean / total[0].clamp(min=1e-6)).clamp(max=2))


def _places(
    corners: Int[Tensor, "n 2"], patch: tuple[int, int], size: tuple[int, int], device: torch.device
) -> Int[Tensor, "n h w"]:
    """Where on the flattened canvas each pixel of each patch lies."""
    corners = corners.to(device)
    rows = (corners[:, 0, None] + torch.arange(patch[0], device=device)) % size[0]
    columns = (corners[:, 1, None] + torch.arange(patch[1], device=device)) % size[1]
    return rows[:, :, None] * size[1] + columns[:, None, :]


def cut(
    canvas: Float[Tensor, "c H W"], corners: Int[Tensor, "n 2"], patch: tuple[int, int]
) -> Float[Tensor, "n c h w"]:
    """The patches (height and width `patch`, in latent pixels) at these corners, on the canvas's device."""
    places = _places(corners, patch, (canvas.shape[1], canvas.shape[2]), canvas.device)
    return canvas.flatten(1)[:, places].transpose(0, 1)


def scatter(
    gradients: Float[Tensor, "n c h w"], corners: Int[Tensor, "n 2"], height: int, width: int
) -> tuple[Float[Tensor, "c H W"], Float[Tensor, "H W"]]:
    """The adjoint of `cut`: the sum of the patches on a canvas of zeros, and how often each pixel was seen.

    A pixel that one patch sees twice counts twice in both. Device and precision are those of `gradients`.
    """
    n, channels, h, w = gradients.shape
    places = _places(corners, (h, w), (height, width), gradients.device).flatten()
    total = gradients.new_zeros(height * width, channels + 1)
    seen = gradients.new_ones(n, h, w, 1)
    values = torch.cat([gradients.permute(0, 2, 3, 1), seen], dim=-1).reshape(-1, channels + 1)
    # One seed must give one result: on the CPU only the first, on a GPU only the second adds in a fixed order.
    if gradients.device.type == "cpu":
        total.index_add_(0, places, values)
    else:
        total.index_put_((places,), values, accumulate=True)
    total = total.T.reshape(channels + 1, height, width)
    return total[:channels].contiguous(), total[channels].contiguous()


def normalised(total: Float[Tensor, "c H W"], visits: Float[Tensor, "H W"]) -> Float[Tensor, "c H W"]:
    """CSD B.4: the mean over the visits of each pixel; 0 where there was none."""
    return total / visits.clamp(min=1)


@dataclass(frozen=True)
class Crop:
    """How a picture lies in its padded version: at the top left. Sizes in pixels."""

    height: int
    """Of the picture."""
    width: int
    """Of the picture."""
    padded_height: int
    """With the padding at the bottom."""
    padded_width: int
    """With the padding at the right."""
    wrap: bool = False
    """Whether the padding at the right repeats the left columns."""

    def undo(self, picture: Float[Tensor, "c H W"]) -> Float[Tensor, "c h w"]:
        """The picture (of any channels) without its padding.

        With `wrap`, columns that exist twice are cross-faded: the first column is (nearly) the repeated one, which
        continues the right edge, the last of them the original, which continues to the right; no seam is left.
        Raises `ValueError` for a picture that has not the padded size.
        """
        if picture.shape[-2:] != (self.padded_height, self.padded_width):
            raise ValueError(
                f"a picture of {picture.shape[-1]} x {picture.shape[-2]} pixels, padded was one of "
                f"{self.padded_width} x {self.padded_height}"
            )
        kept = picture[:, : self.height, : self.width]
        twice = min(self.padded_width - self.width, self.width) if self.wrap else 0
        if not twice:
            return kept.clone()
        repeated = picture[:, : self.height, self.width : self.width + twice]
        fade = (torch.arange(twice, device=picture.device, dtype=picture.dtype) + 0.5) / twice
        return torch.cat([torch.lerp(repeated, kept[..., :twice], fade), kept[..., twice:]], dim=-1)


def pad_to(
    picture: Float[Tensor, "c H W"], multiple: int, minimum: tuple[int, int] = (1, 1), wrap: bool = False
) -> tuple[Float[Tensor, "c _H _W"], Crop]:
    """A picture padded at the right and at the bottom, never stretched, and how to undo that.

    The padding mirrors the picture without repeating its edge pixel, or repeats that where the side is too short to
    mirror; with `wrap` the padding at the right continues with the left columns, as often as it takes.

    Args:
        picture: In any range; usually of 3 channels.
        multiple: Of which the padded sides are, in pixels (`ImagePrior.factor`).
        minimum: Height and width in pixels that the padded picture has at least (a patch's).
        wrap: Whether the picture continues horizontally.
    """
    height, width = picture.shape[-2:]
    tall, wide = (
        ceil(max(side, least) / multiple) * multiple for side, least in zip((height, width), minimum, strict=True)
    )
    columns = torch.arange(wide) % width if wrap else _mirrored(width, wide)
    rows = _mirrored(height, tall).to(picture.device)
    padded = picture[:, rows][:, :, columns.to(picture.device)]
    return padded, Crop(height, width, tall, wide, wrap)


def _mirrored(length: int, padded: int) -> Int[Tensor, " m"]:
    """Which row each of the padded rows shows."""
    index = torch.arange(padded)
    if padded - length >= length:
        return index.clamp(max=length - 1)
    return torch.where(index < length, index, 2 * (length - 1) - index)
