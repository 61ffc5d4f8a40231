"""Measures of edited panoramas and videos, besides those of `measure`."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.bench.agreement import Agreement, view_agreement
from csd_nerf.bench.measure import Measured, measure, true_geometry
from csd_nerf.bench.scenes import Instruction
from csd_nerf.toyworld.cameras import Cameras
from csd_nerf.toyworld.panorama import PICTURE, pictures_of
from csd_nerf.toyworld.scene import Scene

_LEVEL = 1 / 255


def seam_visibility(change: Float[Tensor, "3 h w"], patch: int = PICTURE, gap: int = 4) -> float:
    """How much an edit's change jumps at the borders of side-by-side patches, relative to beside them.

    With D the change (edited picture less unedited one), its jump at column b is

        J(b) = mean over rows y and channels c of |mean_{i < gap} D_c(y, b + i) - mean_{i < gap} D_c(y, b - 1 - i)|:

    means over `gap` pixels, because the decoder spreads a jump of latents over a few pixels. J at rows is the same
    with the axes exchanged. Then

        seam visibility = (mean of J over the borders B + l) / (mean of J over their neighbourhoods + l),

    where B are the multiples of `patch` inside the picture, and the neighbourhood of b the positions at a distance of
    2 gap to 4 gap from it, so that what is compared shows much the same things. l is one level of 8 bit: jumps below
    it cannot be seen, and a change that is nowhere scores 1. 1 is invisible, more is worse; a step at every border of
    an otherwise smooth change of slope s (per pixel) scores about step / (gap s).

    Args:
        change: difference of sRGB pictures, -1..1.
        patch: side of the patches, pixels.
        gap: pixels on either side, a latent pixel of the prior or more.

    Raises:
        ValueError: no border lies in the picture.
    """
    borders, beside = [], []
    for picture in (change, change.transpose(1, 2)):
        length = picture.shape[-1]
        jumps = _jumps(picture, gap)
        for border in range(patch, length - gap + 1, patch):
            near = [b for b in range(gap, length - gap + 1) if 2 * gap <= abs(b - border) <= 4 * gap]
            borders.append(jumps[border - gap])
            beside.append(jumps[torch.tensor(near) - gap].mean())
    if not borders:
        raise ValueError(f"a picture of {change.shape[-1]} x {change.shape[-2]} has no border of {patch}-pixel patches")
    at, around = (torch.stack(found).mean() + _LEVEL for found in (borders, beside))
    return float(at / around)


def _jumps(change: Float[Tensor, "c h w"], gap: int) -> Float[Tensor, " m"]:
    """J at columns gap .. w - gap."""
    means = change.unfold(-1, gap, 1).mean(dim=-1)
    return (means[..., gap:] - means[..., :-gap]).abs().mean(dim=(0, 1))


def measure_panorama(
    edited: Float[Tensor, "1 3 h w"],
    unedited: Float[Tensor, "1 3 h w"],
    source: Float[Tensor, "1 3 h w"],
    truths: Float[Tensor, "k 1 3 h w"],
) -> Measured:
    """Those of `measure` on the whole picture, and `seam visibility`, with that of the true edit."""
    found = measure(edited, unedited, source, truths)
    seams = {
        "seam visibility": seam_visibility((edited - unedited)[0]),
        "true seam visibility": seam_visibility((truths[found.nearest] - source)[0]),
    }
    return replace(found, measures=found.measures | seams)


def measure_video(
    edited: Float[Tensor, "n 3 h w"],
    unedited: Float[Tensor, "n 3 h w"],
    source: Float[Tensor, "n 3 h w"],
    truths: Float[Tensor, "k n 3 h w"],
    scene: Scene,
    asked: Instruction,
    cameras: Cameras,
) -> Measured:
    """Those of `measure`; the warp error is that of the edited part between consecutive frames, both ways."""
    pairs = [pair for a in range(len(edited) - 1) for pair in ((a, a + 1), (a + 1, a))]
    return measure(
        edited,
        unedited,
        source,
        truths,
        lambda index: true_geometry(asked.edits[index].scene(scene), cameras),
        pairs,
    )


def object_agreement(
    edited: Float[Tensor, "1 3 h w"],
    source: Float[Tensor, "1 3 h w"],
    truths: Float[Tensor, "k 1 3 h w"],
    choices: Sequence[str],
) -> Agreement:
    """What each object of a panorama shows, see `view_agreement`."""
    possible = torch.stack([pictures_of(truth[0]) for truth in truths])
    return view_agreement(pictures_of(edited[0]), pictures_of(source[0]), possible, choices)
