"""Tables, CSV, sheets and curves of results that are known."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csd_nerf.bench import report, sheets, sweep
from csd_nerf.bench.about import about_this_run
from csd_nerf.bench.plan import QUICK, Choice, Plan, make_plan
from csd_nerf.bench.rows import rows_of
from csd_nerf.bench.schedule import missing
from csd_nerf.bench.store import Store
from tests.bench.cells import HERE, TINY, add_pictures, plan_of, result, store_in

ABOUT = report.About("csd bench scenes", "commit abc1234", "2026-01-02", "a machine")
PSNR = {"unedited": 20.0, "csd-edit": 25.0, "no-svgd": 24.0, "sds": 22.0, "dds": 21.0, "in2n": 23.0}


def fill(plan: Plan, store: Store, leave_out: int = 0) -> None:
    """Scene number i scores i dB more; a hat's colour spreads less the better the method."""
    for cell in plan.edits()[: len(plan.edits()) - leave_out]:
        spec = cell.spec
        psnr = PSNR[spec["method"]] + spec["scene"]["seed"] - 1_000_000 + (spec["guidance"] or 0)
        measures: dict[str, float | None] = {"PSNR": psnr, "ST-LPIPS": 0.5, "edit strength": 0.75}
        measures["change outside"] = None if spec["ambiguous"] else 0.0125
        if spec["ambiguous"]:
            measures |= {"colour spread": 1 / psnr, "true colour spread": 0.02, "warp error": 0.1}
            measures |= {"true warp error": 0.05, "view agreement": psnr / 100}
        store.keep(cell, result(**measures))


def table(page: str, title: str, which: int = 0) -> dict[str, list[str]]:
    """Cells of a table by the row's first one."""
    lines = page.split(f"## {title}")[1].split("\n## ")[0].split("\n\n")
    tables = [block for block in lines if block.startswith("|")]
    rows = [[one.strip() for one in line.strip("|").split("|")] for line in tables[which].splitlines()]
    return {row[0]: row[1:] for row in rows}


def test_the_page_says_what_was_found(tmp_path: Path):
    plan, store = plan_of(), store_in(tmp_path)
    fill(plan, store)
    page = report.markdown(plan, rows_of(plan, store), ABOUT, {})
    for said in ("`csd bench scenes`", "commit abc1234", "2026-01-02", "a machine", plan.prior, "too narrow"):
        assert said in page
    assert "missing" not in page and 'hat: "give it a hat"' in page
    found = table(page, "Deterministic")
    assert found["method"] == [
        "PSNR ↑",
        "ST-LPIPS ↓",
        "change outside ↓",
        "edit strength (1)",
        "samples per view",
        "seconds",
        "cells",
    ]
    assert list(found)[2:] == ["unedited", "csd-edit", "no-svgd", "sds"]
    assert found["csd-edit"][0] == "26.00 (25.00 to 27.00)" and found["csd-edit"][4:] == ["20", "5", "3/3"]
    difference = table(page, "Deterministic", 1)
    assert difference["sds"][0] == "-3.00 (-3.00 to -3.00)" and "csd-edit" not in difference
    hats = table(page, "Ambiguous")
    assert hats["method"][:2] == ["view agreement ↑", "colour spread ↓"] and "change outside ↓" not in hats["method"]
    assert hats["*the true edit nearest to csd-edit*"][1:3] == ["0.020", "0.050"]
    assert "**ST-LPIPS**" in page and "stands in for LPIPS" in page


def test_missing_cells_are_counted_and_explained(tmp_path: Path):
    plan, store = plan_of(scenes=2), store_in(tmp_path)
    fill(plan, store, leave_out=2)
    last = plan.edits()[-1]
    stack = 'Traceback (most recent call last):\n  File "a.py", line 1, in b\n    c()\n'
    store.keep_failure(last, f"{stack}SceneError: no luck\n  - of this kind")
    rows = rows_of(plan, store)
    page = report.markdown(plan, rows, ABOUT, {last.key: store.failure(last) or ""})
    assert "**2 of 16 cells are missing**" in page and f"- {last.label}: SceneError: no luck\n" in page
    assert table(page, "Ambiguous")["sds"][-1] == "1/2"
    assert "(" not in table(page, "Ambiguous", 1)["sds"][0], "one common scene has no interval"
    store.keep_failure(last, "its process ended with signal 9")
    page = report.markdown(plan, rows, ABOUT, {last.key: store.failure(last) or ""})
    assert f"- {last.label}: its process ended with signal 9\n" in page
    empty = report.markdown(plan, rows_of(plan, Store(tmp_path / "none")), ABOUT, {})
    assert "**16 of 16 cells are missing**" in empty and "- and 4 more" in empty


def test_the_unedited_scene_is_compared_at_every_seed(tmp_path: Path):
    plan, store = plan_of(scenes=2, seeds=(3, 4)), store_in(tmp_path)
    fill(plan, store)
    page = report.markdown(plan, rows_of(plan, store), ABOUT, {})
    assert table(page, "Deterministic", 1)["unedited"][0] == "-5.00 (-5.00 to -5.00)"
    assert table(page, "Deterministic")["unedited"][-1] == "2/2"
    assert table(page, "Deterministic")["csd-edit"][-1] == "4/4"


def test_csv_has_every_cell(tmp_path: Path):
    plan, store = plan_of(scenes=1), store_in(tmp_path)
    fill(plan, store, leave_out=1)
    lines = list(csv.DictReader(io.StringIO(report.to_csv(rows_of(plan, store)))))
    assert len(lines) == 8 and {line["method"] for line in lines} == set(HERE)
    assert lines[1]["PSNR"] == "25.0" and lines[1]["colour spread"] == "" and lines[1]["text"].startswith("make it ")
    assert lines[-1]["PSNR"] == "" and lines[-1]["key"] == plan.edits()[-1].key


def test_a_sheet_shows_each_instruction(tmp_path: Path):
    plan, store = plan_of(scenes=1), store_in(tmp_path)
    assert sheets.scene_sheet(plan, store, rows_of(plan, store), 1_000_000) is None
    fill(plan, store)
    add_pictures(plan, store)
    sheet = sheets.scene_sheet(plan, store, rows_of(plan, store), 1_000_000)
    assert sheet is not None
    assert sheet.width > 2 * 3 * 128 and sheet.height > 6 * 128, "two blocks of three views, six rows"


def test_scenes_that_were_not_reconstructed_are_named_and_left_out_once(tmp_path: Path):
    plan, store = plan_of(), store_in(tmp_path)
    fill(plan, store)
    bases = [cell for cell in plan.cells if cell.kind == "scene"]
    for cell, psnr in zip(bases, (25.0, 19.9, 20.0), strict=True):
        content = json.dumps({"PSNR to the photos": psnr, "seconds": 1.0}).encode()
        store.keep(cell, {"result.json": content})
    for cell in plan.edits():  # the scene that was not found is the only one where sds is ahead
        if cell.spec["scene"]["seed"] == 1_000_001 and cell.spec["method"] == "sds":
            place = store.folder / "cells" / cell.key / "result.json"
            known = json.loads(place.read_text())
            known["measures"]["PSNR"] += 9
            place.write_text(json.dumps(known))
    rows = rows_of(plan, store)
    page = report.markdown(plan, rows, ABOUT, {})
    assert "25.0 (1000000), 19.9 (1000001), 20.0 (1000002) dB" in page
    assert "**Not reconstructed** (below 20 dB): 1000001." in page and "Without 1000001:" in page
    assert table(page, "Deterministic", 1)["sds"][0] == "+0.00 (-3.00 to +6.00)"
    assert table(page, "Deterministic", 2)["sds"][0] == "-3.00 (-3.00 to -3.00)"
    again = rows_of(plan, store_in(tmp_path / "elsewhere"), report.from_csv(report.to_csv(rows)))
    assert report.markdown(plan, again, ABOUT, {}) == page, "a table knows its scenes"


def test_a_curve_has_a_point_for_each_scale(tmp_path: Path):
    plan, store = plan_of(scenes=2, guidance=(1.0, 4.0)), store_in(tmp_path)
    rows = rows_of(plan, store)
    with pytest.raises(ValueError, match="no cell of the sweep"):
        sweep.plot(rows, tmp_path / "sweep.png")
    fill(plan, store)
    rows = rows_of(plan, store)
    hats = [row for row in rows if row.cell.spec["ambiguous"]]
    points = sweep.curve(hats, "csd-edit", "view agreement")
    assert [scale for scale, _, _ in points] == [1.0, 4.0]
    assert [y for _, _, y in points] == [26.5, 29.5]
    assert points[0][1] == pytest.approx(np.mean([0.26, 0.27]))
    sweep.plot(rows, tmp_path / "sweep.png")
    assert Image.open(tmp_path / "sweep.png").size[0] > 1000


def test_a_table_gives_back_the_results_that_it_was_made_of(tmp_path: Path):
    plan, store = plan_of(), store_in(tmp_path)
    fill(plan, store, leave_out=2)
    rows = rows_of(plan, store)
    table = report.from_csv(report.to_csv(rows))
    assert len(table) == len(plan.edits()) - 2
    again = rows_of(plan, store_in(tmp_path / "elsewhere"), table)
    assert report.to_csv(again) == report.to_csv(rows)
    page = report.markdown(plan, rows, ABOUT, {})
    assert report.markdown(plan, again, ABOUT, {}) == page and "2 of 24 cells are missing" in page
    with pytest.raises(ValueError, match="columns"):
        report.from_csv("a,b\n1,2\n")


def test_an_earlier_table_keeps_what_nobody_asks_for(tmp_path: Path):
    """A table of one scene, written over one of three, loses none of the others' lines nor of their measures."""
    plan, store = plan_of(), store_in(tmp_path)
    fill(plan, store, leave_out=1)
    text = report.to_csv(rows_of(plan, store))
    fewer = plan_of(scenes=1)
    assert {cell.key for cell in fewer.edits()} < {cell.key for cell in plan.edits()}
    again = report.to_csv(rows_of(fewer, store), earlier=text)
    assert report.from_csv(again) == report.from_csv(text)
    assert len(again.splitlines()) == len(text.splitlines()) - 1, "but the line of the cell that is missing"
    assert report.to_csv(rows_of(plan, store), earlier=again) == text, "in the plan's order, each once"


def test_what_the_table_has_is_not_computed_again_nor_what_only_it_needed(tmp_path: Path):
    plan, store = plan_of(scenes=2), store_in(tmp_path)
    fill(plan, store, leave_out=1)
    table = report.from_csv(report.to_csv(rows_of(plan, store)))
    left = missing(plan.cells, store_in(tmp_path / "elsewhere"), table)
    last = plan.edits()[-1]
    assert [cell.key for cell in left] == [*sorted(last.needs, key=[c.key for c in plan.cells].index), last.key]
    assert missing(plan.cells, store_in(tmp_path / "elsewhere")) == list(plan.cells)


def test_a_sheet_needs_the_pictures_not_only_the_numbers(tmp_path: Path):
    plan, store = plan_of(scenes=1), store_in(tmp_path)
    fill(plan, store)
    rows = rows_of(plan, store)
    assert not sheets.has_all(plan, store, rows, 1_000_000), "there are no true ones"
    add_pictures(plan, store)
    assert sheets.has_all(plan, store, rows, 1_000_000)
    elsewhere = store_in(tmp_path / "elsewhere")
    rows = rows_of(plan, elsewhere, report.from_csv(report.to_csv(rows)))
    assert not sheets.has_all(plan, elsewhere, rows, 1_000_000)
    assert sheets.scene_sheet(plan, elsewhere, rows, 1_000_000) is None


def test_a_table_keeps_the_commit_of_each_line_and_one_without_is_read(tmp_path: Path):
    plan, store = plan_of(scenes=1), store_in(tmp_path)
    fill(plan, store)
    old = "".join(line.rsplit(",", 3)[0] + "\n" for line in report.to_csv(rows_of(plan, store)).splitlines())
    assert "commit" not in old.splitlines()[0]
    table = report.from_csv(old)
    assert len(table) == 8 and {result["commit"] for result in table.values()} == {""}
    assert "commit" not in table[plan.edits()[0].key]["measures"]
    first, *others = plan.edits()
    table[first.key]["commit"] = "abc1234"
    new = report.to_csv(rows_of(plan, store_in(tmp_path / "elsewhere"), table))
    assert [line["commit"] for line in csv.DictReader(io.StringIO(new))] == ["abc1234"] + [""] * 7
    assert report.from_csv(new) == table, "and so they go on from table to table"
    other = Plan(plan.protocol, (), plan.prior)
    assert report.from_csv(report.to_csv(rows_of(other, store), earlier=old))[first.key]["commit"] == ""
    assert report.from_csv(report.to_csv(rows_of(other, store), earlier=new)) == table


def test_the_page_names_the_commits_of_its_results():
    about = about_this_run([{"threads": 1, "commit": "abc1234"}, {"threads": 2, "commit": "def5678"}, {"threads": 1}])
    assert about.commits == "commits abc1234 and def5678 (of 1 cell no commit is on record)"
    assert about.machine == "an unknown machine, 1 or 2 threads a cell"
    here, there = {"machine": "x86_64", "torch": "2.11"}, {"machine": "aarch64, CUDA", "torch": "2.15"}
    results = [{"threads": 1, **where} for where in (here, there, here)]
    assert about_this_run(results).machine == "aarch64, CUDA, torch 2.15 and x86_64, torch 2.11, 1 thread a cell"


def test_a_method_that_lacks_instructions_says_which_it_has(tmp_path: Path):
    choice = Choice((1_000_000,), ("hat", "colour"), ("unedited", "csd-edit", "dds"))
    plan, store = make_plan(choice, TINY), store_in(tmp_path)
    fill(plan, store)
    page = report.markdown(plan, rows_of(plan, store), ABOUT, {})
    assert page.count("| dds (hat alone) |") == 2 and "| csd-edit |" in page


def test_two_perceptual_distances_in_one_table_are_told_apart(tmp_path: Path):
    plan, store = plan_of(scenes=1), store_in(tmp_path)
    fill(plan, store)
    assert "others: their means" not in report.markdown(plan, rows_of(plan, store), ABOUT, {})
    elsewhere = store_in(tmp_path / "elsewhere")
    for index, cell in enumerate(plan.edits()):
        elsewhere.keep(cell, result(**{"PSNR": 20.0, "LPIPS" if index < 3 else "ST-LPIPS": 0.5}))
    page = report.markdown(plan, rows_of(plan, elsewhere), ABOUT, {})
    assert "LPIPS is of 3 cells and ST-LPIPS of 5 others" in page


def test_the_legend_says_what_a_method_edits_with(tmp_path: Path):
    plan, store = make_plan(Choice((1_000_000,), ("hat",), ("csd-edit", "in2n")), QUICK), store_in(tmp_path)
    fill(plan, store)
    page = report.markdown(plan, rows_of(plan, store), ABOUT, {})
    assert "guidance 4 falling to 2, noise levels 0.5 to 0.98, then 0.2 to 0.5, 24 steps of 12 views)" in page
    assert "guidance 2, noise levels 0.02 to 0.98, 18 steps of 1 view every 3 NeRF steps)" in page
