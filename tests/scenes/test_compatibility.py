"""The work-arounds for nerfstudio 1.1.5, each alone; test_commands.py runs the commands that need them."""

import math
import multiprocessing
import pickle
import shutil
import socket
import subprocess
import urllib.error
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.field_components import encodings, mlp
from nerfstudio.models.nerfacto import NerfactoModel, NerfactoModelConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipelineConfig
from nerfstudio.utils import install_checks
from torchmetrics.image import lpip

from csd_nerf.scenes import compatibility
from csd_nerf.scenes.compatibility import LazyPerceptualSimilarity


def checkpoint_with_numpy_floats(file: Path) -> Path:
    """What stops torch >= 2.6: a scheduler whose learning rates are numpy floats, as nerfstudio's are."""
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))], lr=1e-2)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: np.exp(-0.1 * step))
    optimizer.step()
    scheduler.step()
    torch.save({"schedulers": scheduler.state_dict(), "optimizers": optimizer.state_dict()}, file)
    return file


def rename_in_pickle(file: Path, old: bytes, new: bytes) -> bool:
    """Replace a module's name in a checkpoint, as if another version had written it; False if it is not there."""
    with zipfile.ZipFile(file) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content.replace(old, new) if name.endswith("data.pkl") else content)
    return any(old in content for name, content in records.items() if name.endswith("data.pkl"))


def test_checkpoint_loads_with_safe_loading(tmp_path: Path):
    file = checkpoint_with_numpy_floats(tmp_path / "step.ckpt")
    state = torch.load(file, weights_only=True)
    rate = state["schedulers"]["_last_lr"][0]
    assert rate.dtype == np.float64
    assert rate == pytest.approx(1e-2 * math.exp(-0.1))


@pytest.mark.skipif(compatibility.torch_version() < (2, 6), reason="knows no names of its own")
def test_checkpoint_of_another_numpy_loads(tmp_path: Path):
    file = checkpoint_with_numpy_floats(tmp_path / "step.ckpt")
    names = [b"cnumpy.core.multiarray\n", b"cnumpy._core.multiarray\n"]
    assert rename_in_pickle(file, *names) or rename_in_pickle(file, *reversed(names))
    torch.load(file, weights_only=True)


def test_only_numpy_floats_are_allowed():
    names = {name for _, name in compatibility.numpy_scalar_globals()}
    float64 = {"numpy.dtypes.Float64DType", "numpy.dtype[float64]"} & names  # numpy >= 1.25 | 1.24
    assert names - float64 == {"numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"}


class Malicious:
    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


@pytest.mark.parametrize("hide", [lambda x: x, lambda x: np.array([x], dtype=object)], ids=["bare", "numpy object"])
def test_malicious_checkpoint_does_not_load(tmp_path: Path, hide):
    torch.save({"schedulers": hide(Malicious(tmp_path / "owned"))}, tmp_path / "step.ckpt")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "step.ckpt", weights_only=True)
    assert not (tmp_path / "owned").exists()


@pytest.fixture
def no_alexnet(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A machine without AlexNet and without a network; counts the attempts to get it."""
    attempts = []

    def alexnet(*_, **__):
        attempts.append(1)
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torchvision.models, "alexnet", alexnet)
    return attempts


def tiny_model() -> NerfactoModel:
    config = NerfactoModelConfig(
        num_levels=2,
        log2_hashmap_size=4,
        num_proposal_iterations=1,
        proposal_net_args_list=[{"hidden_dim": 4, "log2_hashmap_size": 4, "num_levels": 2, "max_res": 8}],
        implementation="torch",
    )
    return NerfactoModel(config, SceneBox(aabb=torch.tensor([[-1.0] * 3, [1.0] * 3])), num_train_data=1)


def evaluate(model: NerfactoModel) -> dict[str, float]:
    picture = torch.rand(32, 32, 3)
    flat = torch.ones(32, 32, 1)
    outputs = {"rgb": picture, "accumulation": flat, "depth": flat, "prop_depth_0": flat}
    return model.get_image_metrics_and_images(outputs, {"image": picture.flip(0)})[0]


def test_nerfacto_needs_no_alexnet(no_alexnet: list[int], capsys: pytest.CaptureFixture[str]):
    """It is constructed without a try; evaluation tries once, says so once, and gives the other metrics."""
    model = tiny_model()
    assert no_alexnet == []
    assert isinstance(model.lpips, LazyPerceptualSimilarity)
    assert not any("lpips" in name for name in model.state_dict())
    for _ in range(2):
        metrics = evaluate(model)
        assert metrics.keys() == {"psnr", "ssim"}
        assert all(math.isfinite(value) for value in metrics.values())
    assert no_alexnet == [1]
    assert capsys.readouterr().out.count("LPIPS is not computed") == 1
    assert socket.getdefaulttimeout() is None


def test_torchmetrics_keeps_its_own():
    original = lpip.LearnedPerceptualImagePatchSimilarity
    tiny_model()
    assert lpip.LearnedPerceptualImagePatchSimilarity is original


def test_checkpoint_with_alexnet_loads():
    """Plain nerfstudio puts AlexNet into its checkpoints and loads them strictly."""
    model = tiny_model()
    state = {**model.state_dict(), "lpips.net.net.slice1.0.weight": torch.zeros(1)}
    model.load_state_dict(state)
    with pytest.raises(RuntimeError, match="Unexpected"):
        model.load_state_dict({**state, "other.weight": torch.zeros(1)})


def test_lpips_where_there_is_alexnet(monkeypatch: pytest.MonkeyPatch):
    class Distance(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(0.25))

        def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
            return self.weight * torch.ones_like(first).mean()

    model = tiny_model()
    monkeypatch.setattr(model, "lpips", LazyPerceptualSimilarity(Distance))
    assert evaluate(model)["lpips"] == 0.25
    assert not any("lpips" in name for name in model.state_dict())


@pytest.fixture
def no_ffmpeg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A PATH without ffmpeg and an empty cache; the cache's folder."""
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_ffmpeg_is_found(no_ffmpeg: Path):
    import mediapy

    assert shutil.which("ffmpeg") is None
    install_checks.check_ffmpeg_installed()
    program = Path(str(shutil.which("ffmpeg")))
    assert program.is_relative_to(no_ffmpeg)
    assert mediapy.video_is_available()
    assert "ffmpeg version" in subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True).stdout


def test_ffmpeg_without_a_writable_cache(no_ffmpeg: Path):
    no_ffmpeg.write_text("a file is in the way")
    assert compatibility.ensure_ffmpeg() is not None


def test_ffmpeg_link_to_nowhere_is_replaced(no_ffmpeg: Path, monkeypatch: pytest.MonkeyPatch):
    link = Path(str(compatibility.ensure_ffmpeg()))
    link.unlink()
    link.symlink_to("nowhere")
    monkeypatch.setenv("PATH", "")
    assert compatibility.ensure_ffmpeg() == str(link)


def test_ffmpeg_of_the_machine_is_preferred(no_ffmpeg: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    assert compatibility.ensure_ffmpeg() == str(program)
    assert not no_ffmpeg.exists()


def _ensure_ffmpeg(_: int) -> str | None:
    return compatibility.ensure_ffmpeg()


def test_ffmpeg_for_many_processes_at_once(no_ffmpeg: Path):
    with multiprocessing.get_context("fork").Pool(8) as pool:
        found = set(pool.map(_ensure_ffmpeg, range(8)))
    (program,) = found
    assert program is not None
    assert [file.name for file in Path(program).parent.iterdir()] == ["ffmpeg"]


def test_training_falls_back_to_the_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = TrainerConfig(
        method_name="nerfacto", experiment_name="test", timestamp="now", output_dir=tmp_path, data=tmp_path
    )
    config.pipeline = VanillaPipelineConfig()
    assert config.machine.device_type == "cuda"
    assert Trainer(config).device == "cpu"
    assert config.machine.device_type == "cpu"


def test_tinycudann_is_mentioned_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    for layers in (encodings, mlp):
        monkeypatch.setattr(layers, "print_tcnn_speed_warning", layers.print_tcnn_speed_warning)
    compatibility.say_once_that_tinycudann_is_absent()
    encodings.print_tcnn_speed_warning("HashEncoding")
    mlp.print_tcnn_speed_warning("MLP")
    (line,) = capsys.readouterr().out.splitlines()
    assert "tinycudann is not installed" in line


def test_a_work_around_that_fails_is_only_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def broken() -> None:
        raise AttributeError("no such thing")

    monkeypatch.setattr(compatibility, "WORK_AROUNDS", (broken,))
    compatibility.apply()
    assert "broken is not applied" in " ".join(capsys.readouterr().out.split())
