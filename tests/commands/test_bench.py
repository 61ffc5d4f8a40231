"""The command, on one real scene that is only just there."""

import csv
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from csd_nerf.bench import report
from csd_nerf.bench.checkout import commit_at_start
from csd_nerf.bench.engines import EngineLostError, Finished
from csd_nerf.bench.rows import rows_of
from csd_nerf.cli import main
from tests.bench.cells import TINY, add_pictures, plan_of, result, store_in
from tests.bench.test_schedule import Here
from tests.tiny_prior import make_tiny_prior


def test_a_real_cell_of_each_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Scene, truth, an edit; then nothing is left to do, and the report is the same."""
    prior = make_tiny_prior(tmp_path / "prior")
    monkeypatch.setattr("csd_nerf.bench.plan.QUICK", TINY)
    monkeypatch.setattr("csd_nerf.bench.engines.LocalEngine", lambda workers, threads, logs: Here())
    monkeypatch.setattr("csd_nerf.bench.measure.SMALLEST_FOR_LPIPS", 1000)
    flags = ["bench", "scenes", "--quick", "--scenes", "1000001", "--instructions", "hat", "--prior", str(prior)]
    flags += ["--methods", "unedited", "csd-edit", "--output", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    monkeypatch.setattr(sys, "argv", ["csd", *flags])
    assert main(flags) == 0
    assert "4 of these cells are to be computed" in capsys.readouterr().err
    page = (tmp_path / "out/scenes.md").read_text()
    unedited, edited = csv.DictReader((tmp_path / "out/scenes.csv").open())
    assert page.startswith("# Edits of toy scenes") and "--scenes 1000001" in page and "missing" not in page
    assert unedited["commit"] == edited["commit"] == commit_at_start() and f"commit {commit_at_start()}, " in page
    assert edited["network_samples"] == str(TINY.budget.samples) == "80" and edited["rounds"] == "2"
    assert unedited["network_samples"] == "0" and float(unedited["edit strength"]) == 0 < float(edited["edit strength"])
    assert all(float(edited[name]) > 0 for name in ("PSNR", "SSIM", "colour spread", "warp error", "nerf_seconds"))
    assert Image.open(tmp_path / "out/scene_1000001.png").height > 4 * 64
    cells = {json.loads(path.read_text())["kind"]: path.parent for path in tmp_path.glob("work/cells/*/cell.json")}
    assert len(list((cells["edit"] / "after").iterdir())) == TINY.held_out
    assert main(flags) == 0
    assert (tmp_path / "out/scenes.md").read_text() == page and "; 0 of these cells" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--workers", "0"], "--workers 0: give at least 1"),
        (["--methods", "magic"], "--methods magic is unknown"),
        (["--scenes", "3"], "--scenes 3 may be a scene that the prior was trained on"),
        (["--sweep", "0"], "--sweep 0"),
        (["--prior", "timbrooks/instruct-pix2pix"], "--prior timbrooks/instruct-pix2pix is no folder"),
        (["--output", "{file}/x"], "cannot be made"),
    ],
)
def test_mistakes_are_told_before_anything_is_computed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
):
    (tmp_path / "file").touch()
    given = [flag.replace("{file}", str(tmp_path / "file")) for flag in flags]
    assert main(["bench", "scenes", "--work", str(tmp_path / "work"), *given]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "work/cells").exists()


@pytest.mark.parametrize(
    ("benchmark", "flag"),
    [
        *(("scenes", flag) for flag in ("--sweep", "--methods", "--instructions", "--scenes", "--seeds")),
        ("generate", "--methods"),
        ("generate", "--seeds"),
        ("speed", "--particles"),
    ],
)
def test_a_list_without_values_is_not_a_flag_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], benchmark: str, flag: str
):
    folders = ["--work", str(tmp_path / "work")] if benchmark != "speed" else []
    assert main(["bench", benchmark, "--output", str(tmp_path / "out"), flag, *folders]) == 2
    assert f"{flag} has no value: give at least one" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_a_report_of_nothing_leaves_an_earlier_one_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """All cells fail; the folder holds the table and page of other cells."""
    plan, store = plan_of(scenes=1), store_in(tmp_path / "other")
    store.keep(plan.edits()[0], result(PSNR=20.0))
    text = report.to_csv(rows_of(plan, store))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/scenes.csv").write_text(text)
    (tmp_path / "out/scenes.md").write_text("a page")
    monkeypatch.setattr("csd_nerf.bench.plan.QUICK", TINY)
    monkeypatch.setattr("csd_nerf.bench.engines.LocalEngine", lambda workers, threads, logs: Here())
    monkeypatch.setattr("csd_nerf.bench.compute.compute", fails)
    flags = ["bench", "scenes", "--quick", "--scenes", "1000001", "--instructions", "hat", "--methods", "csd-edit"]
    assert main([*flags, "--output", str(tmp_path / "out"), "--work", str(tmp_path / "work")]) == 1
    assert "Nothing is done yet" in capsys.readouterr().err
    assert (tmp_path / "out/scenes.md").read_text() == "a page" and (tmp_path / "out/scenes.csv").read_text() == text


def test_an_engine_that_is_lost_is_told_and_what_is_done_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    class Lost(Here):
        def next_finished(self) -> Finished:
            raise EngineLostError("--engine ray: the cluster is lost (no luck)")

    plan, store = plan_of(scenes=1), store_in(tmp_path)
    store.keep(plan.edits()[0], result(PSNR=20.0))
    add_pictures(plan, store)
    monkeypatch.setattr("csd_nerf.bench.plan.QUICK", TINY)
    monkeypatch.setattr("csd_nerf.bench.engines.LocalEngine", lambda workers, threads, logs: Lost())
    monkeypatch.setattr("csd_nerf.bench.compute.compute", fails)
    flags = ["bench", "scenes", "--quick", "--scenes", "1000000", "--instructions", "recolour", "--methods"]
    flags += ["unedited", "csd-edit", "--output", str(tmp_path / "out"), "--work", str(store.folder)]
    assert main(flags) == 1
    said = capsys.readouterr().err
    assert "--engine ray: the cluster is lost (no luck); what is done is kept" in said and "Traceback" not in said
    assert "**1 of 2 cells are missing**" in (tmp_path / "out/scenes.md").read_text()


def fails(cell: object, inputs: object) -> None:
    """What a cell does that cannot be computed."""
    raise RuntimeError("no luck")
