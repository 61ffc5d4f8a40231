"""The examples in the modules' docstrings run as they are printed."""

import importlib
import textwrap
from pathlib import Path

import pytest
from PIL import Image

from csd_nerf.images.picture_files import write_picture
from csd_nerf.toyworld.cameras import orbit_cameras
from csd_nerf.toyworld.render import Renderer
from csd_nerf.toyworld.scene import Scene


def example(module: str) -> str:
    """The indented block of a module's docstring, up to the first line of prose."""
    text = importlib.import_module(module).__doc__ or ""
    lines = text.split("\n")
    start = next(number for number, line in enumerate(lines) if line.startswith("    "))
    block = []
    for line in lines[start:]:
        if line and not line.startswith("    "):
            break
        block.append(line)
    return textwrap.dedent("\n".join(block))


@pytest.mark.slow
def test_pictures_of_words(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(example("csd_nerf.images.synthesis"), {})
    with Image.open("mushrooms.png") as sheet:
        assert sheet.width > 2 * 64


@pytest.mark.slow
def test_layers(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    scene = Scene(1_000_000, "mushroom", (0.0, 0.0, 0.0, 0.0), "red", "meadow")
    write_picture(Path("mushroom.png"), Renderer(orbit_cameras([20.0], [20.0])).render(scene)[0])
    exec(example("csd_nerf.images.layers"), {})
    assert sorted(path.name for path in Path("edited").iterdir()) == ["alpha.png", "composite.png", "layer.png"]
