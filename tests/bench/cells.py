"""What the tests of the benchmark share: cells that cost nothing, in a module that worker processes can import."""

import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from csd_nerf.bench.compute import compute
from csd_nerf.bench.methods import Budget
from csd_nerf.bench.plan import Cell, Choice, Plan, Protocol, make_plan
from csd_nerf.bench.results import RESULT, picture_files, read_truths
from csd_nerf.bench.store import Store

TINY = Protocol(2, Budget(nerf_steps=2, samples_per_view=20, rounds=2, batch=4, views=4), held_out=3, size=32)
Inputs = tuple[Mapping[str, bytes], ...]
HERE = ("unedited", "csd-edit", "no-svgd", "sds")
"""A few methods."""


def cells(count: int = 2) -> list[Cell]:
    """`count` scenes, an edit of each, all of them fake."""
    made = []
    for index in range(count):
        base = Cell({"kind": "scene", "number": index}, label=f"scene {index}")
        made += [base, Cell({"kind": "edit", "method": "a", "number": index}, (base.key,), label=f"edit {index}")]
    return made


def plan_of(*, scenes: int = 3, seeds: tuple[int, ...] = (0,), guidance: tuple[float | None, ...] = (None,)) -> Plan:
    """A real plan of recolouring and hats."""
    chosen = tuple(range(1_000_000, 1_000_000 + scenes))
    return make_plan(Choice(chosen, ("recolour", "hat"), HERE, seeds, guidance), TINY)


def fake(spec: Mapping[str, Any], where: Mapping[str, Any], inputs: Inputs) -> dict[str, bytes]:
    """Says what it was given, and by whom."""
    given = [json.loads(files[RESULT])["number"] for files in inputs]
    result = {
        "seconds": 0.1,
        "number": spec["number"],
        "given": given,
        "process": os.getpid(),
        "threads": torch.get_num_threads(),
    }
    return {RESULT: json.dumps(result).encode(), "folder/picture.png": b"picture"}


def slow(spec: Mapping[str, Any], where: Mapping[str, Any], inputs: Inputs) -> dict[str, bytes]:
    """Long enough for two of them to meet."""
    time.sleep(0.3)
    return fake(spec, where, inputs)


def broken(spec: Mapping[str, Any], where: Mapping[str, Any], inputs: Inputs) -> dict[str, bytes]:
    """Scene 0 is an error, the edit of scene 1 ends its process, and what is left succeeds."""
    if (spec["kind"], spec["number"]) == ("scene", 0):
        raise SystemExit("csd-edit: no such thing\n  - not here either")
    if (spec["kind"], spec["number"]) == ("edit", 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return fake(spec, where, inputs)


def result(**measures: float | None) -> dict[str, bytes]:
    """The files of an edit with these measures."""
    content = {
        "seconds": 1.0,
        "nerf_seconds": 2.0,
        "edit_seconds": 3.0,
        "network_samples": 80,
        "threads": 1,
        "rounds": 2,
        "nearest": 0,
        "meaning": "red",
        "measures": measures,
    }
    return {RESULT: json.dumps(content).encode()}


def store_in(folder: Path) -> Store:
    """An empty store."""
    return Store(folder / "work")


def add_pictures(plan: Plan, store: Store) -> None:
    """Give the edits that are done the pictures of true edits, and compute these."""
    for cell in plan.cells:
        if cell.kind == "truth" and not store.has(cell):
            store.keep(cell, compute(cell.spec, {}, ()))
    for cell in filter(store.has, plan.edits()):
        truth = next(one for one in plan.cells if one.key == cell.needs[1])
        place = store.folder / "cells" / cell.key
        for name, content in picture_files("after", read_truths(store.read(truth))[0][0]).items():
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_bytes(content)
