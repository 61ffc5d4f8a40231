"""Table, CSV and contact sheets of `csd bench generate`."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from csd_nerf.bench.generation import COMPARED, MEASURES, METHODS
from csd_nerf.bench.plan import Cell
from csd_nerf.bench.report import About
from csd_nerf.bench.results import Files, read_pictures
from csd_nerf.bench.statistics import Interval, bootstrap, by_scene, paired_difference
from csd_nerf.bench.store import Store
from csd_nerf.images.writing import contact_sheet
from csd_nerf.metrics.clip_scores import text_similarity
from csd_nerf.metrics.types import ImageTextEncoder

Results = Mapping[str, Mapping[str, Any]]
"""Results by the cells' keys; what is not done is missing."""
RECOGNISED = 0.5
"""Share of views from which an object counts as recognised."""
CLIP = ("CLIP", "CLIP depth")
"""Measured where CLIP's weights are given."""
_OBJECT = ("key", "caption", "method", "seed", "steps")
_COSTS = {"network_samples": int, "seconds": float, "processor_seconds": float, "threads": int}
_COLUMNS = [*_OBJECT, *MEASURES, *CLIP, *_COSTS]
_COMMIT = "commit"
"""The last column; tables of earlier versions do not have it, and lines that come from one leave it empty."""
_SIDES = (0, 3, 6)
"""Which views the overview shows: from the front, from behind at an angle, from the side."""


def markdown(cells: Sequence[Cell], results: Results, about: About) -> str:
    """Means over captions with 95 % bootstrap intervals, differences paired within captions, and each caption's."""
    captions = list(dict.fromkeys(cell.spec["caption"] for cell in cells))
    methods = [name for name in METHODS if any(cell.spec["method"] == name for cell in cells)]
    measures = MEASURES | {name: "higher" for name in CLIP if any(name in r["measures"] for r in results.values())}
    values = {
        (method, name): _values(cells, results, captions, method, name) for method in methods for name in measures
    }
    lines = ["# Objects from captions", ""]
    done = sum(cell.key in results for cell in cells)
    lines += [
        f"{len(captions)} captions, {done} of {len(cells)} objects. Mean and 95 % bootstrap interval over captions.",
        "",
    ]
    heading = [f"{name}{f' ({better} is better)' if better else ''}" for name, better in measures.items()]
    lines += _table(
        ["method", *heading, "recognised", "processor seconds"],
        [[method, *(_said(_interval(values[method, name])) for name in measures), *_extra(cells, results, method)]
         for method in methods],
    )  # fmt: skip
    pairs = [pair for pair in COMPARED if all(name in methods for name in pair)]
    if pairs:
        lines += ["", "Differences, paired within captions:", ""]
        rows = [
            [f"{ours} - {theirs}", *(_said(paired_difference(values[ours, m], values[theirs, m])) for m in measures)]
            for ours, theirs in pairs
        ]
        lines += _table(["", *measures], rows)
    lines += ["", "R-precision of each caption:", ""]
    single = [[caption, *(_one(cells, results, caption, method) for method in methods)] for caption in captions]
    lines += _table(["caption", *methods], single)
    lines += [
        "",
        f"Recognised: captions of which at least {RECOGNISED:.0%} of the views are nearest to renders of the right "
        "object in the right colour.",
        "",
        f"`{about.command}`, {about.commits}, {about.date}, {about.machine}. Networks in {cells[0].spec['precision']}.",
    ]
    return "\n".join(lines) + "\n"


def to_csv(cells: Sequence[Cell], results: Results, others: Sequence[Mapping[str, str]] = ()) -> str:
    """One line for each object that is done, then the lines of `others`: objects that nobody asked for this time."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [*_COLUMNS, _COMMIT], lineterminator="\n", restval="")
    writer.writeheader()
    for cell in cells:
        result = results.get(cell.key)
        if result is not None:
            numbers = {name: f"{value:.4f}" for name, value in result["measures"].items()}
            own = {name: cell.spec[name] for name in _OBJECT if name != "key"}
            spent = {name: result[name] for name in _COSTS}
            writer.writerow({"key": cell.key, **own, **numbers, **spent, _COMMIT: result.get(_COMMIT, "")})
    writer.writerows(others)
    return text.getvalue()


def from_csv(text: str) -> dict[str, dict[str, str]]:
    """The lines of such a table, by the keys of their cells. Raises `ValueError` for any other text."""
    reader = csv.DictReader(io.StringIO(text))
    if list(reader.fieldnames or ()) not in (_COLUMNS, [*_COLUMNS, _COMMIT]):
        raise ValueError("its columns are others")
    return {line["key"]: line for line in reader}


def others(table: Mapping[str, Mapping[str, str]], cells: Sequence[Cell], results: Results) -> list[Mapping[str, str]]:
    """The lines of a table that are of other objects than these cells.

    An object that is done takes the place of a line of the same one under another key: that was made with other
    weights, defaults or another precision.
    """
    names = ("caption", "method", "seed", "steps")
    asked = {cell.key for cell in cells}
    done = {tuple(str(cell.spec[name]) for name in names) for cell in cells if cell.key in results}
    return [line for key, line in table.items() if key not in asked and tuple(line[name] for name in names) not in done]


def result_of(line: Mapping[str, str]) -> dict[str, Any]:
    """A result out of a line of the table. Raises `ValueError` for a line that holds no numbers."""
    measures = {name: float(line[name]) for name in (*MEASURES, *CLIP) if line[name]}
    spent = {name: kind(line[name]) for name, kind in _COSTS.items()}
    return {"measures": measures, **spent, _COMMIT: line.get(_COMMIT, "")}


def clip_scores(encoder: ImageTextEncoder, caption: str, files: Files) -> dict[str, float]:
    """CLIP text similarity of an object's views, and of their depth (CSD Table 3)."""
    return {
        name: text_similarity(encoder, read_pictures(files, folder), caption).mean
        for name, folder in zip(CLIP, ("after", "depth"), strict=True)
    }


def sheet(cells: Sequence[Cell], store: Store, caption: str) -> Image.Image | None:
    """One caption by all methods, in colour and depth; None while nothing of it is done."""
    rows = []
    for cell in cells:
        if cell.spec["caption"] == caption and store.has(cell):
            files = store.read(cell)
            rows.append((cell.spec["method"], list(read_pictures(files, "after"))))
            rows.append(("depth", list(read_pictures(files, "depth"))))
    return contact_sheet(rows) if rows else None


def overview(cells: Sequence[Cell], store: Store) -> Image.Image | None:
    """All captions side by side, from three sides by each method; white is what is missing.

    None while nothing is done.
    """
    captions = list(dict.fromkeys(cell.spec["caption"] for cell in cells))
    first = {(cell.spec["method"], cell.spec["caption"]): cell for cell in reversed(cells) if store.has(cell)}
    rows = []
    for method in [name for name in METHODS if any(name == made for made, _ in first)]:
        views = [
            read_pictures(store.read(first[method, caption]), "after") if (method, caption) in first else None
            for caption in captions
        ]
        blank = torch.ones_like(next(pictures[0] for pictures in views if pictures is not None))
        for side in _SIDES:
            title = method if side == _SIDES[0] else ""
            rows.append((title, [blank if pictures is None else pictures[side] for pictures in views]))
    return contact_sheet(rows) if rows else None


def _values(
    cells: Sequence[Cell], results: Results, captions: Sequence[str], method: str, name: str
) -> dict[tuple[int, str, int], float]:
    found = {}
    for cell in cells:
        result = results.get(cell.key)
        if cell.spec["method"] == method and result is not None and name in result["measures"]:
            key = (captions.index(cell.spec["caption"]), "", cell.spec["seed"])
            found[key] = result["measures"][name]
    return found


def _interval(values: dict[tuple[int, str, int], float]) -> Interval | None:
    return bootstrap(list(by_scene(values).values())) if values else None


def _said(interval: Interval | None) -> str:
    if interval is None:
        return ""
    if interval.low is None or interval.high is None:
        return f"{interval.mean:.3f}"
    return f"{interval.mean:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def _extra(cells: Sequence[Cell], results: Results, method: str) -> list[str]:
    own = [results[cell.key] for cell in cells if cell.spec["method"] == method and cell.key in results]
    if not own:
        return ["", ""]
    known = sum(result["measures"]["R-precision"] >= RECOGNISED for result in own)
    return [f"{known} of {len(own)}", f"{sum(result['processor_seconds'] for result in own) / len(own):.0f}"]


def _one(cells: Sequence[Cell], results: Results, caption: str, method: str) -> str:
    own = [
        results[cell.key]["measures"]["R-precision"]
        for cell in cells
        if cell.spec["caption"] == caption and cell.spec["method"] == method and cell.key in results
    ]
    return f"{sum(own) / len(own):.2f}" if own else ""


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (heading, ["---"] * len(heading), *rows)]
