"""Small pictures for the log and the card: grids of image rows, loss curves."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from csd_nerf.whole_files import write_atomically


def save_grid(
    path: Path,
    columns: list[UInt8[Tensor, "n h w 3"]],
    names: list[str],
    labels: list[str] | None = None,
    per_row: int = 1,
    scale: int = 1,
    inks: list[str] | None = None,
    limit: int = 400_000,
) -> None:
    """Draw rows of pictures (one column of `columns` beside the next), labels below, `per_row` groups side by side.

    Args:
        path: the PNG.
        columns: pictures, of one size.
        names: of the columns, shown above the first row.
        labels: text below each group; what is too long for a line is cut off, and a text may have several lines.
        per_row: groups side by side.
        scale: whole factor that pictures are enlarged by; texts are not.
        inks: colour of each label; default black.
        limit: bytes, see `save_small`.
    """
    count, height, width, _ = columns[0].shape
    height, width = height * scale, width * scale
    gap, text = 4, 12 * max(label.count("\n") + 1 for label in labels) if labels else 0
    group = len(columns) * (width + gap) + gap
    rows = -(-count // per_row)
    canvas = Image.new("RGB", (min(per_row, count) * group, 14 + rows * (height + text + gap)), "white")
    pen = ImageDraw.Draw(canvas)
    for index in range(count):
        left = (index % per_row) * group
        top = 14 + (index // per_row) * (height + text + gap)
        for position, column in enumerate(columns):
            x = left + position * (width + gap)
            picture = Image.fromarray(column[index].numpy())
            canvas.paste(picture.resize((width, height), Image.Resampling.NEAREST), (x, top))
            if index < per_row:
                pen.text((x, 1), names[position], fill="black")
        if labels:
            lines = "\n".join(line[: group // 6] for line in labels[index].split("\n"))
            pen.multiline_text((left, top + height), lines, fill=inks[index] if inks else "black", spacing=1)
    save_small(path, canvas, limit)


def save_small(path: Path, picture: Image.Image, limit: int = 400_000) -> None:
    """Write an optimised PNG of at most `limit` bytes: with 256 colours, then smaller too, where it must be."""
    write_atomically(path, lambda temporary: picture.save(temporary, optimize=True))
    shown = picture
    while path.stat().st_size > limit:
        # Without k-means small vivid things lose their colour to large dull ones.
        few = shown.quantize(256, kmeans=3)
        write_atomically(path, lambda temporary, few=few: few.save(temporary, optimize=True))
        shown = shown.resize((max(1, shown.width * 9 // 10), max(1, shown.height * 9 // 10)), Image.Resampling.LANCZOS)


def save_curve(
    path: Path, rows: list[dict[str, float | int]], columns: list[str], title: str, log_scale: bool = False
) -> None:
    """Plot columns of a log against minutes of training."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6, 3.4), dpi=90)
    for column in columns:
        points = [(row["minutes"], row[column]) for row in rows if row.get(column) is not None]
        if points:
            axis.plot(*np.array(points).T, label=column, linewidth=1.2 if column in ("train", "held_out") else 0.8)
    if log_scale:
        axis.set_yscale("log")
    axis.set_xlabel("minutes")
    axis.set_title(title)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7, ncol=2)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
    with Image.open(path) as picture:
        save_small(path, picture.convert("RGB"), limit=200_000)
