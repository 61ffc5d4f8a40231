"""A contact sheet for each scene: source, true edit, and every method, from views that no training saw."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from csd_nerf.bench.methods import REFERENCE
from csd_nerf.bench.plan import Cell, Plan
from csd_nerf.bench.results import read_pictures, read_truths
from csd_nerf.bench.rows import Row
from csd_nerf.bench.store import Store
from csd_nerf.images.writing import contact_sheet

_VIEWS, _SCALE, _GAP = 4, 2, 24
_WHITE, _INK = (255, 255, 255), (30, 30, 30)


def scene_sheet(plan: Plan, store: Store, rows: Sequence[Row], scene: int) -> Image.Image | None:
    """Blocks of pictures, one for each instruction, two side by side; None while no cell has its own and the truth's.

    Of several seeds the first is shown. The true edit of an ambiguous instruction is that nearest to csd-edit's result
    (or to that of the first method there is); what the others came nearest to stands in their labels.
    """
    own = [row for row in rows if row.key[0] == scene and _has_pictures(plan, store, row)]
    blocks = []
    for name in dict.fromkeys(row.cell.name for row in own):
        asked = [row for row in own if row.cell.name == name]
        blocks.append(_block(plan, store, asked))
    return _tiled(blocks) if blocks else None


def has_all(plan: Plan, store: Store, rows: Sequence[Row], scene: int) -> bool:
    """Whether the pictures of all known results of a scene are there; from an earlier table, there are only numbers."""
    return all(_has_pictures(plan, store, row) for row in rows if row.key[0] == scene and row.result is not None)


def _has_pictures(plan: Plan, store: Store, row: Row) -> bool:
    return store.has(row.cell) and store.has(_truth(plan, row))


def _truth(plan: Plan, row: Row) -> Cell:
    return next(cell for cell in plan.cells if cell.key == row.cell.needs[1])


def _block(plan: Plan, store: Store, rows: Sequence[Row]) -> tuple[str, Image.Image]:
    """One instruction: its text and its pictures."""
    by_method: dict[str, Row] = {}
    for row in rows:
        by_method.setdefault(row.method, row)
    shown = by_method.get(REFERENCE) or rows[0]
    truths, source = read_truths(store.read(_truth(plan, shown)))
    assert shown.result is not None
    ambiguous = shown.cell.spec["ambiguous"]
    pictures: list[tuple[str, Sequence[Tensor]]] = [("source", _chosen(source))]
    true_title = f"nearest\ntrue edit:\n{shown.result['meaning']}" if ambiguous else "true edit"
    pictures.append((true_title, _chosen(truths[shown.result["nearest"]])))
    for method in plan.subject.methods:
        row = by_method.get(method)
        if row is None or row.result is None:
            continue
        psnr = row.result["measures"]["PSNR"]
        title = f"{method}\n{psnr:.1f} dB" + (f"\n{row.result['meaning']}" if ambiguous else "")
        pictures.append((title, _chosen(read_pictures(store.read(row.cell), "after"))))
    return f'"{shown.cell.spec["instruction"]}"', contact_sheet(pictures, scale=_scale(source))


def _chosen(images: Tensor) -> list[Tensor]:
    """Every other view, so that a few of them see all sides."""
    step = max(1, len(images) // _VIEWS)
    return list(images[::step][:_VIEWS])


def _scale(images: Tensor) -> int:
    return max(1, round(64 * _SCALE / min(images.shape[-2:])))


def _tiled(blocks: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Titled blocks, two side by side."""
    font = ImageFont.load_default(size=22)
    columns = min(2, len(blocks))
    width = max(block.width for _, block in blocks) + _GAP
    lines = [blocks[i : i + columns] for i in range(0, len(blocks), columns)]
    heights = [max(block.height for _, block in line) + 2 * _GAP for line in lines]
    sheet = Image.new("RGB", (columns * width, sum(heights)), _WHITE)
    draw = ImageDraw.Draw(sheet)
    top = 0
    for line, height in zip(lines, heights, strict=True):
        for column, (title, block) in enumerate(line):
            draw.text((column * width + 6, top + 8), title, fill=_INK, font=font)
            sheet.paste(block, (column * width, top + 2 * _GAP - 8))
        top += height
    return sheet
