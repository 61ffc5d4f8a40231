"""One picture of a round or a pass: for each view its original, its render before the round, and its edit."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

COLUMNS = ("original", "render", "edited")


def to_uint8(picture: Float[Tensor, "3 h w"]) -> UInt8[Tensor, "h w 3"]:
    """8 bit of a picture in [0, 1]."""
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu()


THUMBNAIL = 96
"""Height of a thumbnail in pixels."""


@dataclass(frozen=True)
class ViewRow:
    """What is shown of a view."""

    view: int
    """Its number in the training set."""
    thumbnails: tuple[Image.Image, ...]
    """One for each column."""


def view_rows(
    views: Sequence[int],
    originals: Sequence[Float[Tensor, "3 _h _w"]],
    renders: Sequence[Float[Tensor, "3 _h _w"]],
    edited: Sequence[Float[Tensor, "3 _h _w"]],
) -> list[ViewRow]:
    """The rows of a round."""
    columns = zip(views, originals, renders, edited, strict=True)
    return [ViewRow(view, tuple(_thumbnail(picture, THUMBNAIL) for picture in triple)) for view, *triple in columns]


def contact_sheet(rows: Sequence[ViewRow], *, blocks: int = 2) -> UInt8[Tensor, "H W 3"]:
    """Lay views out, three thumbnails each, in at most `blocks` columns; one column for a handful of views."""
    cell = max(image.width for row in rows for image in row.thumbnails)
    blocks = blocks if len(rows) > 4 else 1
    lines = math.ceil(len(rows) / blocks)
    gap, heading, label = 8, 16, 28
    block_width = label + 3 * (cell + 2) + gap
    sheet = Image.new("RGB", (blocks * block_width, heading + lines * (THUMBNAIL + 2)), "white")
    draw = ImageDraw.Draw(sheet)
    for block in range(blocks):
        for column, name in enumerate(COLUMNS):
            draw.text((block * block_width + label + column * (cell + 2), 2), name, fill="black")
    for index, row in enumerate(rows):
        block, line = divmod(index, lines)
        x, y = block * block_width, heading + line * (THUMBNAIL + 2)
        draw.text((x + 2, y + 2), str(row.view), fill="black")
        for column, image in enumerate(row.thumbnails):
            sheet.paste(image, (x + label + column * (cell + 2), y))
    return torch.from_numpy(np.array(sheet))


def _thumbnail(picture: Float[Tensor, "3 h w"], height: int) -> Image.Image:
    image = Image.fromarray(to_uint8(picture).numpy())
    width = max(1, round(image.width * height / image.height))
    return image.resize((width, height), Image.Resampling.LANCZOS)
