"""What csd-edit-lite makes of the demo scene under several instructions, as one picture.

    python -m benchmarks.gallery FOLDER      # about three minutes a run; writes benchmarks/results/gallery.png

FOLDER keeps the runs; those that are there already are not run again.
"""

import sys
from pathlib import Path

import av
import torch
from torch import Tensor

from csd_nerf.commands.demo import run_demo
from csd_nerf.images.writing import contact_sheet
from csd_nerf.whole_files import write_atomically

RESULTS = Path(__file__).parent / "results"
PROMPTS = (
    "give it a hat",
    "make it blue",
    "make it metal",
    "make it snow",
    "make it night",
    "turn it into a pencil sketch",
    "turn it into pop art",
)
SHOWN = (0, 9, 27, 45, 63)
"""Frames of the orbit, which has 72."""


def frames(video: Path) -> list[Tensor]:
    """The shown frames, (3 h w) in [0, 1]."""
    with av.open(str(video)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return [torch.from_numpy(pictures[index]).permute(2, 0, 1) / 255 for index in SHOWN]


def main(folder: Path) -> None:
    """Run what is missing, then draw the sheet."""
    rows = []
    for prompt in PROMPTS:
        output = folder / prompt.replace(" ", "_")
        if not (output / "metrics.json").is_file():
            run_demo(None, prompt, output)
        rows = rows or [("NeRF before", frames(output / "before.mp4"))]
        rows.append((prompt, frames(output / "after.mp4")))
    sheet = contact_sheet(rows)
    sheet.thumbnail((1000, 4000))
    write_atomically(RESULTS / "gallery.png", lambda path: sheet.save(path, optimize=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
