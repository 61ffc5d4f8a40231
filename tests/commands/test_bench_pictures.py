"""The benchmarks of panoramas and videos through the command, on cells that are only just there."""

import csv
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from csd_nerf.bench.picture_methods import PictureBudget, PictureProtocol
from csd_nerf.cli import main
from tests.bench.test_schedule import Here
from tests.tiny_prior import make_tiny_prior


@pytest.mark.parametrize(
    ("name", "parts", "samples", "noun", "sampler"),
    [("panorama", 2, "patch", "object", "ip2p-patches"), ("video", 3, "frame", "frame", "ip2p")],
)
def test_a_real_cell_of_each_kind(
    name: str,
    parts: int,
    samples: str,
    noun: str,
    sampler: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """What is edited, its truth, edits; then nothing is left to do, and the report is the same."""
    prior = make_tiny_prior(tmp_path / "prior", factor=8)
    tiny = PictureProtocol(PictureBudget(30, parts, batch=2))
    monkeypatch.setattr(f"csd_nerf.bench.picture_methods.{name.upper()}_QUICK", tiny)
    monkeypatch.setattr("csd_nerf.bench.engines.LocalEngine", lambda workers, threads, logs: Here())
    monkeypatch.setattr("csd_nerf.bench.measure.SMALLEST_FOR_LPIPS", 1000)
    flags = ["bench", name, "--quick", "--scenes", "1000001", "--instructions", "colour", "--prior", str(prior)]
    flags += ["--methods", "unedited", "csd-edit", sampler, "--output", str(tmp_path / "out")]
    flags += ["--work", str(tmp_path / "work")]
    monkeypatch.setattr(sys, "argv", ["csd", *flags])
    assert main(flags) == 0
    assert "5 of these cells are to be computed" in capsys.readouterr().err
    page = (tmp_path / f"out/{name}.md").read_text()
    unedited, edited, sampled = csv.DictReader((tmp_path / f"out/{name}.csv").open())
    assert page.startswith(f"# Edits of toy {name}") and f"csd bench {name}" in page and "missing" not in page
    assert f"samples per {samples}" in page and f"{noun} agreement ↑" in page
    assert [row["network_samples"] for row in (unedited, edited, sampled)] == ["0"] + [str(30 * parts)] * 2
    assert [row["steps"] for row in (unedited, edited, sampled)] == ["0", str(3 * parts), "10"]
    assert float(unedited["edit strength"]) == 0 < float(edited["edit strength"])
    measured = ("PSNR", "SSIM", f"{noun}s edited", {"panorama": "seam visibility", "video": "warp error"}[name])
    assert all(edited[measure] for measure in measured) and float(edited["PSNR"]) > 0
    with Image.open(tmp_path / f"out/{name}_1000001.png") as sheet:
        assert sheet.height > 5 * 128
    cells = {json.loads(path.read_text())["kind"]: path.parent for path in tmp_path.glob("work/cells/*/cell.json")}
    assert len(list((cells["edit"] / "after").iterdir())) == {"panorama": 1, "video": 3}[name]
    assert main(flags) == 0
    assert (tmp_path / f"out/{name}.md").read_text() == page and "; 0 of these cells" in capsys.readouterr().err


def test_a_sweep_of_panoramas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    prior = make_tiny_prior(tmp_path / "prior", factor=8)
    monkeypatch.setattr("csd_nerf.bench.picture_methods.PANORAMA_QUICK", PictureProtocol(PictureBudget(6, 2, batch=2)))
    monkeypatch.setattr("csd_nerf.bench.engines.LocalEngine", lambda workers, threads, logs: Here())
    monkeypatch.setattr("csd_nerf.bench.measure.SMALLEST_FOR_LPIPS", 1000)
    flags = ["bench", "panorama", "--quick", "--scenes", "1000001", "--instructions", "recolour", "colour"]
    flags += ["--methods", "multidiffusion", "--sweep", "2", "6", "--prior", str(prior)]
    assert main([*flags, "--output", str(tmp_path / "out"), "--work", str(tmp_path / "work")]) == 0
    rows = list(csv.DictReader((tmp_path / "out/sweep.csv").open()))
    assert [row["guidance"] for row in rows] == ["2.0", "6.0"] * 2
    assert Image.open(tmp_path / "out/sweep.png").size[0] > 1000, "a panel for each kind of instruction"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["panorama", "--methods", "ip2p"], "--methods ip2p is unknown: choose from unedited, csd-edit"),
        (["video", "--instructions", "make it a cathedral"], "--instructions 'make it a cathedral'"),
        (["video", "--output", "{folder}"], "is no table of this benchmark"),
    ],
)
def test_mistakes_are_told_before_anything_is_computed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
):
    (tmp_path / "video.csv").write_text("a,b\n1,2\n")
    given = [flag.replace("{folder}", str(tmp_path)) for flag in flags]
    assert main(["bench", *given, "--work", str(tmp_path / "work")]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "work/cells").exists()
