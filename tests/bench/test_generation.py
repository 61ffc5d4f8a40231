"""`csd bench generate`: cells, measures of known objects, and the report."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from csd_nerf.bench import generation
from csd_nerf.bench import generation_report as report
from csd_nerf.bench.generation import CAPTIONS, ELEVATION, METHODS, SIZE, VIEWS, make_cells, measure, named
from csd_nerf.bench.plan import weights_hash
from csd_nerf.bench.report import About
from csd_nerf.bench.results import picture_files
from csd_nerf.bench.store import Store
from csd_nerf.scenes.generation import config
from csd_nerf.scenes.generation.cameras import OrbitRanges, turntable
from csd_nerf.toyworld.cameras import orbit_cameras
from csd_nerf.toyworld.render import Renderer
from csd_nerf.toyworld.scene import HELD_OUT_SEEDS, Scene
from tests.metrics.fake_encoder import ColourEncoder

ABOUT = About("csd bench generate", "commit 0000000", "2026-01-01", "a machine")


def cells(*captions: str, methods: tuple[str, ...] = ("csd", "sds")) -> list:
    return make_cells(captions, methods, (0,), quick=True, prior="toy", precision="fp32")


def test_the_captions_are_of_the_toy_world_and_twelve():
    assert len(set(CAPTIONS)) == 12 and all(named(caption) for caption in CAPTIONS)
    with pytest.raises(ValueError, match='--instructions "a red owl": give captions such as "a red mushroom"'):
        named("a red owl")
    with pytest.raises(
        ValueError, match=f"--methods nerf is unknown: choose from {', '.join(METHODS)}".replace("+", r"\+")
    ):
        cells("a red car", methods=("nerf",))


def test_what_decides_a_result_is_in_its_key():
    one, other = cells("a red car")
    assert one.key != other.key and one.key == cells("a red car")[0].key
    assert one.key != make_cells(["a red car"], ["csd"], (0,), quick=False, prior="toy", precision="fp32")[0].key


def test_results_from_before_a_change_of_the_mathematics_are_other_ones(monkeypatch):
    with_kl, without = cells("a red car", methods=("lsd+kl", "lsd"))
    before = {name: replace(method, revision="") for name, method in METHODS.items()}
    monkeypatch.setattr(generation, "METHODS", before)
    assert with_kl.key != cells("a red car", methods=("lsd+kl",))[0].key
    assert without.key == cells("a red car", methods=("lsd",))[0].key


def test_another_prior_or_other_defaults_of_the_method_are_another_experiment(monkeypatch, tmp_path):
    (tmp_path / "model.json").write_text("{}")

    def key() -> str:
        return make_cells(["a red car"], ["csd"], (0,), quick=True, prior=str(tmp_path), precision="fp32")[0].key

    before = key()
    (tmp_path / "model.json").write_text("{ }")
    weights_hash.cache_clear()
    retrained = key()
    assert retrained != before
    monkeypatch.setitem(config.TOY_FIELD, "blob_radius", 0.7)
    generation._configuration.cache_clear()
    assert key() != retrained
    monkeypatch.undo()
    generation._configuration.cache_clear()
    assert key() == retrained


def test_a_true_object_is_recognised_and_another_is_not():
    cameras = orbit_cameras([360.0 * i / VIEWS for i in range(VIEWS)], [ELEVATION] * VIEWS, SIZE)
    scene = Scene(HELD_OUT_SEEDS, "car", (0.1, -0.2, 0.3, 0.0), "red", "studio")
    pictures = Renderer(cameras).render(scene)
    views = turntable(OrbitRanges(), VIEWS, SIZE, ELEVATION)
    solid, depth = torch.ones(VIEWS, SIZE, SIZE), torch.full((VIEWS, SIZE, SIZE), 1.75)
    right = measure("a red car", pictures, depth, solid, views)
    wrong = measure("a blue snowman", pictures, depth, solid, views)
    assert right["R-precision"] > 0.8 and right["object"] >= right["R-precision"]
    assert wrong["R-precision"] == 0 and wrong["object"] < 0.5
    assert right["coverage"] == 1 and right["saturation"] > 0


def result(value: float) -> dict:
    names = ("R-precision", "object", "warp error", "saturation", "sharpness", "coverage")
    return {
        "measures": dict.fromkeys(names, value),
        "network_samples": 8,
        "seconds": 2.0,
        "processor_seconds": 1.0,
        "threads": 1,
    }


def test_the_report_pairs_within_captions_and_tells_what_is_missing():
    asked = cells("a red car", "a blue snowman", "a green tree")
    values = {"a red car": (1.0, 0.75), "a blue snowman": (0.5, 0.25)}
    results = {
        cell.key: result(values[cell.spec["caption"]][cell.spec["method"] == "sds"])
        for cell in asked
        if cell.spec["caption"] in values
    }
    page = report.markdown(asked, results, ABOUT)
    assert "3 captions, 4 of 6 objects" in page
    assert "| csd - sds | 0.250 (0.250 to 0.250)" in page
    assert "| csd | 0.750 (0.500 to 1.000)" in page and "2 of 2" in page and "1 of 2" in page
    assert "| a green tree |  |  |" in page and "commit 0000000" in page and "Networks in fp32." in page
    lines = list(csv.DictReader(io.StringIO(report.to_csv(asked, results))))
    assert len(lines) == 4 and {line["R-precision"] for line in lines} == {"1.0000", "0.7500", "0.5000", "0.2500"}
    assert lines[0]["network_samples"] == "8"
    table = report.from_csv(report.to_csv(asked, results))
    again = {key: report.result_of(line) for key, line in table.items()}
    assert report.markdown(asked, again, ABOUT) == page, "a table gives the page that its results gave"
    old = "".join(line.rsplit(",", 1)[0] + "\n" for line in report.to_csv(asked, results).splitlines())
    assert old.splitlines()[0].endswith(",threads"), "a table from before commits were kept"
    assert {report.result_of(line)["commit"] for line in report.from_csv(old).values()} == {""}
    results[asked[0].key]["commit"] = "abc1234"
    table = report.from_csv(report.to_csv(asked, results))
    assert [report.result_of(line)["commit"] for line in table.values()] == ["abc1234", "", "", ""]
    again = {key: report.result_of(line) for key, line in table.items()}
    fewer = asked[:1]
    rest = [line for key, line in table.items() if key != fewer[0].key]
    assert report.from_csv(report.to_csv(fewer, again, rest)) == table, "what is not asked for is kept"
    with pytest.raises(ValueError, match="its columns are others"):
        report.from_csv("caption,method\n")


def test_clip_is_measured_on_colour_and_on_depth_where_there_is_one():
    asked = cells("a red car")
    red, grey = torch.zeros(2, 3, 8, 8), torch.full((2, 3, 8, 8), 0.5)
    red[:, 0] = 1
    files = picture_files("after", red) | picture_files("depth", grey)
    encoder = ColourEncoder()
    scores = report.clip_scores(encoder, "a red car", files)
    text = encoder.encode_texts(["a red car"])[0]
    expected = [float((encoder.encode_images(pictures) @ text).mean()) for pictures in (red, grey)]
    assert list(scores.values()) == pytest.approx(expected, abs=1e-2) and scores["CLIP"] > scores["CLIP depth"]
    results = {cell.key: result(0.5) for cell in asked}
    assert "CLIP" not in report.markdown(asked, results, ABOUT)
    results[asked[0].key]["measures"] |= scores
    page = report.markdown(asked, results, ABOUT)
    assert "| CLIP (higher is better) | CLIP depth (higher is better) |" in page
    assert f"{scores['CLIP']:.3f} | {scores['CLIP depth']:.3f}" in page


def test_the_overview_has_a_column_for_each_caption_and_leaves_what_is_missing_white(tmp_path):
    asked, store = cells("a red car", "a blue snowman"), Store(tmp_path)
    colours = {"csd": (1.0, 0.0, 0.0), "sds": (0.0, 0.0, 1.0)}
    assert report.overview(asked, store) is None
    for cell in asked[:3]:
        shown = torch.tensor(colours[cell.spec["method"]])[None, :, None, None].expand(VIEWS, 3, 8, 8)
        store.keep(cell, picture_files("after", shown) | {"result.json": b"{}"})
    sheet = report.overview(asked, store)
    assert sheet is not None
    pixels = torch.from_numpy(np.array(sheet))
    red, blue = ((pixels == torch.tensor(colour)).all(dim=2) for colour in ((255, 0, 0), (0, 0, 255)))
    assert red.sum() == 3 * 2 * 64 and blue.sum() == 3 * 64
    assert torch.nonzero(red)[:, 0].max() < torch.nonzero(blue)[:, 0].min()
    assert torch.nonzero(blue)[:, 1].max() < torch.nonzero(red)[:, 1].max()
