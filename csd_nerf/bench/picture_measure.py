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
_SMOOTH = 0.03


def seam_visibility(
    change: Float[Tensor, "3 h w"], true_change: Float[Tensor, "3 h w"], patch: int = PICTURE, gap: int = 4
) -> float | None:
    """How much an edit's change jumps at the borders of side-by-side patches, relative to beside them.

    With D the change (edited picture less unedited one), its jump in row y at column b is

        J(y, b) = mean over channels c of |mean_{i < gap} D_c(y, b + i) - mean_{i < gap} D_c(y, b - 1 - i)|:

    means over `gap` pixels, because the decoder spreads a jump of latents over a few pixels. Then

        seam visibility = (mean of J(y, b) + l) / (mean over b' in N(b) of J(y, b') + l),   both means over (b, y) in S,

    where N(b) are the columns at a distance of 2 gap to 4 gap from the border b, so that what is compared shows much
    the same things, and S are the borders (multiples of `patch` inside the picture) and rows where the *true* change
    is smooth: its J is below 0.03 from b - 4 gap to b + 4 gap. Edges of objects, where any edit must jump, would hide a
    seam. Borders between patches one above the other count in the same way, with the axes exchanged. l is one level of
    8 bit: jumps below it cannot be seen, and a change that is nowhere scores 1. 1 is invisible, as is anything below;
    steps at the borders of a change that is otherwise linear, with slope s per pixel, score about step / (gap s).

    Args:
        change: difference of sRGB pictures, -1..1.
        true_change: that which the true edit makes.
        patch: side of the patches, pixels.
        gap: pixels on either side, a latent pixel of the prior or more.

    Returns:
        None where the true change is smooth at no border.

    Raises:
        ValueError: no border lies in the picture.
    """
    at, beside, count = [], [], 0
    for own, true in ((change, true_change), (change.transpose(1, 2), true_change.transpose(1, 2))):
        jumps, true_jumps = _jumps(own, gap), _jumps(true, gap)
        places = torch.arange(jumps.shape[1]) + gap
        for border in range(patch, own.shape[-1] - gap + 1, patch):
            count += 1
            apart = (places - border).abs()
            smooth = (true_jumps[:, apart <= 4 * gap] < _SMOOTH).all(dim=1)
            at.append(jumps[smooth, border - gap])
            beside.append(jumps[smooth][:, (apart >= 2 * gap) & (apart <= 4 * gap)].mean(dim=1))
    if not count:
        raise ValueError(f"a picture of {change.shape[-1]} x {change.shape[-2]} has no border of {patch}-pixel patches")
    if not sum(len(rows) for rows in at):
        return None
    jump, around = (torch.cat(found).mean() + _LEVEL for found in (at, beside))
    return float(jump / around)


def _jumps(change: Float[Tensor, "c h w"], gap: int) -> Float[Tensor, "h m"]:
    """J at columns gap .. w - gap."""
    means = change.unfold(-1, gap, 1).mean(dim=-1)
    return (means[..., gap:] - means[..., :-gap]).abs().mean(dim=0)


def measure_panorama(
    edited: Float[Tensor, "1 3 h w"],
    unedited: Float[Tensor, "1 3 h w"],
    source: Float[Tensor, "1 3 h w"],
    truths: Float[Tensor, "k 1 3 h w"],
) -> Measured:
    """Those of `measure` on the whole picture, and `seam visibility`, with that of the true edit."""
    found = measure(edited, unedited, source, truths)
    true = (truths[found.nearest] - source)[0]
    seams = {
        "seam visibility": seam_visibility((edited - unedited)[0], true),
        "true seam visibility": seam_visibility(true, true),
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
