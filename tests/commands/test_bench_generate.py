"""`csd bench generate`: what the table has already is neither computed again nor lost."""

from pathlib import Path

import pytest

from csd_nerf.bench import generation_report as report
from csd_nerf.bench.generation import make_cells
from csd_nerf.commands.bench import Bench

CAPTION = "a red car"


def finished(value: float) -> dict:
    names = ("R-precision", "object", "warp error", "saturation", "sharpness", "coverage")
    costs = {"network_samples": 8, "seconds": 2.0, "processor_seconds": 1.0, "threads": 1}
    return {"measures": dict.fromkeys(names, value), **costs}


def table(folder: Path, *methods: str) -> str:
    """A table of finished objects in `folder`."""
    cells = make_cells([CAPTION], methods, (0,), quick=True, prior="toy", precision="auto")
    text = report.to_csv(cells, {cell.key: finished(0.25 * (i + 1)) for i, cell in enumerate(cells)})
    folder.mkdir()
    (folder / "generate.csv").write_text(text)
    return text


def test_a_table_is_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    text = table(tmp_path / "results", "csd", "sds")
    (tmp_path / "results/a_red_car.jpg").write_bytes(b"of both")
    asked = Bench("generate", True, tmp_path / "results", tmp_path / "work", workers=1, instructions=(CAPTION,))
    only = Bench(**{**vars(asked), "methods": ("csd",)})
    assert only.run() == 0
    said = capsys.readouterr()
    assert "1 objects; 0 are to be made" in said.err and "| csd | 0.250" in said.out and "sds" not in said.out
    lines = report.from_csv((tmp_path / "results/generate.csv").read_text())
    assert lines == report.from_csv(text), "the other object's line is kept"
    assert (tmp_path / "results/a_red_car.jpg").read_bytes() == b"of both", "and so is the sheet that shows it"


def test_bad_input_names_the_flag_before_anything_is_made(tmp_path: Path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results/generate.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"--output: .*generate.csv is no table of this benchmark"):
        Bench("generate", True, tmp_path / "results", tmp_path / "work", instructions=(CAPTION,)).run()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="--output .*file cannot be made .* give another folder"):
        Bench("generate", True, tmp_path / "file", tmp_path / "work", instructions=(CAPTION,)).run()
    with pytest.raises(ValueError, match="--workers 0: give at least 1"):
        Bench("generate", True, tmp_path / "new", tmp_path / "work", workers=0, instructions=(CAPTION,)).run()
    with pytest.raises(ValueError, match="--clip no-such-model is unknown to open_clip"):
        Bench("generate", True, tmp_path / "new", tmp_path / "work", clip="no-such-model", methods=("csd",)).run()
    with pytest.raises(ValueError, match="--clip has no meaning for csd bench scenes: csd metrics measures it"):
        Bench("scenes", True, tmp_path / "new", tmp_path / "work", clip="ViT-B-32").run()
    with pytest.raises(ValueError, match="--clip-tag openai says how the weights in a local file were trained"):
        Bench("generate", True, tmp_path / "new", tmp_path / "work", clip_tag="openai", methods=("csd",)).run()
