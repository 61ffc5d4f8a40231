"""`csd bench` run again: what a wider run has written is neither lost nor replaced by a narrower one."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from csd_nerf.bench import generation_report
from csd_nerf.bench.generation import make_cells
from csd_nerf.bench.plan import Cell
from csd_nerf.bench.results import RESULT, picture_files
from csd_nerf.cli import main
from tests.bench.cells import HERE, TINY, add_pictures, plan_of, store_in
from tests.bench.test_report import fill

FIRST, SECOND = 1_000_000, 1_000_001
Run = Callable[..., int]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command on scenes of which every cell is done; reports go to `out`."""
    monkeypatch.setattr("csd_nerf.bench.plan.QUICK", TINY)
    monkeypatch.setattr(sys, "argv", ["csd", "bench"])
    plan, store = plan_of(scenes=2), store_in(tmp_path)
    fill(plan, store)
    add_pictures(plan, store)
    fill(plan_of(scenes=2, guidance=(1.0, 4.0)), store)
    flags = ["bench", "scenes", "--quick", "--instructions", "recolour", "hat", "--output", str(tmp_path / "out")]
    flags += ["--work", str(store.folder), "--scenes"]

    def called(*scenes: int, sweep: tuple[float, ...] = ()) -> int:
        more = ["--methods", *(name for name in HERE if not sweep or name != "unedited")]
        more += ["--sweep", *map(str, sweep)] if sweep else []
        return main([*flags, *map(str, scenes), *more])

    return called


def test_a_narrower_run_leaves_page_and_sheets_alone(tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out"
    assert run(FIRST, SECOND) == 0
    page, table = (out / "scenes.md").read_text(), (out / "scenes.csv").read_text()
    assert "2 scenes that" in page and "not replaced" not in capsys.readouterr().err
    (out / f"scene_{FIRST}.png").write_bytes(b"wide")
    (out / f"scene_{SECOND}.png").unlink()
    assert run(FIRST) == 0
    said = capsys.readouterr()
    assert "1 scene that" in said.out, "it is printed"
    assert "scenes.csv also holds 8 finished lines that this run does not ask for" in said.err
    assert "ask for all of it, give another --output, or remove scenes.csv" in said.err
    assert (out / "scenes.md").read_text() == page and (out / "scenes.csv").read_text() == table
    assert (out / f"scene_{FIRST}.png").read_bytes() == b"wide" and not (out / f"scene_{SECOND}.png").exists()
    assert run(SECOND) == 0
    assert (out / f"scene_{SECOND}.png").is_file(), "there was none that it could replace"
    (out / "scenes.md").write_text("old")
    assert run(FIRST, SECOND) == 0
    assert (out / "scenes.md").read_text() == page and (out / f"scene_{FIRST}.png").read_bytes() != b"wide"


def test_edits_that_were_made_with_something_else_are_replaced(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
):
    """Such as in another precision, with which a table came."""
    out = tmp_path / "out"
    assert run(FIRST, SECOND) == 0
    page, table = (out / "scenes.md").read_text(), (out / "scenes.csv").read_text()
    other = table
    for cell in plan_of(scenes=2).edits():
        other = other.replace(cell.key, cell.key[::-1])
    (out / "scenes.csv").write_text(other)
    (out / "scenes.md").write_text("old")
    assert run(FIRST) == 0
    assert "scenes.csv also holds 8 finished lines" in capsys.readouterr().err, "those of the other scene"
    assert (out / "scenes.md").read_text() == "old"
    assert run(FIRST, SECOND) == 0
    assert (out / "scenes.csv").read_text() == table and (out / "scenes.md").read_text() == page


def test_what_a_table_has_is_computed_again_if_asked_for(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert run(FIRST) == 0
    asked: list[int] = []
    monkeypatch.setattr("csd_nerf.commands.bench.sit", lambda cells, *_: asked.append(len(cells)) or 0)
    elsewhere = ["bench", "scenes", "--quick", "--instructions", "recolour", "hat", "--scenes", str(FIRST)]
    elsewhere += ["--methods", *HERE, "--output", str(tmp_path / "out"), "--work", str(tmp_path / "new")]
    assert main(elsewhere) == 0 and main([*elsewhere, "--fresh"]) == 0
    assert asked == [0, len(plan_of(scenes=1).cells)]
    assert capsys.readouterr().err.count("8 edits are taken from the table in") == 1


def test_a_truth_that_was_deleted_costs_no_report(tmp_path: Path, run: Run):
    out, sheet = tmp_path / "out", tmp_path / f"out/scene_{FIRST}.png"
    assert run(FIRST) == 0
    sheet.write_bytes(b"whole")
    plan, store = plan_of(scenes=2), store_in(tmp_path)
    edits = (cell for cell in plan.edits() if cell.name == "recolour" and cell.spec["scene"]["seed"] == FIRST)
    shutil.rmtree(store.folder / "cells" / next(edits).needs[1])
    page = (out / "scenes.md").read_text()
    assert run(FIRST) == 0
    assert (out / "scenes.md").read_text() == page, "numbers need no pictures"
    assert sheet.read_bytes() == b"whole", "a sheet without the instruction would show less"
    sheet.unlink()
    assert run(FIRST) == 0 and sheet.is_file()


def test_a_narrower_sweep_leaves_the_curves_alone(tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]):
    curves = tmp_path / "out/sweep.png"
    assert run(FIRST, SECOND, sweep=(1.0, 4.0)) == 0
    assert curves.is_file()
    curves.write_bytes(b"wide")
    assert run(FIRST, SECOND, sweep=(4.0,)) == 0
    assert curves.read_bytes() == b"wide" and "sweep.csv also holds 12 finished lines" in capsys.readouterr().err
    assert run(FIRST, SECOND, sweep=(1.0, 4.0)) == 0
    assert curves.read_bytes() != b"wide"


def objects(*methods: str) -> list[Cell]:
    return make_cells(["a red car", "a blue snowman"], methods, (0,), quick=True, prior="toy", precision="auto")


def test_fewer_objects_leave_page_and_sheets_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    import json

    import torch

    store, out = store_in(tmp_path), tmp_path / "out"
    names = ("R-precision", "object", "warp error", "saturation", "sharpness", "coverage")
    costs = {"network_samples": 8, "seconds": 2.0, "processor_seconds": 1.0, "threads": 1}
    views = torch.rand(8, 3, 8, 8)
    for cell in objects("csd", "sds"):
        result = {RESULT: json.dumps({"measures": dict.fromkeys(names, 0.5), **costs}).encode()}
        store.keep(cell, result | picture_files("after", views) | picture_files("depth", views))
    flags = ["bench", "generate", "--quick", "--output", str(out), "--work", str(store.folder), "--instructions"]
    wide = [*flags, "a red car", "a blue snowman", "--methods", "csd", "sds"]
    assert main(wide) == 0
    kept = ("generate.md", "overview.jpg", "a_red_car.jpg")
    for name in kept:
        (out / name).write_bytes(b"wide")
    (out / "a_blue_snowman.jpg").unlink()
    assert main([*flags, "a red car", "a blue snowman", "--methods", "csd"]) == 0
    said = capsys.readouterr()
    assert "generate.csv also holds 2 finished lines" in said.err and "2 captions, 2 of 2 objects" in said.out
    assert all((out / name).read_bytes() == b"wide" for name in kept)
    assert (out / "a_blue_snowman.jpg").is_file(), "there was none that it could replace"
    assert len(generation_report.from_csv((out / "generate.csv").read_text())) == 4
    assert main(wide) == 0
    assert not any((out / name).read_bytes() == b"wide" for name in kept)
