"""nerfstudio's own commands on an object: their functions, in this process."""

import json
from pathlib import Path

import av
import numpy as np
import open3d
import pytest
from nerfstudio.scripts.eval import ComputePSNR
from nerfstudio.scripts.exporter import ExportPointCloud, ExportPoissonMesh, ExportTSDFMesh
from nerfstudio.scripts.render import RenderCameraPath, SpiralRender

from csd_nerf.scenes.generation.cameras import turntable
from csd_nerf.scenes.generation.run import GenerationRun
from tests.scenes.generation.fixtures import tiny_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> GenerationRun:
    """A blob that has hardly been trained."""
    return tiny_run(tmp_path_factory.mktemp("object"))


def frames(video: Path) -> list[np.ndarray]:
    with av.open(str(video)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_a_spiral_and_a_camera_path_are_rendered(run: GenerationRun, tmp_path: Path):
    SpiralRender(load_config=run.config_path, output_path=tmp_path / "spiral.mp4", seconds=0.25, frame_rate=8).main()
    assert len(frames(tmp_path / "spiral.mp4")) == 2
    ranges = run.pipeline.datamanager.config.ranges()
    poses = turntable(ranges, 3, 8).cameras.camera_to_worlds
    stops = [{"camera_to_world": [*pose.flatten().tolist(), 0, 0, 0, 1], "fov": 45, "aspect": 1} for pose in poses]
    path = {"camera_type": "perspective", "render_height": 32, "render_width": 32, "camera_path": stops, "seconds": 1}
    (tmp_path / "path.json").write_text(json.dumps(path))
    RenderCameraPath(
        load_config=run.config_path, output_path=tmp_path / "path.mp4", camera_path_filename=tmp_path / "path.json"
    ).main()
    seen = frames(tmp_path / "path.mp4")
    assert len(seen) == 3 and seen[0].shape == (32, 32, 3)
    middle, corner = seen[0][12:20, 12:20].mean(axis=(0, 1)), seen[0][:4, :4].mean(axis=(0, 1))
    assert np.abs(middle - corner).max() > 3, "the object stands before its background"


def test_it_is_evaluated(run: GenerationRun, tmp_path: Path):
    ComputePSNR(load_config=run.config_path, output_path=tmp_path / "eval.json").main()
    results = json.loads((tmp_path / "eval.json").read_text())["results"]
    assert 0 < results["coverage"] < 1 and "psnr" not in results


def test_points_and_meshes_with_colours_are_exported(run: GenerationRun, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("csd_nerf.scenes.generation.datamanager._EXPORT_SIZE", 64)
    ExportPointCloud(
        load_config=run.config_path, output_dir=tmp_path, num_points=2000, num_rays_per_batch=1024, std_ratio=10.0
    ).main()
    cloud = open3d.io.read_point_cloud(str(tmp_path / "point_cloud.ply"))
    radii = np.linalg.norm(np.asarray(cloud.points), axis=1)
    assert len(radii) >= 1000 and 0.2 < np.median(radii) < 0.8 and cloud.has_colors() and cloud.has_normals()

    ExportTSDFMesh(
        load_config=run.config_path, output_dir=tmp_path / "tsdf", resolution=[24, 24, 24], texture_method="tsdf"
    ).main()
    mesh = open3d.io.read_triangle_mesh(str(tmp_path / "tsdf/tsdf_mesh.ply"))
    assert len(mesh.triangles) > 50 and mesh.has_vertex_colors()

    ExportPoissonMesh(
        load_config=run.config_path,
        output_dir=tmp_path / "poisson",
        num_points=2000,
        num_rays_per_batch=1024,
        target_num_faces=200,
        num_pixels_per_side=32,
        texture_method="nerf",
        normal_method="model_output",
    ).main()
    assert any((tmp_path / "poisson").glob("*.obj")), "a mesh with a texture of the object's colours"
    assert any((tmp_path / "poisson").glob("*.png"))
