"""`csd stylegan convert`: names change, pictures do not."""

from pathlib import Path

import torch

from csd_nerf.cli import main
from csd_nerf.images.stylegan.files import load_generator


def test_converting_changes_the_names_and_not_the_pictures(small: Path, tmp_path: Path, capsys) -> None:
    output = tmp_path / "b.safetensors"
    assert main(["stylegan", "convert", str(small), str(output), "--layout", "rosinality"]) == 0
    z = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(load_generator(output)(z), load_generator(small)(z))
    assert "32 x 32 pixels, 2 mapping layers, rosinality layout" in capsys.readouterr().err.replace("\n", " ")
    torch.save({"g_ema": {"what": torch.ones(1)}}, tmp_path / "c.pt")
    assert main(["stylegan", "convert", str(tmp_path / "c.pt"), str(output)]) == 2
    assert "It has what" in capsys.readouterr().err.replace("\n", " ")
