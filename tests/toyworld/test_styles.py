"""Styles are functions of the picture alone."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from csd_nerf.toyworld.edits import Edit
from csd_nerf.toyworld.style_nets import PAINTINGS, StyleNet, load_style_nets
from csd_nerf.toyworld.styles import PHOTO_STYLES, STYLES, luminance

REAL_NETS = Path(__file__).resolve().parents[3] / "shared/data/style_nets"


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Smooth colourful pictures with a few edges."""
    coarse = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(coarse, (64, 64), mode="bicubic").clamp(0, 1)
    smooth[:, :, 20:40, 20:40] = torch.tensor([0.9, 0.2, 0.1])[:, None, None]
    return smooth


@pytest.mark.parametrize("name", list(STYLES))
def test_styles_are_deterministic_and_treat_pictures_alone(name, images):
    styled = STYLES[name](images)
    assert styled.shape == images.shape
    assert 0 <= styled.min() and styled.max() <= 1
    assert torch.equal(styled, STYLES[name](images))
    assert torch.allclose(styled[1:], STYLES[name](images[1:]), atol=1e-5)
    assert (styled - images).abs().mean() > 0.04, "a style must be seen"


@pytest.mark.parametrize("name", list(STYLES))
@pytest.mark.parametrize("size", [(48, 80), (128, 128)])
def test_styles_take_any_size(name, size, images):
    resized = torch.nn.functional.interpolate(images, size)
    assert STYLES[name](resized).shape == resized.shape


def test_a_sketch_is_grey_with_dark_lines(images):
    sketch = STYLES["sketch"](images)
    assert (sketch.amax(1) - sketch.amin(1)).max() < 0.06
    edge, inside = luminance(sketch)[:, 0, 30, 18:22].min(), luminance(sketch)[:, 0, 24:36, 24:36].mean()
    assert edge < inside - 0.2


def test_pop_art_has_few_colours(images):
    popart = STYLES["popart"](images)
    flat = torch.stack([(popart - tone).abs() for tone in (0.06, 0.53, 1.0)]).amin(0) < 0.01
    assert flat.float().mean() > 0.85


def test_night_photos_are_dark_blue_and_bright_skies_most(images):
    night = PHOTO_STYLES["night"](images)
    assert luminance(night).mean() < 0.5 * luminance(images).mean()
    white = PHOTO_STYLES["night"](torch.ones(1, 3, 4, 4))[0, :, 0, 0]
    assert white[2] > white[1] > white[0] and white[2] < 0.42
    greys = PHOTO_STYLES["night"](torch.linspace(0, 1, 50).expand(1, 3, 1, 50))
    assert (greys.diff(dim=3) > 0).float().mean() > 0.7, "light and dark keep their order, but for the brightest"


def fake_net(folder: Path, name: str) -> None:
    shapes = [(32, 3, 9), (64, 32, 3), (128, 64, 3), *[(128, 128, 3)] * 10, (128, 64, 3), (64, 32, 3), (3, 32, 9)]
    outputs = [32, 64, *[128] * 11, 64, 32, 3]
    generator, tensors = torch.Generator().manual_seed(1), {}
    for i, ((a, b, k), out) in enumerate(zip(shapes, outputs, strict=True)):
        tensors[f"{3 * i:02d}"] = 0.05 * torch.randn(a, b, k, k, generator=generator)
        tensors[f"{3 * i + 1:02d}"], tensors[f"{3 * i + 2:02d}"] = torch.zeros(out), torch.ones(out)
    save_file(tensors, folder / f"{name}.safetensors")


def test_style_nets_are_read_from_a_folder(tmp_path, images):
    fake_net(tmp_path, "wave")
    nets = load_style_nets(tmp_path)
    assert list(nets) == ["wave"] and load_style_nets(None) == {}
    small = images[:, :, :32, :32]
    painted = nets["wave"](small, work_size=32)
    assert painted.shape == small.shape and 0 <= painted.min() and painted.max() <= 1
    assert torch.equal(painted, nets["wave"](small, work_size=32))
    edit = Edit("painting", "make it look like udnie", style="udnie")
    with pytest.raises(KeyError, match="udnie.safetensors"):
        edit.picture(small, nets)


@pytest.mark.skipif(not REAL_NETS.is_dir(), reason="no folder of real painting styles")
def test_real_styles_paint(images):
    name = next(iter(PAINTINGS))
    painted = StyleNet(REAL_NETS / f"{name}.safetensors")(images[:1], work_size=64)
    assert (painted - images[:1]).abs().mean() > 0.08
    assert painted.std() > 0.08
