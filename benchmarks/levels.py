"""Which noise levels and guidance make CSD-Edit's scenes agree? The whole loop, with the NeRF, as `csd bench scenes`.

    python -m benchmarks.levels FOLDER [--workers 2] [--scenes 1000003 ...] [--variants ...]

Ambiguous instructions, and three that are not, on scenes that no table of results is made of, at the full budget: what
is chosen here is judged there. FOLDER keeps what is done. The table has that and what was in the results folder's
levels.json before (levels_fp32.json in that precision); it is printed, and its numbers go there.
"""

import argparse
import json
import math
import os
import platform
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch

from benchmarks.kernel import study_scenes
from csd_nerf.bench.checkout import commit
from csd_nerf.bench.compute import compute
from csd_nerf.bench.effective import digest
from csd_nerf.bench.plan import FULL, Cell, Choice, make_plan, weights_hash
from csd_nerf.bench.statistics import bootstrap
from csd_nerf.bench.store import Store

RESULTS = Path(__file__).parent / "results"
INSTRUCTIONS = ("hat", "colour", "recolour", "snow", "night")
LEVELS = {"t_min_first": None, "t_max": 0.7, "t_max_end": 0.5, "guidance_first": 1.0, "keep_detail": 0.0}
"""Of csd-edit-lite when this was asked."""
KEEPING = {**LEVELS, "guidance_scale": 2.0, "guidance_first": 2.0, "keep_detail": 0.1}
VARIANTS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "csd-edit": ("csd-edit", LEVELS),
    "random-noise": ("random-noise", LEVELS),
    "in2n": ("in2n", {"keep_detail": 0.0}),
    "in2n guidance 4": ("in2n", {"guidance_scale": 4.0, "keep_detail": 0.0}),
    "in2n keeping 0.1": ("in2n", {"keep_detail": 0.1}),
    **{
        f"csd-edit guidance 4 to {end:g} keeping 0.1{told}": (
            "csd-edit",
            {**LEVELS, "guidance_scale": end, "guidance_first": 4 / end, "keep_detail": 0.1, **lowest},
        )
        for end in (2.0, 1.0)
        for told, lowest in (("", {}), (", from 0.02", {"t_min": 0.02}))
    },
    **{
        f"csd-edit {start:g} to {end:g}": ("csd-edit", {**LEVELS, "t_max": start, "t_max_end": end})
        for start, end in ((0.85, 0.5), (0.98, 0.5), (0.98, 0.7))
    },
    "csd-edit 0.98 to 0.5 guidance 3": ("csd-edit", {**LEVELS, "t_max": 0.98, "guidance_scale": 3.0}),
    "csd-edit guidance 3": ("csd-edit", {**LEVELS, "guidance_scale": 3.0}),
    "csd-edit guidance 4": ("csd-edit", {**LEVELS, "guidance_scale": 4.0}),
    "csd-edit guidance 4 to 2": ("csd-edit", {**LEVELS, "guidance_first": 2.0}),
    "csd-edit guidance 6 to 2": ("csd-edit", {**LEVELS, "guidance_first": 3.0}),
    **{
        f"csd-edit guidance 4 to {end:g} keeping 0.1, ten decays": (
            "csd-edit",
            {**LEVELS, "guidance_scale": end, "guidance_first": 4 / end, "keep_detail": 0.1, "lr_decay_every": 2},
        )
        for end in (2.0, 1.0)
    },
    **{
        f"csd-edit guidance 4 to 2 keeping 0.1{told}": ("csd-edit", {**KEEPING, "t_min_first": 0.5, "t_max": highest})
        for told, highest in ((", 0.5 to 0.98 first", 0.98), (", 0.5 to 0.7 first", 0.7))
    },
    "csd-edit guidance 4 to 1, 0.7 to 0.5": (
        "csd-edit",
        {**LEVELS, "guidance_scale": 1.0, "guidance_first": 4.0},
    ),
    "csd-edit guidance 4 to 1.5, 0.98 to 0.5": (
        "csd-edit",
        {**LEVELS, "t_max": 0.98, "guidance_scale": 1.5, "guidance_first": 4 / 1.5},
    ),
    "csd-edit image guidance 1": ("csd-edit", {**LEVELS, "image_guidance_scale": 1.0}),
}
VARIANTS = {
    label + ", by pass" * (method != "in2n"): (method, changes) for label, (method, changes) in VARIANTS.items()
}
"""Levels and guidance fall with each pass over the views. They fell with each round before commit 8557b5a, as rows of
the results without these words have it."""
COLUMNS = ("view agreement", "views edited", "PSNR", "warp error", "edit strength", "change outside")


def cells(
    scenes: tuple[int, ...], variants: list[str], names: tuple[str, ...], precision: Any
) -> tuple[list[Cell], dict[str, list[Cell]]]:
    """What every edit needs, and the edits of each variant."""
    methods = tuple(dict.fromkeys(VARIANTS[label][0] for label in variants))
    plan = make_plan(Choice(scenes, names, methods, precision=precision), FULL)
    edits = {
        label: [
            _changed(cell, VARIANTS[label][1]) for cell in plan.edits() if cell.spec["method"] == VARIANTS[label][0]
        ]
        for label in variants
    }
    return [cell for cell in plan.cells if cell.kind != "edit"], edits


def _changed(cell: Cell, changes: Mapping[str, Any]) -> Cell:
    settings = {**cell.spec["settings"], **changes}
    return replace(cell, spec={**cell.spec, "settings": settings, "preset": digest(settings)})


def fill(folder: Path, cell: Cell, needed: list[Cell]) -> str:
    """Compute a cell that is not in the folder yet."""
    torch.set_num_threads(1)
    store = Store(folder)
    if not store.has(cell):
        store.keep(cell, compute(cell.spec, cell.where, tuple(store.read(other) for other in needed)))
    return cell.label


def main() -> None:
    """Compute what is missing, then write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--scenes", nargs="+", type=int, choices=study_scenes(), default=list(study_scenes()[:4]))
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--instructions", nargs="+", choices=INSTRUCTIONS, default=list(INSTRUCTIONS))
    parser.add_argument("--results", type=Path, default=RESULTS)
    asked = parser.parse_args()
    needed, edits = cells(tuple(asked.scenes), asked.variants, tuple(asked.instructions), asked.precision)
    by_key = {cell.key: cell for cell in needed}
    with ProcessPoolExecutor(asked.workers) as pool:
        for group in (needed, [cell for label in asked.variants for cell in edits[label]]):
            jobs = [pool.submit(fill, asked.folder, cell, [by_key[key] for key in cell.needs]) for cell in group]
            for number, job in enumerate(as_completed(jobs), 1):
                print(f"{number} of {len(jobs)}: {job.result()}", flush=True)
    report(asked.folder, asked.precision, asked.results)


def report(folder: Path, precision: Any, results: Path) -> None:
    """The table of all that is in the folder, and of what the results have from before with the same prior."""
    name = "levels.json" if precision == "bf16" else f"levels_{precision}.json"
    store, rows, written = Store(folder), {}, results / name
    about: dict[str, Any] = {"prior": weights_hash("toy"), "precision": precision}
    now = {"commit": commit(), "date": date.today().isoformat(), "torch": torch.__version__}
    if written.is_file():
        before = json.loads(written.read_text())
        if {name: before[name] for name in about} == about:
            rows = {(row["variant"], row["scene"], row["instruction"]): row for row in before["rows"]}
    for label, own in cells(study_scenes(), list(VARIANTS), INSTRUCTIONS, precision)[1].items():
        for cell in own:
            if (found := store.result(cell)) is not None:
                where = (label, cell.spec["scene"]["seed"], cell.name)
                measures = {name: found["measures"].get(name) for name in COLUMNS}
                if any(rows.get(where, {}).get(name, math.nan) != value for name, value in measures.items()):
                    rows[where] = {
                        **dict(zip(("variant", "scene", "instruction"), where, strict=True)),
                        **now,
                        **measures,
                    }
    about["machine"] = f"{platform.machine()}, {os.cpu_count()} cores"
    written.write_text(json.dumps({**about, "rows": list(rows.values())}, indent=1) + "\n")
    rows = list(rows.values())
    for name in INSTRUCTIONS:
        print(f"\n{name}\n\n| variant | scenes | " + " | ".join(COLUMNS) + " |\n" + "|---" * (2 + len(COLUMNS)) + "|")
        for label in dict.fromkeys(row["variant"] for row in rows):
            own = [row for row in rows if (row["variant"], row["instruction"]) == (label, name)]
            if own:
                shown = [_mean([row[column] for row in own]) for column in COLUMNS]
                print(f"| {label} | {len(own)} | {' | '.join(shown)} |")


def _mean(values: list[float | None]) -> str:
    """Of a column; nothing for what an instruction that leaves nothing open has not."""
    known = [value for value in values if value is not None]
    return f"{bootstrap(known).mean:.3f}" if known else ""


if __name__ == "__main__":
    main()
