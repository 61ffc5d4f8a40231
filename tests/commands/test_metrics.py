"""`csd metrics` on files: what it prints and writes, and what it refuses before long work."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.cli import main
from csd_nerf.images.writing import to_pil, write_video
from csd_nerf.metrics.openclip import MODEL
from tests.metrics.fake_encoder import plain
from tests.metrics.tiny_clip import NAME, make_tiny_clip
from tests.metrics.tiny_inception import save_mean_colours


def save(folder: Path, images: Float[Tensor, "n 3 h w"]) -> None:
    folder.mkdir(parents=True)
    for i, image in enumerate(images):
        to_pil(image).save(folder / f"{i}.png")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three pictures before and after, 0.2 brighter; two of another number, one of another size."""
    monkeypatch.chdir(tmp_path)
    before = 0.7 * torch.rand(3, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    save(Path("before"), before)
    save(Path("after"), before + 0.2)
    save(Path("two"), before[:2])
    save(Path("small"), before[:, :, :32, :32])
    save(Path("single"), before[:1])
    return tmp_path


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither CLIP nor AlexNet nor Inception can be downloaded."""

    def fail(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("open_clip.download_pretrained", fail)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    monkeypatch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", fail)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_clip(tmp_path_factory.mktemp("clip"))


def said(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).split())


def test_folders_with_a_truth(here: Path, offline: None, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--json", "new/scores.json", "--csv", "scores.csv"]
    assert main(["metrics", "before", "after", "--truth", "after", *files]) == 0
    text = said(capsys)
    assert "ST-LPIPS: AlexNet, shift-tolerant; stands in for LPIPS, whose AlexNet cannot be had" in text
    assert "left out: clip-image: --clip ViT-bigG-14 with" in text and "no network" in text
    content = json.loads(Path("new/scores.json").read_text())
    scores = {(one["metric"], one["of"]): one for one in content["scores"]}
    assert set(scores) == {
        ("lpips", "before to after"),
        ("lpips", "after to truth"),
        *((name, of) for name in ("psnr", "ssim") for of in ("after to truth", "before to truth")),
    }
    assert scores["psnr", "after to truth"]["mean"] == pytest.approx(100)
    assert scores["psnr", "before to truth"]["mean"] == pytest.approx(13.98, abs=0.05), "0.2 is 51 levels of 255"
    assert scores["ssim", "after to truth"]["values"] == pytest.approx([1, 1, 1])
    assert set(content["left out"]) >= {"clip-direction", "clip-depth", "r-precision", "fid", "warp"}
    assert "left out: clip-consistency, warp: pictures in a folder may not be frames of a video" in text
    with Path("scores.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 6 and float(lines[2]["mean"]) == scores["psnr", "after to truth"]["mean"]


def test_clip_from_a_local_file(here: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("texts.txt").write_text("a cat\n\na dog on the moon\n")
    flags = ["--clip", NAME, "--clip-weights", str(weights), "--retrieval-set", "texts.txt", "--json", "o.json"]
    texts = ["--source-text", "a car", "--target-text", "a car in the snow"]
    assert main(["metrics", "before", "after", "--lpips", "st-lpips", *flags, *texts]) == 0
    content = json.loads(Path("o.json").read_text())
    found = {one["metric"] for one in content["scores"]}
    assert found == {"clip-direction", "clip-image", "clip-text", "r-precision", "lpips"}
    assert all(-1 <= value <= 1 for one in content["scores"] for value in one["values"])
    assert f"{NAME} (tiny.pt, GELU), 3 texts" in said(capsys)


def test_videos(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    still = plain((0.4, 0.4, 0.4), size=32).expand(3, -1, -1, -1)
    flicker = still + torch.tensor([0.0, 0.3, 0.0])[:, None, None, None]
    write_video(here / "a.mp4", list(still))
    write_video(here / "b.mp4", list(flicker))
    assert main(["metrics", "a.mp4", "b.mp4", "--metrics", "warp", "--json", "o.json"]) == 0
    after, before = json.loads(Path("o.json").read_text())["scores"]
    assert after["mean"] == pytest.approx(0.3, abs=0.02) and before["mean"] == pytest.approx(0, abs=1e-3)
    assert "2 pairs, through optical flow" in said(capsys)


def test_fid_through_a_file(here: Path) -> None:
    save_mean_colours(here / "tiny.pt")
    assert main(["metrics", "before", "after", "--metrics", "fid", "--inception", "tiny.pt", "--csv", "o.csv"]) == 0
    with Path("o.csv").open() as file:
        (line,) = csv.DictReader(file)
    assert float(line["mean"]) == pytest.approx(3 * 0.2**2, abs=1e-3)
    assert line["note"] == "TorchScript tiny.pt, 3 against 3 pictures"


def test_fid_against_a_set_of_any_number_and_size(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Such as all photos of cats; what compares pictures one by one wants as many, of one size."""
    save_mean_colours(here / "tiny.pt")
    save(Path("reference"), 0.5 * torch.ones(5, 3, 24, 30))
    flags = ["metrics", "before", "after", "--truth", "reference", "--inception", "tiny.pt", "--json", "o.json"]
    assert main([*flags, "--metrics", "fid"]) == 0
    (score,) = json.loads(Path("o.json").read_text())["scores"]
    assert score["of"] == "after to truth" and score["note"] == "TorchScript tiny.pt, 3 against 5 pictures"
    assert main([*flags, "--metrics", "fid", "psnr"]) == 2 and "bring them to one size" in said(capsys)


def nothing() -> None: ...


def write(name: str, text: str) -> Callable[[], object]:
    return lambda: Path(name).write_text(text)


@pytest.mark.parametrize(
    ("arguments", "prepare", "complaint"),
    [
        ([], nothing, "give BEFORE and AFTER (pictures, folders or videos), or --load-config"),
        (["before"], nothing, "give BEFORE and AFTER"),
        (["before", "after", "--load-config", "a.yml"], nothing, "not both"),
        (["before", "nowhere"], nothing, "AFTER nowhere does not exist: give a picture, a folder"),
        (["before", "two"], nothing, "BEFORE before has 3 pictures, AFTER two has 2: give as many"),
        (["before", "after", "--truth", "two"], nothing, "--truth two has 2 pictures, AFTER after has 3: give as many"),
        (["before", "after", "--truth", "small"], nothing, "--truth small has pictures of 32 x 32 pixels, AFTER after"),
        (
            ["before", "small", "--metrics", "lpips"],
            nothing,
            "--metrics lpips: the pictures have 48 x 40 pixels before",
        ),
        (["before", "after", "--metrics", "clip-text"], nothing, "--metrics clip-text: add --target-text"),
        (["before", "after", "--metrics", "clip-direction"], nothing, "add --source-text and --target-text"),
        (["before", "after", "--metrics", "psnr"], nothing, "--metrics psnr: add --truth"),
        (["before", "after", "--metrics", "clip-depth", "--target-text", "a"], nothing, "give --load-config"),
        (["before", "after", "--metrics", "pnsr"], nothing, "--metrics pnsr is unknown: choose from clip-direction"),
        (["before", "after", "--metrics", "auto", "psnr"], nothing, "--metrics auto is unknown: choose from clip-dir"),
        (["before", "after", "--metrics"], nothing, "--metrics is empty: name some of clip-direction, clip-image"),
        (["before", "after", "--views", "held-out"], nothing, "--views held-out is for runs: give --load-config"),
        (["before", "after", "--target-text", " "], nothing, "--target-text is empty"),
        (["before", "after", "--clip", "ViT-Q"], nothing, "--clip ViT-Q is unknown to open_clip"),
        (["before", "after", "--clip-weights", "no.pt"], nothing, "--clip-weights no.pt is neither a file nor known"),
        (
            ["before", "after", "--clip", "ViT-B-32", "--clip-weights", "w.pt"],
            write("w.pt", ""),
            "--clip-weights w.pt: weights of ViT-B-32 differ in activation or preprocessing, and a file does not say "
            "which are its own: add --clip-tag with the tag that the file is of, or was trained like: give one of open",
        ),
        (["before", "after", "--clip-tag", "openai"], nothing, "--clip-tag openai says how the weights in a local"),
        (["before", "after", "--metrics", "clip-image"], nothing, "--clip ViT-bigG-14 with --clip-weights laion2b"),
        (["before", "after", "--lpips", "lpips"], nothing, "--lpips lpips needs AlexNet, which cannot be had"),
        (["before", "after", "--metrics", "fid"], nothing, "cannot be had (no network): give a TorchScript file"),
        (
            ["before", "after", "--metrics", "fid", "--inception", "i.pt"],
            lambda: save_mean_colours(Path("i.pt"), 64),
            "--inception i.pt gives 64 features a picture, and FID is defined on the 2048 of Inception-v3's",
        ),
        (["before", "after", "--inception", "no.pt"], nothing, "--inception no.pt is no file"),
        (["before", "after", "--json", "before"], nothing, "--json before cannot be written (it is a folder)"),
        (["before", "after", "--csv", "f/o.csv"], write("f", ""), "f is no folder): give another file"),
        (["before", "after", "--retrieval-set", "no.txt"], nothing, "--retrieval-set no.txt cannot be read"),
        (["before", "after", "--retrieval-set", "t"], write("t", "\n"), "--retrieval-set t is empty"),
        (["before", "after", "--retrieval-set", "t"], write("t", "a\nb\na"), "--retrieval-set t has 'a' twice"),
        (["--load-config", "no.yml"], nothing, "--load-config no.yml is no file"),
        (["--load-config", "a", "b", "c"], nothing, "--load-config takes one run or two"),
        (["--load-config", "a.yml"], write("a.yml", "x: 1"), "scene, the scene before the edit, is missing"),
        (
            ["--load-config", "a.yml", "a.yml"],
            write("a.yml", "x: 1"),
            "a.yml is not the config.yml of a nerfstudio run",
        ),
        (["--load-config", "a.yml", "a.yml"], write("a.yml", "x: [1"), "a.yml cannot be loaded"),
    ],
)
def test_what_cannot_work_is_said_in_one_message_before_anything_is_written(
    here: Path,
    offline: None,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    prepare: Callable[[], object],
    complaint: str,
) -> None:
    prepare()
    there = sorted(here.iterdir())
    assert main(["metrics", *arguments]) == 2
    text = said(capsys)
    assert complaint in text and text.count("csd: error:") == 1
    assert sorted(here.iterdir()) == there


TRUTH = ["--truth", "after", "--metrics", "psnr"]


@pytest.mark.parametrize(
    ("arguments", "used_by"),
    [
        (["--source-text", "a", *TRUTH], "clip-direction"),
        (["--target-text", "a", *TRUTH], "clip-direction, clip-text, clip-depth, r-precision"),
        (["--truth", "after", "--metrics", "warp"], "lpips, fid, psnr, ssim"),
        (["--retrieval-set", "texts.txt", *TRUTH], "r-precision"),
        (["--clip", "ViT-B-32", *TRUTH], "clip-direction, clip-image, clip-consistency, clip-text, clip-depth, r-prec"),
        (
            ["--clip-weights", "openai", *TRUTH],
            "clip-direction, clip-image, clip-consistency, clip-text, clip-depth, r",
        ),
        (["--clip-tag", "openai", *TRUTH], "clip-direction, clip-image, clip-consistency, clip-text, clip-depth, r-p"),
        (["--lpips", "st-lpips", *TRUTH], "lpips"),
        (["--inception", "no.pt", *TRUTH], "fid"),
    ],
)
def test_a_flag_that_no_named_metric_uses_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], used_by: str
) -> None:
    assert main(["metrics", "before", "after", *arguments]) == 2
    metric = arguments[-1]
    complaint = f"{arguments[0]} has no effect on --metrics {metric}: leave it out, or add one of {used_by}"
    assert said(capsys).startswith(f"csd: error: {complaint}")


def test_every_flag_without_effect_is_said_at_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics", "before", "after", "--lpips", "lpips", "--source-text", "a", *TRUTH]) == 2
    lines = [line.split(" has no")[0] for line in capsys.readouterr().err.strip().splitlines()]
    assert lines == ["csd: error: --source-text", "--lpips"]


def test_a_flag_that_one_of_the_named_metrics_uses_is_taken(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["metrics", "before", "after", "--metrics", "psnr", "lpips", "--truth", "after", "--lpips", "st-lpips"]
    assert main(command) == 0
    assert "left out" not in said(capsys)


def test_auto_is_the_default(here: Path, offline: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics", "before", "after", "--metrics", "auto"]) == 0
    assert "left out: psnr, ssim: add --truth" in said(capsys)


def test_folders_of_other_names_are_told_to_be_paired_in_order(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in Path("after").iterdir():
        file.rename(file.with_name(f"edited_{file.name}"))
    assert main(["metrics", "before", "after", "--metrics", "lpips", "--lpips", "st-lpips"]) == 0
    assert "compared in their order: 0 with edited_0, ... 2 with edited_2." in said(capsys)


def test_explain_needs_no_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics", "--explain"]) == 0
    text = capsys.readouterr().out
    assert "clip-direction\nCLIP directional similarity" in text and "Heusel et al. 2017" in text


def test_help_names_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["metrics", "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    flags = "frames load-config views metrics source-text target-text truth clip clip-weights clip-tag lpips inception"
    assert all(f"--{flag}" in text for flag in [*flags.split(), "retrieval-set", "explain", "json", "csv"])
    assert "BEFORE" in text and "AFTER" in text


def test_the_help_names_the_default_model(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["metrics", "--help"])
    assert MODEL in capsys.readouterr().out


def test_the_command_line_is_light() -> None:
    """Its help must not wait for libraries that take seconds to import."""
    code = (
        "import sys, csd_nerf.cli\n"
        "heavy = {'torch', 'nerfstudio', 'open_clip', 'lpips', 'stlpips_pytorch', 'torch_fidelity', 'cv2', 'av'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
