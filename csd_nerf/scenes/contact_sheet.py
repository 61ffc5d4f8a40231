"""One picture of a round: for each view its original, its render before the round, and its edit."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

COLUMNS = ("original", "render", "edited")


def to_uint8(picture: Float[Tensor, "3 h w"]) -> UInt8[Tensor, "h w 3"]:
    """8 bit of a picture in [0, 1]."""
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu()


def contact_sheet(
    views: Sequence[int],
    originals: Sequence[Float[Tensor, "3 _h _w"]],
    renders: Sequence[Float[Tensor, "3 _h _w"]],
    edited: Sequence[Float[Tensor, "3 _h _w"]],
    *,
    blocks: int = 2,
    thumbnail: int = 96,
) -> UInt8[Tensor, "H W 3"]:
    """Lay the views of a round out, three thumbnails a view, `thumbnail` pixels high, in at most `blocks` columns."""
    rows = [
        [_thumbnail(picture, thumbnail) for picture in triple]
        for triple in zip(originals, renders, edited, strict=True)
    ]
    cell = max(image.width for row in rows for image in row)
    blocks = blocks if len(rows) > 4 else 1
    lines = math.ceil(len(rows) / blocks)
    gap, heading, label = 8, 16, 28
    block_width = label + 3 * (cell + 2) + gap
    sheet = Image.new("RGB", (blocks * block_width, heading + lines * (thumbnail + 2)), "white")
    draw = ImageDraw.Draw(sheet)
    for block in range(blocks):
        for column, name in enumerate(COLUMNS):
            draw.text((block * block_width + label + column * (cell + 2), 2), name, fill="black")
    for index, (view, row) in enumerate(zip(views, rows, strict=True)):
        block, line = divmod(index, lines)
        x, y = block * block_width, heading + line * (thumbnail + 2)
        draw.text((x + 2, y + 2), str(view), fill="black")
        for column, image in enumerate(row):
            sheet.paste(image, (x + label + column * (cell + 2), y))
    return torch.from_numpy(np.array(sheet))


def _thumbnail(picture: Float[Tensor, "3 h w"], height: int) -> Image.Image:
    image = Image.fromarray(to_uint8(picture).numpy())
    width = max(1, round(image.width * height / image.height))
    return image.resize((width, height), Image.Resampling.LANCZOS)
