"""`csd prior check`: flags, gates, files, the card's section, the exit status."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from csd_nerf.cli import main
from csd_nerf.commands.prior_check import PriorCheck
from csd_nerf.commands.prior_check.measure import CaptionSamples, EditSamples, GateSettings, HatSamples, PhotoSamples
from csd_nerf.commands.prior_check.report import Measured, check_prior, judge
from csd_nerf.toyworld.judging.gates import Gate
from csd_nerf.toyworld.judging.hats import HatVerdict
from csd_nerf.toyworld.judging.pictures import PictureVerdict, caption_scenes
from csd_nerf.toyworld.scene import demo_scene
from tests.tiny_prior import make_tiny_prior

NONE = torch.zeros(1, 3, 4, 4)


@dataclass(frozen=True)
class Quick(PriorCheck):
    """As little as can be measured."""

    def settings(self) -> GateSettings:
        return replace(super().settings(), scenes=1, photos=2, cameras=1)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--photos", "none"], "--photos none is no folder"),
        (["--style-nets", "none"], "--style-nets none is no folder"),
        (["--edits", "0"], "--edits 0: give at least 1"),
        (["--captions", "0"], "--captions 0: give at least 1"),
        (["--seeds", "-1"], "--seeds -1: give at least 1"),
        (["--guidance", "0"], "--guidance 0.0: give more than 0"),
        (["--caption-guidance", "nan"], "--caption-guidance nan: give more than 0"),
        (["--output", "taken/deep"], "--output taken/deep: taken is a file"),
        (["--write-card"], "--write-card: PRIOR some/hub is no local folder"),
        (["--photos", "empty"], "--photos empty: no jpg or png"),
        (["--style-nets", "empty"], "--style-nets empty holds none of wave"),
    ],
)
def test_bad_flags_are_named_before_any_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    complaint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken").write_text("a file")
    Path("empty").mkdir()
    assert main(["prior", "check", "some/hub", *flags]) == 2
    text = said(capsys)
    assert complaint in text and text.count("csd: error:") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "taken"]


def test_a_folder_without_a_card_and_a_prior_that_cannot_edit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_tiny_prior(tmp_path / "drawing", in_channels=4)
    assert main(["prior", "check", str(folder), "--write-card"]) == 2
    assert "has no CARD.md" in said(capsys)
    assert main(["prior", "check", str(folder)]) == 2
    assert "edit" in said(capsys)


def test_a_prior_of_random_weights_fails_its_gates_and_says_what_was_not_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_tiny_prior(tmp_path / "prior")
    (folder / "CARD.md").write_text("# Tiny\n\n## Training\n\nNone.\n")
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(2):
        noise = np.random.default_rng(index).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).save(photos / f"{index}.png")
    flags = Quick(str(folder), tmp_path / "out", photos, edits=1, captions=1, seeds=2, guidance=3.0, write_card=True)
    assert not check_prior(flags, Console(stderr=True))
    text = said(capsys)
    assert "Not measured: painting: wave (needs --style-nets), painting: rain_princess" in text

    found = json.loads((tmp_path / "out/check.json").read_text())
    verdicts = {gate["name"]: gate["verdict"] for gate in found["gates"]}
    assert verdicts["recolour"] == "FAIL" and verdicts["painting: udnie"] == verdicts["photos: wave"] == "not measured"
    assert found["passed"] is False and found["edits"]["hat"]["gated"] is False
    assert found["command"] == "csd prior check prior --photos ... --edits 1 --captions 1 --seeds 2 --guidance 3"

    card = (folder / "CARD.md").read_text()
    assert card.count("## Gates") == 1 and card.index("## Gates") < card.index("## Training")
    assert f"`{found['command']}`" in card and "| recolour |" in card and str(tmp_path) not in card
    for name in ("edits", "hats", "captions", "photos"):
        assert f"(gates_{name}.png)" in card
        assert 0 < (folder / f"gates_{name}.png").stat().st_size < 400_000
        assert (tmp_path / f"out/{name}.png").exists()


@pytest.mark.parametrize(("passes", "status"), [(True, 0), (False, 1)])
def test_exit_status(monkeypatch: pytest.MonkeyPatch, passes: bool, status: int) -> None:
    monkeypatch.setattr("csd_nerf.commands.prior_check.report.check_prior", lambda *_: passes)
    assert main(["prior", "check", "toy"]) == status


def measured(error: float, colours: list[str], right: int, nearest: list[str] | None) -> Measured:
    """Made-up results; of ten captions `right` are drawn right."""
    asked = caption_scenes(10, 32)
    true = [PictureVerdict(one.scene.object, one.scene.colour, 0.0) for one in asked]
    wrong = PictureVerdict(None, None, 0.0)
    return Measured(
        edits=[EditSamples("snow", ["make it snow"], NONE, NONE, NONE, error, (0.0, 1.0))],
        hats=[HatSamples(demo_scene(), NONE, NONE, [HatVerdict("cap", colour, 0.5) for colour in colours])],
        captions=CaptionSamples(asked, NONE, [*true[:right], *[wrong] * (10 - right)], true),
        photos=None if nearest is None else [PhotoSamples("sketch", NONE, NONE, nearest)],
        seconds=1.0,
    )


def test_gates_are_kept_at_their_bounds_and_failed_beyond() -> None:
    def found(*results: object) -> dict[str, Gate]:
        return {gate.name: gate for gate in judge(measured(*results), True, False)}  # pyright: ignore[reportArgumentType]

    good = found(0.4, ["red", "red", "blue", "pink"], 8, ["sketch"] * 4 + ["oil"])
    bad = found(0.41, ["red", "blue", "blue"], 7, ["sketch"] * 3 + ["oil"])
    for name in ("snow", "hat colours", "captions: object and colour", "photos: sketch"):
        assert (good[name].passed, bad[name].passed) == (True, False), name
    assert good["captions: the judge itself"].value == 1.0
    assert good["night"].passed is None and good["photos: wave"].note == "needs --style-nets"
    without = {gate.name: gate for gate in judge(measured(0.4, ["red"], 8, None), False, True)}
    assert without["photos: sketch"].verdict == "not measured" and without["photos: wave"].note == "needs --photos"
