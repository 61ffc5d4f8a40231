"""Toy scenes as nerfstudio datasets."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from csd_nerf.toyworld.edits import edit_from_instruction
from csd_nerf.toyworld.nerf_scene import scene_cameras, write_nerfstudio
from csd_nerf.toyworld.scene import demo_scene


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder, scene = tmp_path_factory.mktemp("scene"), demo_scene()
    edit = edit_from_instruction("make it blue", scene)
    return folder, write_nerfstudio(folder, scene, [edit], count=4, test_count=2, size=16, samples=1)


def test_pictures_and_truth_lie_side_by_side(written):
    folder, views = written
    assert views.test == (4, 5) and len(views.cameras) == 6
    for images, place in ((views.images, "images"), (views.edited["make it blue"], "edited/make it blue")):
        files = sorted((folder / place).glob("*.png"))
        assert [file.name for file in files] == [f"{i:05d}.png" for i in range(6)]
        stored = np.array(Image.open(files[3]))
        assert np.abs(stored / 255 - images[3].permute(1, 2, 0).numpy()).max() <= 0.5 / 255 + 1e-6
    assert json.loads((folder / "edited/make it blue/edit.json").read_text())["kind"] == "recolour"


def test_nerfstudio_reads_it(written):
    parsers = pytest.importorskip("nerfstudio.data.dataparsers.nerfstudio_dataparser")
    folder, views = written
    config = parsers.NerfstudioDataParserConfig(
        data=folder, orientation_method="none", center_method="none", auto_scale_poses=False
    )
    parser = config.setup()
    train, test = parser.get_dataparser_outputs("train"), parser.get_dataparser_outputs("test")
    assert [path.name for path in train.image_filenames] == [f"{i:05d}.png" for i in range(4)]
    assert [path.name for path in test.image_filenames] == ["00004.png", "00005.png"]
    assert torch.allclose(train.cameras.camera_to_worlds, views.cameras.camera_to_world[:4, :3], atol=1e-5)
    assert train.cameras.fx[0].item() == pytest.approx(views.cameras.focal)
    assert (train.cameras.width[0].item(), train.cameras.height[0].item()) == (16, 16)


def test_a_scene_needs_a_view():
    with pytest.raises(ValueError, match="at least one training view"):
        scene_cameras(0)
    assert len(scene_cameras(3, 0)) == 3
