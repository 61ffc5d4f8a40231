"""The views of runs: what a depth is, where the cameras are, which views are shown."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.configs.method_configs import method_configs
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManagerConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipelineConfig
from torch import Tensor

from csd_nerf.cli import main
from csd_nerf.commands.metrics_runs import _views, read_runs
from csd_nerf.images.writing import to_pil
from csd_nerf.metrics import warp_error_3d
from csd_nerf.metrics.pictures import Pictures
from csd_nerf.scenes import Pinhole, SceneError, load_scene, render_views
from csd_nerf.scenes.edit_config import lite_config
from csd_nerf.scenes.edit_pipeline import EditPipeline
from csd_nerf.scenes.run import EditRun
from csd_nerf.scenes.terminal import own_writers
from tests.conftest import make_tiny_scene
from tests.scenes.edit_fixtures import tiny_run

GROUND = -0.6
"""Height of the ground in the data's world; the cameras are at 0.5."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> EditRun:
    folder = tmp_path_factory.mktemp("metrics_runs")
    return tiny_run(make_tiny_scene(folder / "scene", size=40), folder, scene_steps=3, configure=_larger)


def _larger(config: object) -> None:
    config.pipeline.datamanager.view_size = 36  # pyright: ignore[reportAttributeAccessIssue]


def world_to_model(pipeline: EditPipeline) -> tuple[Tensor, Tensor, float]:
    outputs = pipeline.datamanager.train_dataparser_outputs
    return outputs.dataparser_transform[:3, :3], outputs.dataparser_transform[:3, 3], float(outputs.dataparser_scale)


@pytest.fixture
def ground(run: EditRun, monkeypatch: pytest.MonkeyPatch) -> Iterator[EditPipeline]:
    """The run's pipeline with another field: a horizontal plane, painted, in the data's world."""
    pipeline = load_scene(run.config_path)
    rotation, translation, scale = world_to_model(pipeline)
    model = pipeline.nerfacto

    def density(positions: Tensor) -> Tensor:
        height = (((positions / scale) - translation) @ rotation)[..., 2:]
        return 1e4 * (height < GROUND)

    def field(ray_samples: object, compute_normals: bool = False) -> dict[object, Tensor]:
        from nerfstudio.field_components.field_heads import FieldHeadNames

        positions = ray_samples.frustums.get_positions()  # pyright: ignore[reportAttributeAccessIssue]
        points = (positions / scale - translation) @ rotation
        paint = 0.5 + 0.3 * torch.stack([torch.sin(points[..., i]) for i in (0, 1, 0)], dim=-1)
        return {FieldHeadNames.DENSITY: density(positions), FieldHeadNames.RGB: paint}

    monkeypatch.setattr(model, "density_fns", [density])
    monkeypatch.setattr(model.field, "forward", field)
    monkeypatch.setattr(model.proposal_sampler, "num_proposal_samples_per_ray", (256,))
    monkeypatch.setattr(model.proposal_sampler, "num_nerf_samples_per_ray", 128)
    yield pipeline


def test_a_run_of_nerfstudios_own_method_is_compared_with_its_edit(run: EditRun, tmp_path: Path):
    """As the paper works: nerfacto first, csd-edit on it; here both on the same photos."""
    config: Any = copy.deepcopy(method_configs["nerfacto"])
    data = json.loads((run.folder / "edits/edits.json").read_text())["data"]
    photos = NerfstudioDataParserConfig(data=Path(data))
    config.pipeline = VanillaPipelineConfig(
        datamanager=VanillaDataManagerConfig(dataparser=photos, train_num_rays_per_batch=64),
        model=lite_config().pipeline.model,
    )
    config.data, config.output_dir, config.timestamp, config.vis = Path(data), tmp_path, "now", "none"
    config.max_num_iterations, config.machine.device_type, config.mixed_precision = 2, "cpu", False
    config.optimizers.pop("camera_opt")
    config.save_config()
    trainer = config.setup(local_rank=0, world_size=1)
    with own_writers():
        trainer.setup()
        trainer.train()
    before, after = read_runs([trainer.base_dir / "config.yml", run.config_path])
    assert before.names == after.names and before.kind == "views" and before.size == (40, 40)
    geometry = before.loaded.views
    assert geometry is not None and torch.isfinite(before.images).all() and (geometry.depths > 0).all()
    with pytest.raises(SceneError, match="is not the config.yml of a csd-edit run"):
        load_scene(trainer.base_dir / "config.yml")


def test_a_rendered_depth_is_the_distance_along_the_ray(ground: EditPipeline):
    """Straight down on the plane, z-depth is the same for all pixels and the distance along the ray is not."""
    pose = torch.eye(4)[:3]
    pose[:, 3] = torch.tensor([0.0, 0.0, 0.5])
    size, focal = 12, 9.0
    depth = render_views(ground, pose[None], Pinhole(size, size, focal)).depths[0]
    offset = torch.arange(size) + 0.5 - size / 2
    along = (1 + (offset[:, None] ** 2 + offset[None] ** 2) / focal**2).sqrt()
    z = 0.5 - GROUND
    assert along.max() > 1.3
    assert torch.allclose(depth, z * along, rtol=0.02)


def test_warp_error_of_a_painted_plane_is_small(ground: EditPipeline):
    """Cameras, intrinsics and depths of a run fit together; any of them a little off does not."""
    views = _views(ground, "training", "run", lambda done, total: None)
    assert views.kind == "views" and views.neighbours is not None and views.loaded.views is not None
    geometry = views.loaded.views
    below = geometry.depths < 8  # the horizon has no surface
    error = warp_error_3d(views.images, geometry, pairs=views.neighbours, mask=below).mean
    assert error < 0.003 and below.float().mean() > 0.5
    for name, factor in (("depths", 1.1), ("intrinsics", torch.tensor([1.3, 1.3, 1, 1]))):
        wrong = {**vars(geometry), name: getattr(geometry, name) * factor}
        off = warp_error_3d(views.images, type(geometry)(**wrong), pairs=views.neighbours, mask=below, tolerance=1.0)
        assert off.mean > 5 * error, name


def test_before_and_after_of_one_run(run: EditRun):
    before, after = read_runs([run.config_path])
    assert before.source.endswith("before the edit") and before.note == "1 held-out views"
    assert before.names == after.names and len(before) == 1 and before.size == (36, 36)
    assert (before.images - after.images).abs().mean() > 1e-3
    same, other = read_runs([run.config_path, run.config_path])
    assert torch.equal(same.images, other.images) and torch.equal(same.images, after.images)


def test_views_are_counted_while_they_are_rendered(run: EditRun):
    steps = []
    _, after = read_runs([run.config_path], "training", lambda done, total: steps.append((done, total)))
    assert not steps, "nothing is rendered before it is asked for"
    assert len(after.images) == len(after) == 11 and steps == [(i + 1, 11) for i in range(11)]
    assert {abs(a - b) for a, b in after.neighbours} <= {1, 10}, "on an orbit, the last is beside the first"


def test_held_out_views_that_do_not_exist(tmp_path: Path):
    few = tiny_run(make_tiny_scene(tmp_path / "scene", views=4), tmp_path, scene_steps=1, max_num_iterations=1)
    with pytest.raises(ValueError, match="--views held-out: .* keeps no view from training; give --views training"):
        read_runs([few.config_path], "held-out")
    before, _ = read_runs([few.config_path])
    assert before.note == "4 training views, the scene keeps none from training"
    path = few.folder.parents[2] / "scene/transforms.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"k1": 0.1}))
    before, _ = read_runs([few.config_path])
    assert "the cameras' lens distortion is left out" in before.note
    path.unlink()
    with pytest.raises(ValueError, match="--load-config .*config.yml before the edit cannot be loaded"):
        read_runs([few.config_path])


def test_runs_of_different_views_are_no_pair(run: EditRun, tmp_path: Path):
    other = tiny_run(make_tiny_scene(tmp_path / "scene", views=4), tmp_path, scene_steps=1, max_num_iterations=1)
    with pytest.raises(ValueError, match="have different views .*: give runs of the same data"):
        read_runs([run.config_path, other.config_path])


def test_the_command_on_a_run(run: EditRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The truth of a held-out view is found by its name among those of all views."""
    _, after = read_runs([run.config_path])
    save_truth(after, tmp_path / "truth")
    flags = ["--views", "held-out", "--truth", str(tmp_path / "truth"), "--json", str(tmp_path / "o.json")]
    assert main(["metrics", "--load-config", str(run.config_path), *flags, "--metrics", "psnr", "ssim"]) == 0
    scores = {(s["metric"], s["of"]): s["mean"] for s in json.loads((tmp_path / "o.json").read_text())["scores"]}
    assert scores["psnr", "after to truth"] > 50 > scores["psnr", "before to truth"]
    captured = capsys.readouterr()
    assert captured.out.lstrip().startswith("metric") and "1 held-out views" in captured.out
    arguments = ["--views", "training", "--metrics", "warp", "--json", str(tmp_path / "w.json")]
    assert main(["metrics", "--load-config", str(run.config_path), *arguments]) == 0
    after_, before_ = json.loads((tmp_path / "w.json").read_text())["scores"]
    assert "through depth" in after_["note"] and before_["mean"] >= 0


def save_truth(after: Pictures, folder: Path) -> None:
    folder.mkdir()
    to_pil(after.images[0]).save(folder / f"{after.names[0]}.png")
    for other in ("x0", "x1"):
        to_pil(1 - after.images[0]).save(folder / f"{other}.png")
