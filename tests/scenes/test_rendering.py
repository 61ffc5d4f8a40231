import json
from pathlib import Path

import pytest
import torch

from csd_nerf.scenes import Pinhole, SceneError, load_scene, render_views
from csd_nerf.scenes.rendering import render_cameras
from csd_nerf.scenes.run import EditRun
from tests.scenes.edit_fixtures import tiny_run


@pytest.fixture(scope="module")
def run(tiny_scene: Path, tmp_path_factory: pytest.TempPathFactory) -> EditRun:
    return tiny_run(tiny_scene, tmp_path_factory.mktemp("rendering"), scene_steps=30)


def data_poses(scene: Path) -> torch.Tensor:
    frames = json.loads((scene / "transforms.json").read_text())["frames"]
    return torch.tensor([frame["transform_matrix"] for frame in sorted(frames, key=lambda f: f["file_path"])])[:, :3]


def test_cameras_are_given_in_the_datas_own_world(run: EditRun, tiny_scene: Path):
    """The data parser turns, centres and scales the world; a training view's own pose must still show that view."""
    pipeline = load_scene(run.config_path)
    names = [path.name for path in pipeline.datamanager.train_dataset.image_filenames]
    view = names.index("003.png")
    rendered = render_views(run.config_path, data_poses(tiny_scene)[3:4], Pinhole(16, 16, 1.2 * 16))
    expected = pipeline.render_training_views([view])[0]
    assert rendered.images.shape == (1, 3, 16, 16) and rendered.depths.shape == (1, 16, 16)
    assert torch.allclose(rendered.images[0], expected, atol=2e-3)
    other = render_views(pipeline, data_poses(tiny_scene)[7:8], Pinhole(16, 16, 1.2 * 16))
    assert (other.images[0] - expected).abs().max() > 0.02, "another pose is another picture"


def test_before_and_after_the_edit(run: EditRun, tiny_scene: Path):
    poses, camera = data_poses(tiny_scene)[:2], Pinhole(8, 8, 9.6)
    before = render_views(run.config_path, poses, camera, checkpoint=run.scene_checkpoint)
    folder = render_views(run.config_path, poses, camera, checkpoint=run.scene_checkpoint.parent)
    after = render_views(run.config_path, poses, camera)
    assert torch.equal(before.images, folder.images)
    assert (before.images - after.images).abs().mean() > 1e-3


def test_depths_are_in_units_of_the_data(run: EditRun):
    pipeline = load_scene(run.config_path)
    cameras = pipeline.datamanager.train_dataset.cameras[:1]
    scale = float(pipeline.datamanager.train_dataparser_outputs.dataparser_scale)
    assert scale != 1
    raw = pipeline.model.get_outputs_for_camera(cameras)["depth"][..., 0]
    assert torch.allclose(render_cameras(pipeline, cameras).depths[0], raw / scale)


def test_a_scene_is_loaded_without_its_prior(run: EditRun):
    """The configuration names a prior that cannot be loaded; rendering, evaluation and export do not need it."""
    assert "prior: negative" in run.config_path.read_text()
    pipeline = load_scene(run.config_path)
    assert pipeline.session is None and not hasattr(pipeline, "csd_edit")
    assert not pipeline.training


def test_rendering_does_not_disturb_training(run: EditRun):
    pipeline = load_scene(run.config_path)
    pipeline.restore_sampler([100.0, 3.0, 0.25])
    state = torch.get_rng_state()
    pipeline.train()
    pipeline.render_training_views([0])
    assert pipeline.training and torch.equal(torch.get_rng_state(), state)
    assert pipeline.sampler_state() == [100, 3, 0.25]


@pytest.mark.parametrize("size", [(16, 16), (12, 10)])
def test_views_rendered_together_are_those_rendered_alone(
    run: EditRun, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
):
    """One of them of another size, in any order, in chunks that end inside of views; the reference renders a camera."""
    pipeline = load_scene(run.config_path)
    data, views = pipeline.datamanager.train_dataset, [4, 0, 7, 4]
    data.cameras.height[7], data.cameras.width[7] = size
    expected = []
    for view in views:
        camera = data.cameras[view : view + 1]
        expected.append(pipeline.model.get_outputs_for_camera(camera)["rgb"].permute(2, 0, 1))
    calls = []
    pipeline.model.register_forward_pre_hook(lambda _, rays: calls.append((len(rays[0]), torch.is_grad_enabled())))
    for at_once, chunk in ((1 << 20, 1 << 15), (600, 100), (1, 7)):
        monkeypatch.setattr("csd_nerf.scenes.edit_pipeline._RAYS_AT_ONCE", at_once)
        pipeline.model.config.eval_num_rays_per_chunk = chunk
        found = pipeline.render_training_views(views)
        assert [picture.shape for picture in found] == [(3, 16, 16), (3, 16, 16), (3, *size), (3, 16, 16)]
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert calls[0] == (3 * 256 + size[0] * size[1], False), "all views in one call, without autograd"


def test_a_config_of_another_method_is_refused(tmp_path: Path):
    (tmp_path / "config.yml").write_text("a: 1\n")
    with pytest.raises(SceneError, match="is not the config.yml of a nerfstudio run"):
        load_scene(tmp_path / "config.yml")
