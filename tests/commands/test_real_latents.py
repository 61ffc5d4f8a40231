"""`csd synthesize` and `csd layers` in the latent space of Stable Diffusion, with a network of random weights.

What random weights paint means nothing; how long the gradients of the losses are does: FM's and KL's hang on the
decoder and on the latents.
"""

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csd_nerf.cli import main
from tests.commands.pictures import picture, pixels
from tests.tiny_prior import make_tiny_prior

TAESD = Path(__file__).resolve().parents[3] / "shared/data/taesd"
pytestmark = pytest.mark.skipif(not TAESD.is_dir(), reason="no TAESD weights here")
SAID = re.compile(r"\|gradient\| LSD (\S+), FM (\S+) \((\S+) x LSD\), KL (\S+) over")


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text-to-image model of random weights that works on TAESD's latents; 64 x 64 pixels."""
    folder = make_tiny_prior(tmp_path_factory.mktemp("prior"), in_channels=4, factor=8)
    shutil.rmtree(folder / "vae")
    shutil.copytree(TAESD, folder / "vae")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "vae": ["diffusers", "AutoencoderTiny"]}))
    return folder


def said(text: str) -> list[tuple[float, float, float, float]]:
    """Norms of the gradients of LSD and FM, their ratio, and the norm of KL's, of each set of losses with all three."""
    lines = [tuple(map(float, found)) for found in SAID.findall(" ".join(text.split()))]
    for lsd, matching, ratio, kl in lines:
        assert all(0 < value < math.inf for value in (lsd, matching, ratio, kl))
        assert ratio == pytest.approx(matching / lsd, rel=0.06)  # two digits are shown, and means of norms divided
    return lines  # pyright: ignore[reportReturnType]


def test_figure_7_with_the_papers_lambdas(prior: Path, tmp_path: Path, capsys) -> None:
    command = ["synthesize", "--prior", str(prior), "--prompt", "a red cube", "--ablation", "--samples", "2"]
    assert main([*command, "--steps", "3", "--output", str(tmp_path)]) == 0
    ((lsd, matching, _, kl),) = said(capsys.readouterr().err)
    record = json.loads((tmp_path / "synthesis.json").read_text())
    assert (record["lambda_feature_matching"], record["lambda_kl"], record["lambda_lsd"]) == (3.0, 0.1, 1.0)
    losses = record["losses, last tenth"]
    assert list(losses) == ["LSD", "LSD + FM", "LSD + KL", "LSD + FM + KL"]
    for name, parts in losses.items():
        on = {"lsd": True, "feature_matching": "FM" in name, "kl": "KL" in name}
        assert {key: part is not None for key, part in parts.items()} == on
        values = [value for part in parts.values() if part for value in part.values()]
        assert all(math.isfinite(value) for value in values)
    norms = {key: part["gradient norm"] for key, part in losses["LSD + FM + KL"].items()}
    assert (norms["lsd"], norms["feature_matching"], norms["kl"]) == pytest.approx((lsd, matching, kl), rel=0.01)
    shown = [pixels(tmp_path / f"{name}_000.png") for name in ("lsd", "lsd_fm", "lsd_kl", "lsd_fm_kl")]
    assert all(image.shape == (64, 64, 3) for image in shown)
    assert not any(np.array_equal(shown[0], image) for image in shown[1:])


def test_a_layer_with_the_papers_lambdas(prior: Path, tmp_path: Path, capsys) -> None:
    """The paper's lambdas of layers are small beside its mask's 1: the ratio of FM and LSD is what they say of each."""
    source, mask = picture(tmp_path / "in.png"), tmp_path / "mask.png"
    half = np.zeros((66, 90), np.uint8)
    half[:, :45] = 255
    Image.fromarray(half).save(mask)
    command = ["layers", str(source), str(tmp_path / "out"), "--prior", str(prior), "--prompt", "a red cube"]
    assert main([*command, "--mask", str(mask), "--steps", "3"]) == 0
    (paper,) = said(capsys.readouterr().err)
    assert main([*command, "--mask", str(mask), "--steps", "3", "--lambda-fm", "1e-6"]) == 0
    (weaker,) = said(capsys.readouterr().err)
    assert weaker[2] == pytest.approx(paper[2] / 10, rel=0.3), "lambda_FM is the paper's 1e-5 by default"
    assert paper[0] < 1e-3, "lambda_LSD is its 1e-6"
    for name, channels in (("composite", 3), ("layer", 4)):
        assert pixels(tmp_path / "out" / f"{name}.png").shape == (66, 90, channels)
