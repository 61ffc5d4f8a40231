"""Each mistake gives one clear error, before any training."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from csd_nerf.scenes.edit_trainer import EditTrainer, EditTrainerConfig
from csd_nerf.scenes.errors import SceneError
from tests.conftest import make_tiny_scene
from tests.scenes.edit_fixtures import NegativePrior, tiny_run


@pytest.fixture(autouse=True)
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(self: EditTrainer) -> None:
        pytest.fail("training has begun")

    monkeypatch.setattr(EditTrainer, "train", train)


def option(name: str, value: Any) -> Callable[[EditTrainerConfig], None]:
    return lambda config: setattr(config.pipeline, name, value)


def test_the_error_ends_a_command_with_its_message_alone():
    error = SceneError("the remedy")
    assert isinstance(error, ValueError) and isinstance(error, SystemExit)
    assert error.code == str(error) == "csd_nerf: the remedy"
    code = "from csd_nerf.scenes.errors import SceneError; raise SceneError('the remedy')"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False)
    assert (done.returncode, done.stderr) == (1, "csd_nerf: the remedy\n")


def test_missing_data(tmp_path: Path):
    with pytest.raises(SceneError, match="--data .*nowhere does not exist: give a folder"):
        tiny_run(tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_data_at_all():
    with pytest.raises(SceneError, match="no data is given: add --data"):
        EditTrainerConfig(method_name="csd-edit", prompt="x").save_config()


def test_empty_data(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SceneError, match="--data .*empty is empty"):
        tiny_run(tmp_path / "empty", tmp_path / "out")


def test_data_without_transforms(tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/photo.jpg").write_bytes(b"")
    with pytest.raises(SceneError, match="has no transforms.json: make one with ns-process-data"):
        tiny_run(tmp_path / "data", tmp_path / "out")


@pytest.mark.parametrize("content", ["{", "{}", '{"frames": [{}]}', '{"frames": []}'])
def test_transforms_that_are_none(tmp_path: Path, content: str):
    (tmp_path / "transforms.json").write_text(content)
    with pytest.raises(SceneError, match=r"transforms.json .*make it anew"):
        tiny_run(tmp_path, tmp_path / "out")


def test_missing_picture(tmp_path: Path):
    scene = make_tiny_scene(tmp_path / "scene", views=3)
    (scene / "images/001.png").unlink()
    with pytest.raises(SceneError, match="image file .*001.png is missing"):
        tiny_run(scene, tmp_path / "out")


@pytest.mark.parametrize("name", ["000.png", "002.png"])
@pytest.mark.parametrize("content", [b"no picture", None])
def test_corrupt_picture(tmp_path: Path, name: str, content: bytes | None):
    scene = make_tiny_scene(tmp_path / "scene", views=4)
    picture = scene / "images" / name
    picture.write_bytes(content or picture.read_bytes()[: picture.stat().st_size // 2])
    with pytest.raises(SceneError, match=f"image file .*{name} cannot be read"):
        tiny_run(scene, tmp_path / "out")


def test_picture_of_another_shape_than_its_camera(tmp_path: Path):
    scene = make_tiny_scene(tmp_path / "scene", views=3)
    path = scene / "transforms.json"
    path.write_text(path.read_text().replace('"w": 32', '"w": 64'))
    with pytest.raises(SceneError, match="has 32 x 32 pixels, its camera"):
        tiny_run(scene, tmp_path / "out")


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_empty_prompt(tiny_scene: Path, tmp_path: Path, prompt: str):
    with pytest.raises(SceneError, match="--pipeline.prompt is empty: say what to change"):
        tiny_run(tiny_scene, tmp_path, prompt=prompt)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"guidance_scale": -1.0}, "--pipeline.guidance-scale -1.0: give 0 or more"),
        ({"image_guidance_scale": -0.5}, "--pipeline.image-guidance-scale -0.5: give 0 or more"),
        ({"text_t_min": 1.5}, "--pipeline.text-t-min 1.5: give a fraction"),
        ({"text_t_min": 0.6, "text_t_max": 0.4}, "--pipeline.text-t-min 0.6 is above --pipeline.text-t-max 0.4"),
        ({"t_min": 0.8, "t_max": 0.2}, "--pipeline.t-min 0.8 is above --pipeline.t-max 0.2"),
        ({"t_max": 1.5}, "--pipeline.t-max 1.5: give a fraction"),
        ({"t_max": 0.7, "t_max_end": 0.8}, "--pipeline.t-max-end 0.8: .* --pipeline.t-min 0.2 to --pipeline.t-max 0.7"),
        ({"t_max_end": 0.1}, "--pipeline.t-max-end 0.1: give a noise level from --pipeline.t-min 0.2"),
        ({"t_max_passes": 0}, "--pipeline.t-max-passes 0: give at least 1"),
        ({"t_min_first": 0.1}, "--pipeline.t-min-first 0.1: give a noise level from --pipeline.t-min 0.2 to"),
        (
            {"t_max": 0.4, "t_min_first": 0.5, "t_max_end": 0.6},
            "t-min-first 0.5 and --pipeline.t-max-end 0.6: give noise levels from .* to --pipeline.t-max 0.4, or None",
        ),
        ({"guidance_first": 0.5}, "--pipeline.guidance-first 0.5: give a factor, at least 1"),
        ({"keep_detail": -0.1}, "--pipeline.keep-detail -0.1: give a difference of colours"),
        ({"edit_steps": 0}, "--pipeline.edit-steps 0: give at least 1"),
        ({"lr": 0.0}, "--pipeline.lr 0.0: give a positive"),
        ({"edit_batch_size": 0}, "--pipeline.edit-batch-size 0: give at least 1"),
        ({"edit_every": 0}, "--pipeline.edit-every 0: give at least 1"),
        ({"prior_batch_size": 0}, "--pipeline.prior-batch-size 0: give at least 1"),
        ({"seed": -1}, "--pipeline.seed -1: give 0 or more"),
        ({"source_bank_gigabytes": 2.0}, "--pipeline.source-bank-gigabytes is for --pipeline.source-bank"),
        ({"source_bank": Path("b"), "editor": "sds"}, "--pipeline.source-bank: --pipeline.editor sds asks nothing"),
        ({"source_bank": Path("b"), "editor": "in2n"}, "--pipeline.source-bank: --pipeline.editor in2n asks nothing"),
    ],
)
def test_numbers_out_of_order(tiny_scene: Path, tmp_path: Path, change: dict[str, Any], message: str):
    def configure(config: EditTrainerConfig) -> None:
        for name, value in change.items():
            setattr(config.pipeline, name, value)

    with pytest.raises(SceneError, match=message):
        tiny_run(tiny_scene, tmp_path, configure=configure)
    assert not list(tmp_path.iterdir())


def test_a_round_that_the_preset_cannot_edit(tmp_path: Path):
    scene = make_tiny_scene(tmp_path / "scene", views=5)

    def configure(config: EditTrainerConfig) -> None:
        config.pipeline.preset, config.pipeline.edit_batch_size = "released", 3

    match = r"--pipeline.preset released: .*not defined for 2 pictures .* or another --pipeline.edit-batch-size"
    with pytest.raises(SceneError, match=match):
        tiny_run(scene, tmp_path / "out", configure=configure)


def test_unknown_prior(tiny_scene: Path, tmp_path: Path):
    with pytest.raises(SceneError, match=r"--pipeline.prior toyy: .*cannot be loaded"):
        tiny_run(tiny_scene, tmp_path, prior="toyy")


def test_prior_without_an_image_input(tiny_scene: Path, tmp_path: Path):
    with pytest.raises(SceneError, match="'negative' has no image input, which editing needs"):
        tiny_run(tiny_scene, tmp_path, prior=NegativePrior(takes_image=False))


@pytest.mark.parametrize(
    ("device", "gpus", "message"),
    [
        ("gpu7", 0, "gpu7 is no device: give auto, cpu, cuda or cuda:N"),
        ("cuda", 0, "cuda: torch sees no GPU here"),
        ("cuda:2", 2, r"cuda:2: torch sees 2 GPU\(s\), cuda:0 to cuda:1 here"),
    ],
)
def test_prior_on_a_device_that_is_none(
    tiny_scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, gpus: int, message: str
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(SceneError, match=f"--pipeline.prior-device {message}"):
        tiny_run(tiny_scene, tmp_path, prior="toy", configure=option("prior_device", device))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", ["I;16", "F"])
def test_picture_of_more_than_eight_bits(tmp_path: Path, mode: str):
    scene = make_tiny_scene(tmp_path / "scene", views=3)
    picture = scene / "images/001.png"
    if mode == "F":
        picture = picture.with_suffix(".tiff")
        path = scene / "transforms.json"
        path.write_text(path.read_text().replace("001.png", "001.tiff"))
    Image.fromarray(np.zeros((32, 32), np.uint16 if mode == "I;16" else np.float32)).save(picture)
    with pytest.raises(SceneError, match=rf"image file .*001.* more than 8 bits \(mode {mode}\): convert"):
        tiny_run(scene, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_several_devices(tiny_scene: Path, tmp_path: Path):
    with pytest.raises(SceneError, match="--machine.num-devices 2: torch sees 0 GPU"):
        tiny_run(tiny_scene, tmp_path, configure=lambda config: setattr(config.machine, "num_devices", 2))
    with pytest.raises(SceneError, match="runs on one machine"):
        tiny_run(tiny_scene, tmp_path, configure=lambda config: setattr(config.machine, "num_machines", 2))


def test_load_dir_that_does_not_exist(tiny_scene: Path, tmp_path: Path):
    with pytest.raises(SceneError, match="--load-dir .*nowhere is no folder"):
        tiny_run(tiny_scene, tmp_path / "out", load_dir=tmp_path / "nowhere")


def test_load_dir_without_checkpoint(tiny_scene: Path, tmp_path: Path):
    (tmp_path / "models").mkdir()
    with pytest.raises(SceneError, match=r"--load-dir .*models holds no checkpoint \(step-\*.ckpt\)"):
        tiny_run(tiny_scene, tmp_path / "out", load_dir=tmp_path / "models")


def saved(folder: Path, content: Any, step: int = 7) -> Path:
    models = folder / "nerfstudio_models"
    models.mkdir(parents=True)
    torch.save(content, models / f"step-{step:09d}.ckpt")
    return models


def test_damaged_checkpoint(tiny_scene: Path, tmp_path: Path):
    models = saved(tmp_path / "run", {"step": 7})
    with pytest.raises(SceneError, match="step-000000007.ckpt is no nerfstudio checkpoint"):
        tiny_run(tiny_scene, tmp_path / "out", load_dir=models)
    (models / "step-000000008.ckpt").write_bytes(b"half")
    with pytest.raises(SceneError, match="step-000000008.ckpt cannot be read"):
        tiny_run(tiny_scene, tmp_path / "out", load_dir=models)
    with pytest.raises(SceneError, match=r"--load-step 9 is not in .*choose one of \[7, 8\]"):
        tiny_run(tiny_scene, tmp_path, load_dir=models, configure=lambda config: setattr(config, "load_step", 9))


def test_checkpoint_of_another_method(tiny_scene: Path, tmp_path: Path):
    weights = {"_model.gauss_params.means": torch.zeros(4, 3), "_model.gauss_params.opacities": torch.zeros(4, 1)}
    models = saved(tmp_path / "run", {"step": 7, "pipeline": weights, "optimizers": {}, "scalers": {}})
    (tmp_path / "run/config.yml").write_text("max_num_iterations: 9\nmethod_name: splatfacto\n")
    with pytest.raises(SceneError, match=r"--load-dir: .*\(splatfacto\) does not fit csd-edit-lite: it is of another"):
        tiny_run(tiny_scene, tmp_path / "out", load_dir=models)


def scene_of_another_size(data: Path, output: Path, change: dict[str, Any]) -> Path:
    """A checkpoint of our own method whose field differs."""
    from csd_nerf.scenes.edit_config import lite_config
    from tests.scenes.edit_fixtures import shrink

    config = lite_config()
    shrink(config)
    config.pipeline.datamanager.data, config.pipeline.prompt = data, "x"
    for name, value in change.items():
        setattr(config.pipeline.model, name, value)
    pipeline = config.pipeline.setup(device="cpu", test_mode="val")
    return saved(output, {"step": 7, "pipeline": pipeline.state_dict(), "optimizers": {}, "scalers": {}})


def test_checkpoint_of_another_field_size(tiny_scene: Path, tmp_path: Path):
    models = scene_of_another_size(tiny_scene, tmp_path / "run", {"num_levels": 3, "max_res": 64})
    with pytest.raises(
        SceneError, match=r"of another size \(field finest grid 64, here 32; field levels 3, here 2\).*--pipeline.model"
    ):
        tiny_run(tiny_scene, tmp_path / "out", load_dir=models)


def test_checkpoint_of_another_network(tiny_scene: Path, tmp_path: Path):
    models = scene_of_another_size(tiny_scene, tmp_path / "run", {"hidden_dim": 9})
    with pytest.raises(SceneError, match="weights of another size"):
        tiny_run(tiny_scene, tmp_path / "out", load_dir=models)


def test_checkpoint_of_other_views(tmp_path: Path):
    scene = make_tiny_scene(tmp_path / "scene", views=5)
    models = scene_of_another_size(make_tiny_scene(tmp_path / "other", views=9), tmp_path / "run", {})
    with pytest.raises(SceneError, match="made with 9 training views, the data now has 5"):
        tiny_run(scene, tmp_path / "out", load_dir=models)


def test_output_folder_that_cannot_be_made(tiny_scene: Path, tmp_path: Path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(SceneError, match=r"cannot write .*out.*choose another --output-dir"):
        tiny_run(tiny_scene, tmp_path / "out")


def test_a_mistake_leaves_no_run_folder(tiny_scene: Path, tmp_path: Path):
    with pytest.raises(SceneError):
        tiny_run(tiny_scene, tmp_path / "out", load_dir=tmp_path)
    assert not (tmp_path / "out").exists()
    assert json.loads((tiny_scene / "transforms.json").read_text())["frames"]
