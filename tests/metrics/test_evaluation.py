import csv
import inspect
import io
import json
from collections.abc import Sequence
from typing import Any, Literal

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.metrics import PerceptualDistance, PinholeViews
from csd_nerf.metrics.catalogue import METRICS, Comparison, Models
from csd_nerf.metrics.evaluation import Networks, Remembering, Report, evaluate, load_models, plan
from csd_nerf.metrics.frechet import Features
from csd_nerf.metrics.pictures import Loaded, Pictures
from tests.metrics.fake_encoder import ColourEncoder, plain

Kind = Literal["pictures", "video", "views"]
RED, GREEN, YELLOW = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (1.0, 1.0, 0.0)
FORMULAS = {
    "clip-direction": ("cos(E_I(edited) - E_I(source), E_T(target text) - E_T(source text))", "Gal et al. 2022"),
    "clip-image": ("<E_I(source), E_I(edited)>", "CSD Figures 4 and 6"),
    "clip-consistency": ("<E_I(x_a), E_I(x_b)>", "CSD Tables 1 and 2"),
    "clip-text": ("<E_I(x), E_T(text)>", "Radford et al. 2021"),
    "clip-depth": ("1 - (d - low) / (high - low)", "CSD Table 3"),
    "r-precision": ("<E_I(x_i), E_T(text)>", "Jain et al. 2022"),
    "lpips": ("sum_l mean_hw sum_c w_lc (f_l(x) - f_l(y))_c^2", "Zhang et al. 2018"),
    "fid": ("|m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2))", "Heusel et al. 2017"),
    "psnr": ("-10 log10 mean((x - y)^2)", "Huynh-Thu and Ghanbari 2008"),
    "ssim": ("(2 m_x m_y + c_1)(2 s_xy + c_2)", "Wang et al. 2004"),
    "warp": ("mean_p |x_a(p) - x_b(q(p))|", "Lai et al. 2018"),
}
"""Of each metric, with who defined it or where the papers use it."""
TEXTS: dict[str, Any] = {"source_text": "a red ball", "target_text": "a green ball"}


def pictures(images: Float[Tensor, "n 3 h w"], name: str = "X", kind: Kind = "pictures", **more: Any) -> Pictures:
    names = tuple(str(i) for i in range(len(images)))
    loaded = Loaded(images, more.pop("views", None))
    return Pictures(name, kind, names, (images.shape[2], images.shape[3]), lambda: loaded, **more)


def compared(before: Sequence[Any], after: Sequence[Any], size: int = 32, kind: Kind = "pictures", **more: Any) -> Any:
    first, second = (pictures(plain(*c, size=size), n, kind) for c, n in ((before, "BEFORE a"), (after, "AFTER b")))
    return Comparison(first, second, **more)


def fakes() -> Models:
    distance = PerceptualDistance("ST-LPIPS", "fake", lambda a, b: (a - b).abs().mean(dim=(1, 2, 3)))
    return Models(Remembering(ColourEncoder()), distance, Features("tiny", lambda p: p.float().mean(dim=(2, 3)) / 255))


def scores(comparison: Comparison, *names: str) -> dict[tuple[str, str], float]:
    report = evaluate(comparison, plan(comparison, names), fakes())
    return {(row.metric, row.of): row.score.mean for row in report.rows}


def test_everything_that_pictures_and_texts_allow():
    truth = pictures(plain(GREEN, YELLOW, size=32), "--truth c")
    comparison = compared([RED, RED], [GREEN, GREEN], truth=truth, **TEXTS, retrieval=("blue", "grey"))
    made = plan(comparison)
    assert set(made.left_out) == {"clip-consistency", "clip-depth", "fid", "warp"}
    result = scores(comparison)
    assert result["clip-direction", "before to after"] == pytest.approx(1)
    assert result["clip-image", "before to after"] == pytest.approx(0)
    assert result["clip-text", "after"] == pytest.approx(1) and result["clip-text", "before"] == pytest.approx(0)
    assert result["r-precision", "after"] == 1
    assert result["lpips", "before to after"] == pytest.approx(2 / 3)
    assert result["lpips", "after to truth"] == pytest.approx(1 / 6)
    assert result["psnr", "after to truth"] == pytest.approx((100 + 4.771) / 2, abs=1e-2)
    assert {"ssim", "psnr"} == {name for name, of in result if of == "before to truth"}


def test_reasons_name_the_remedy():
    left = plan(compared([RED], [GREEN], size=8)).left_out
    assert "--source-text and --target-text" in left["clip-direction"] and "--target-text" in left["clip-text"]
    assert "a single picture" in left["clip-consistency"] and "--retrieval-set" in left["r-precision"]
    assert left["lpips"] == "pictures of 8 x 8 pixels are too small: give at least 32 a side"
    assert "--truth" in left["psnr"] and "--load-config" not in left["psnr"] and "several pictures" in left["fid"]


@pytest.mark.parametrize("name", ["clip-direction", "psnr", "clip-depth", "r-precision", "warp"])
def test_a_named_metric_that_is_impossible_is_an_error(name: str):
    with pytest.raises(ValueError, match=f"^--metrics {name}: "):
        plan(compared([RED], [GREEN]), [name])


def test_different_numbers():
    comparison = compared([RED, RED], [GREEN, GREEN, GREEN], target_text="green")
    with pytest.raises(ValueError, match="BEFORE a has 2 pictures, AFTER b has 3: give as many, or name metrics"):
        plan(comparison)
    with pytest.raises(ValueError, match="--metrics lpips: BEFORE a has 2 pictures"):
        plan(comparison, ["lpips"])
    assert len(scores(comparison, "clip-consistency", "clip-text", "fid")) == 5


def test_sizes_matter_only_pixel_by_pixel():
    after = pictures(plain(GREEN, size=40), "AFTER b")
    comparison = Comparison(compared([RED], [RED]).before, after, **TEXTS)
    assert "32 x 32 pixels before, 40 x 40 pixels after" in plan(comparison).left_out["lpips"]
    assert scores(comparison)["clip-direction", "before to after"] == pytest.approx(1)


def test_fid_against_the_truth_where_there_is_one():
    truth = pictures(plain(YELLOW, YELLOW, YELLOW, size=32), "--truth c")
    comparison = compared([RED, RED, RED], [GREEN, GREEN, GREEN], truth=truth)
    assert scores(comparison, "fid") == {("fid", "after to truth"): pytest.approx(1)}
    assert scores(compared([RED, RED], [GREEN, GREEN]), "fid") == {("fid", "before to after"): pytest.approx(2)}


def test_retrieval_with_and_without_a_target():
    both = compared([RED, RED], [GREEN, RED], retrieval=("red", "green"))
    assert scores(both, "r-precision") == {("r-precision", "after"): 0}, "line by line"
    named = compared([RED, RED], [GREEN, RED], retrieval=("red", "blue"), target_text="green")
    assert scores(named, "r-precision") == {("r-precision", "after"): 0.5}, "the target joins the set"
    with pytest.raises(ValueError, match="--retrieval-set has 3 texts for 2 pictures: add --target-text"):
        plan(compared([RED, RED], [GREEN, RED], retrieval=("red", "green", "blue")), ["r-precision"])
    with pytest.raises(ValueError, match="no other text"):
        plan(compared([RED], [GREEN], retrieval=("green",), target_text="green"), ["r-precision"])


def test_warp_of_a_video_and_of_views():
    noise = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)).expand(3, -1, -1, -1)
    brighter = noise * 0.5 + torch.tensor([0.0, 0.3, 0.0])[:, None, None, None]
    video = Comparison(pictures(noise * 0.5, kind="video"), pictures(brighter, kind="video"))
    assert scores(video, "warp") == {("warp", "after"): pytest.approx(0.3), ("warp", "before"): pytest.approx(0)}
    pose = torch.eye(4)[None, :3].expand(3, -1, -1)
    views = PinholeViews(pose, torch.tensor([[30.0, 30, 16, 16]]).expand(3, -1), torch.ones(3, 32, 32))
    before, after = (pictures(one, kind="views", views=views, neighbours=[(0, 1)]) for one in (noise * 0.5, brighter))
    comparison = Comparison(before, after, target_text="red")
    assert scores(comparison, "warp")["warp", "after"] == pytest.approx(0.3, abs=1e-5)
    assert scores(comparison, "clip-depth")["clip-depth", "after"] == pytest.approx(3**-0.5), "white and red"


def test_frames_in_a_folder_must_be_called_a_video():
    comparison = compared([RED, RED], [GREEN, GREEN])
    left_out = plan(comparison).left_out
    assert "name it in --metrics" in left_out["warp"] and left_out["clip-consistency"] == left_out["warp"]
    assert scores(comparison, "warp")["warp", "after"] == pytest.approx(0)
    assert scores(comparison, "clip-consistency")["clip-consistency", "after"] == pytest.approx(1)
    video = compared([RED, RED], [GREEN, GREEN], kind="video")
    assert not {"warp", "clip-consistency"} & set(plan(video).left_out)


def test_what_turns_out_impossible_is_left_out_unless_named():
    same = compared([RED], [GREEN], source_text="red", target_text="a red")
    report = evaluate(same, plan(same), fakes())
    assert "mean the same" in report.left_out["clip-direction"]
    with pytest.raises(ValueError, match="--metrics clip-direction: the texts"):
        scores(same, "clip-direction")


def test_pictures_are_embedded_once():
    encoder = ColourEncoder()
    comparison = compared([RED, RED], [GREEN, GREEN], **TEXTS)
    names = ["clip-direction", "clip-image", "clip-consistency", "clip-text"]
    evaluate(comparison, plan(comparison, names), Models(Remembering(encoder)))
    assert encoder.pictures_seen == 4


def test_networks_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch):
    def load(self: Networks, network: str) -> object:
        if network == "encoder":
            raise OSError("--clip has no weights")
        return fakes().perceptual

    monkeypatch.setattr(Networks, "load", load)
    comparison = compared([RED], [GREEN])
    made = plan(comparison)
    models = load_models(made, Networks())
    assert models.encoder is None and made.left_out["clip-image"] == "--clip has no weights"
    assert [metric.name for metric in made.chosen] == ["lpips"]
    for names, networks in ((["clip-image"], Networks()), ([], Networks(clip_weights="file.pt"))):
        with pytest.raises(OSError, match="no weights"):
            load_models(plan(comparison, names), networks)
    with pytest.raises(ValueError, match="no metric can be computed: .*clip-image: --clip has no weights"):
        load_models(plan(compared([RED], [GREEN], size=8)), Networks())


def test_report_as_json_csv_and_table():
    comparison = compared([RED, RED], [GREEN, YELLOW], **TEXTS)
    names = ["clip-direction", "lpips"]
    report: Report = evaluate(comparison, plan(comparison, names), fakes())
    content = json.loads(report.to_json())
    assert content["after"] == {"source": "AFTER b", "pictures": 2, "note": ""} and "truth" not in content
    (direction, lpips) = content["scores"]
    assert direction["values"] == pytest.approx([1, direction["values"][1]]) and direction["count"] == 2
    assert lpips["name"] == "ST-LPIPS" and lpips["metric"] == "lpips" and lpips["note"] == "fake"
    lines = list(csv.DictReader(io.StringIO(report.to_csv())))
    assert [line["metric"] for line in lines] == names and float(lines[1]["mean"]) == pytest.approx(lpips["mean"])
    assert report.table().row_count == 2
    assert "ST-LPIPS: fake" in report.notes()


def test_every_metric_is_explained():
    """Formula, direction and reference, for each; nothing of what only programmers need."""
    assert FORMULAS.keys() == METRICS.keys()
    for name, metric in METRICS.items():
        text = metric.explanation()
        assert "Higher is" in text or "Lower is" in text, name
        own = "\n".join(inspect.getdoc(one) or "" for one in metric.explained_by)  # without what is said of all of CLIP
        formula, reference = FORMULAS[name]
        assert formula in " ".join(own.split()) and reference in " ".join(own.split()), name
        assert "Raises" not in text and "Args:" not in text and "`pairs`" not in text, name
        assert ("E_I and E_T are CLIP's" in text) == (metric.network == "encoder")
    assert "optical flow" in METRICS["warp"].explanation() and "own depth" in METRICS["warp"].explanation()
