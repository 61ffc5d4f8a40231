"""nerfstudio's commands, on plain nerfacto and on ours, without GPU, network, AlexNet and ffmpeg on PATH."""

import copy
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import av
import pytest
import torch
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.scripts.eval import ComputePSNR
from nerfstudio.scripts.render import RenderInterpolated
from nerfstudio.scripts.train import train_loop

from tests.conftest import make_tiny_scene

TINY = {
    "pipeline.model.num-levels": "2",
    "pipeline.model.log2-hashmap-size": "8",
    "pipeline.model.num-nerf-samples-per-ray": "4",
    "pipeline.model.num-proposal-iterations": "1",
    "pipeline.model.num-proposal-samples-per-ray": "8",
    "pipeline.datamanager.train-num-rays-per-batch": "64",
}
"""Flags that make nerfacto as small as it gets."""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """No AlexNet, no proxy to get it through, no GPU, and only the environment's own programs on PATH."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("alone")
        patch.setenv("TORCH_HOME", str(folder))
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.setenv("PATH", str(Path(sys.executable).parent))
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            patch.setenv(name, "http://127.0.0.1:9")
        yield patch


def tiny_nerfacto(scene: Path, output: Path) -> TrainerConfig:
    config = copy.deepcopy(all_methods["nerfacto"])
    for flag, value in TINY.items():
        *path, name = flag.replace("-", "_").split(".")
        owner = config
        for part in path:
            owner = getattr(owner, part)
        setattr(owner, name, (int(value),) if name == "num_proposal_samples_per_ray" else int(value))
    config.pipeline.datamanager.data = scene
    config.data, config.output_dir, config.timestamp = scene, output, "now"
    config.vis = "tensorboard"
    config.max_num_iterations = 2
    return config


def test_train_evaluate_render(tmp_path: Path, alone: pytest.MonkeyPatch):
    """The commands' own functions, in this process: `ns-train nerfacto`, `ns-eval`, `ns-render interpolate`."""
    scene = make_tiny_scene(tmp_path / "scene", views=20)  # two for evaluation: a path needs two
    config = tiny_nerfacto(scene, tmp_path)
    config.save_config()
    train_loop(0, 1, config)
    state = torch.load(config.get_checkpoint_dir() / "step-000000001.ckpt", weights_only=True)
    assert not any("lpips" in name for name in state["pipeline"])

    run = config.get_base_dir() / "config.yml"
    ComputePSNR(load_config=run, output_path=tmp_path / "eval.json").main()
    results = json.loads((tmp_path / "eval.json").read_text())["results"]
    assert results["psnr"] > 0 and results["ssim"] != 0
    assert results["lpips"] is None and "AlexNet" in results["lpips_missing"]

    RenderInterpolated(
        load_config=run, output_path=tmp_path / "path.mp4", pose_source="eval", interpolation_steps=2
    ).main()
    with av.open(str(tmp_path / "path.mp4")) as video:
        assert next(video.decode(video=0)).width == 32


def call(*arguments: object, timeout: float = 1200) -> str:
    """Run a command of this environment as a user would; its output."""
    program, *rest = map(str, arguments)
    command = [sys.executable, str(Path(sys.executable).parent / program), *rest]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stdout[-5000:]
    return done.stdout


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_scene(tmp_path_factory.mktemp("scene") / "many", views=20)


@pytest.fixture(scope="module", params=["nerfacto", "csd-edit-lite"])
def method(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def trained(method: str, many: Path, tmp_path_factory: pytest.TempPathFactory, alone: pytest.MonkeyPatch) -> Path:
    """The run folder of `ns-train`, 20 steps in all."""
    output = tmp_path_factory.mktemp("outputs")
    train(method, many, output, "first", 20)
    (run,) = output.glob(f"*/{method}/first")
    return run


def train(method: str, scene: Path, output: Path, name: str, steps: int, *flags: object) -> str:
    tiny = [word for flag, value in TINY.items() for word in (f"--{flag}", value)]
    here = ["--data", scene, "--output-dir", output, "--timestamp", name, "--vis", "tensorboard"]
    if method != "nerfacto":
        here += ["--prompt", "make it night", "--pipeline.edit-steps", 2, "--pipeline.scene-steps", steps // 2]
        steps -= steps // 2
    return call("ns-train", method, *here, *tiny, "--max-num-iterations", steps, *flags)


@pytest.mark.slow
def test_evaluate(trained: Path, tmp_path: Path):
    said = call("ns-eval", "--load-config", trained / "config.yml", "--output-path", tmp_path / "eval.json")
    assert "LPIPS is not computed" in said
    assert json.loads((tmp_path / "eval.json").read_text())["results"]["lpips"] is None


@pytest.mark.slow
def test_continue_from_checkpoint(method: str, trained: Path, many: Path, tmp_path: Path):
    # nerfacto counts its steps from the loaded one; csd-edit counts those on edits from the first.
    steps = 2 if method == "nerfacto" else 24
    train(method, many, tmp_path, "second", steps, "--load-dir", trained / "nerfstudio_models")
    assert [file.name for file in tmp_path.rglob("nerfstudio_models/*.ckpt")] == ["step-000000021.ckpt"]
    kept = [] if method == "nerfacto" else ["step-000000009.ckpt"]
    assert [file.name for file in tmp_path.rglob("scene/*.ckpt")] == kept, "the scene before the edit"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["interpolate", "camera-path", "spiral"])
def test_render_video(trained: Path, tmp_path: Path, kind: str):
    path = {"keyframes": [], "camera_type": "perspective", "render_height": 32, "render_width": 32, "seconds": 1}
    pose = torch.eye(4).flatten().tolist()
    path["camera_path"] = [{"camera_to_world": pose, "fov": 50, "aspect": 1}] * 2
    (tmp_path / "path.json").write_text(json.dumps(path))
    flags = {
        "interpolate": ["--interpolation-steps", 2, "--pose-source", "eval"],
        "camera-path": ["--camera-path-filename", tmp_path / "path.json"],
        "spiral": ["--seconds", 1, "--frame-rate", 2],
    }[kind]
    video = tmp_path / "video.mp4"
    call("ns-render", kind, "--load-config", trained / "config.yml", "--output-path", video, *flags)
    with av.open(str(video)) as frames:
        assert next(frames.decode(video=0)).width == 32


@pytest.mark.slow
def test_render_dataset(trained: Path, tmp_path: Path):
    call("ns-render", "dataset", "--load-config", trained / "config.yml", "--output-path", tmp_path, "--split", "test")
    assert list(tmp_path.rglob("rgb/*"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pointcloud", "tsdf", "poisson"])
def test_export(trained: Path, tmp_path: Path, kind: str):
    points = ["--num-points", 2000, "--num-rays-per-batch", 500, "--normal-method", "open3d"]
    texture = ["--num-pixels-per-side", 64, "--target-num-faces", 100]
    flags = {
        "pointcloud": points,
        "poisson": [*points, *texture],
        "tsdf": ["--resolution", 16, "--downscale-factor", 1, *texture],
    }[kind]
    call("ns-export", kind, "--load-config", trained / "config.yml", "--output-dir", tmp_path, *flags)
    assert (tmp_path / ("point_cloud.ply" if kind == "pointcloud" else "mesh.obj")).stat().st_size > 100


@pytest.mark.slow
def test_viewer_opens(trained: Path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = Path(sys.executable).parent / "ns-viewer"
    command = [sys.executable, str(program), "--load-config", str(trained / "config.yml")]
    command += ["--viewer.websocket-port", str(port)]
    process = subprocess.Popen(command, env={**os.environ}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            assert process.poll() is None, "ns-viewer ended"
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.5)
        else:
            pytest.fail("ns-viewer does not listen")
    finally:
        process.terminate()
        process.wait(timeout=60)
