"""`csd layers` and `csd synthesize` in Stable Diffusion's own latent space, by its tiny autoencoder, on a photo.

Only the autoencoder is real: the network that guides has random weights, so that pictures mean nothing.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch

from csd_nerf.cli import main
from csd_nerf.distill import resize
from csd_nerf.images.picture_files import read_picture, write_picture
from tests.commands.pictures import pixels
from tests.tiny_prior import make_tiny_prior

DATA = Path(__file__).resolve().parents[3] / "shared/data"
pytestmark = pytest.mark.skipif(not (DATA / "taesd").is_dir(), reason="no TAESD weights here")


@pytest.fixture(scope="module")
def prior(tmp_path_factory) -> Path:
    """A text-to-image model of 64 x 64 pixels."""
    folder = make_tiny_prior(tmp_path_factory.mktemp("prior") / "model", in_channels=4, factor=8)
    shutil.rmtree(folder / "vae")
    (folder / "vae").mkdir()
    for path in (DATA / "taesd").iterdir():
        shutil.copyfile(path, folder / "vae" / path.name)
    index = json.loads((folder / "model_index.json").read_text())
    index["vae"] = ["diffusers", "AutoencoderTiny"]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def test_a_layer_over_a_photo(prior: Path, tmp_path: Path, capsys) -> None:
    photo = resize(read_picture(DATA / "river.jpg").image[None], (96, 280))[0]
    write_picture(tmp_path / "river.png", photo)
    output = tmp_path / "out"
    words = ["--prior", str(prior), "--prompt", "a red cube", "--steps", "2"]
    assert main(["layers", str(tmp_path / "river.png"), str(output), *words]) == 0
    said = capsys.readouterr().err.replace("\n", " ")
    assert "280 x 96 pixels, worked on at 112 x 40" in said and "FM" in said and "KL" in said
    layer, composite = (read_picture(output / f"{name}.png") for name in ("layer", "composite"))
    assert layer.alpha is not None and composite.image.shape == photo.shape
    over = layer.alpha * layer.image + (1 - layer.alpha) * read_picture(tmp_path / "river.png").image
    assert (over - composite.image).abs().max() < 1.6 / 255
    # With hardly a step made it is the photo under what the real autoencoder gives back of the photo under a veil.
    blurred = [resize(one[None], (12, 35)).flatten() for one in (composite.image, photo)]
    assert torch.corrcoef(torch.stack(blurred))[0, 1] > 0.6


def test_the_ablation(prior: Path, tmp_path: Path) -> None:
    words = ["--prior", str(prior), "--prompt", "a red cube", "--steps", "2", "--ablation", "--samples", "2"]
    assert main(["synthesize", *words, "--output", str(tmp_path)]) == 0
    losses = json.loads((tmp_path / "synthesis.json").read_text())["losses, last tenth"]
    made = {name: {key for key, part in parts.items() if part} for name, parts in losses.items()}
    assert made["LSD"] == {"lsd"} and made["LSD + FM + KL"] == {"lsd", "feature_matching", "kl"}
    matching, lsd = (losses["LSD + FM"][key]["gradient norm"] for key in ("feature_matching", "lsd"))
    assert matching > lsd  # at the paper's lambda of 3
    assert pixels(tmp_path / "lsd_fm_kl_001.png").std() > 10
