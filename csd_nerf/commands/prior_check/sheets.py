"""The pictures of `csd prior check`: they show what was measured, in full colours, for the eye to judge."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from csd_nerf.commands.prior_check.measure import CaptionSamples, EditSamples, HatSamples, PhotoSamples
from csd_nerf.toyworld.judging.pictures import PictureVerdict
from csd_nerf.toyworld.render import to_bytes
from csd_nerf.toyworld.training.pictures import save_grid, save_small

_EDITS, _PHOTOS, _SIDE = 4, 6, 128
"""Edits of a kind, photos, and the side in pixels that small pictures are enlarged to."""
_NO_LIMIT = 1_000_000_000


@dataclass(frozen=True)
class Sheet:
    """One picture and what it shows."""

    path: Path
    title: str

    def save_small(self, path: Path) -> None:
        """Write it again, below 400 kB, for the card."""
        with Image.open(self.path) as picture:
            save_small(path, picture.convert("RGB"))


def write_sheets(
    folder: Path, edits: Sequence[EditSamples], hats: Sequence[HatSamples], captions: CaptionSamples
) -> list[Sheet]:
    """Write edits.png, hats.png and captions.png."""
    return [_write_edits(folder, edits), _write_hats(folder, hats), _write_captions(folder, captions)]


def _write_edits(folder: Path, edits: Sequence[EditSamples]) -> Sheet:
    """A row for each kind."""
    shown = min(_EDITS, len(edits[0].instructions))
    columns = [
        to_bytes(torch.cat([getattr(one, name)[:shown] for one in edits])) for name in ("sources", "edited", "truths")
    ]
    width = 3 * (columns[0].shape[2] + 4) // 6
    said = [f"{one.kind}: {words}" for one in edits for words in one.instructions[:shown]]
    labels = ["\n".join(textwrap.wrap(words, width)[:2]) for words in said]
    path = folder / "edits.png"
    save_grid(path, columns, ["source", "sampled", "truth"], labels, per_row=shown, limit=_NO_LIMIT)
    return Sheet(path, "Held-out edits of each kind: source, sampled, truth.")


def _write_hats(folder: Path, hats: Sequence[HatSamples]) -> Sheet:
    """A row for each scene."""
    pictures = to_bytes(torch.cat([torch.cat([one.source, one.edited]) for one in hats]))
    labels = [label for one in hats for label in ("source", *(verdict.words for verdict in one.verdicts))]
    path = folder / "hats.png"
    save_grid(path, [pictures], [""], labels, per_row=len(labels) // len(hats), scale=_scale(pictures), limit=_NO_LIMIT)
    return Sheet(path, "Give it a hat: judged colours; with a question mark where the judge is not sure.")


def _write_captions(folder: Path, captions: CaptionSamples) -> Sheet:
    pictures = to_bytes(captions.drawn)
    scale = _scale(pictures)
    width = (pictures.shape[2] * scale + 8) // 6
    words = [textwrap.wrap(one.words, width)[:3] for one in captions.asked]
    right = [v.right(one.scene) for v, one in zip(captions.verdicts, captions.asked, strict=True)]
    labels = [
        "\n".join([*lines, *[""] * (3 - len(lines)), "right" if good else f"seen: {_said(verdict)}"])
        for lines, good, verdict in zip(words, right, captions.verdicts, strict=True)
    ]
    path = folder / "captions.png"
    inks = ["black" if good else "red" for good in right]
    save_grid(path, [pictures], [""], labels, per_row=10, scale=scale, inks=inks, limit=_NO_LIMIT)
    return Sheet(path, "Drawn from captions alone; in red where the judge sees something else.")


def write_photos(folder: Path, photos: Float[Tensor, "n 3 h w"], samples: Sequence[PhotoSamples]) -> Sheet:
    """Write photos.png: a row for each photo, and for each style the sampled picture and the style's own."""
    columns, names = [to_bytes(photos[:_PHOTOS])], ["photo"]
    for one in samples:
        columns += [to_bytes(one.edited[:_PHOTOS]), to_bytes(one.truths[:_PHOTOS])]
        names += [one.style.replace("_princess", ""), "truth"]
    path = folder / "photos.png"
    save_grid(path, columns, names, scale=_scale(columns[0]), limit=_NO_LIMIT)
    return Sheet(path, "Held-out photos: for each style the sampled picture, and the style's own output (truth).")


def _said(verdict: PictureVerdict) -> str:
    return "nothing" if verdict.object is None else f"{verdict.colour} {verdict.object}"


def _scale(pictures: Tensor) -> int:
    return max(1, _SIDE // pictures.shape[2])
