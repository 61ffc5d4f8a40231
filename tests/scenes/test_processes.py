"""A run by two processes, as nerfstudio starts them for --machine.num-devices 2, but over gloo and on a CPU."""

import json
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from csd_nerf.scenes import SceneError, load_scene
from csd_nerf.scenes.edit_trainer import EditTrainer, EditTrainerConfig
from csd_nerf.scenes.files import read_picture
from tests.processes import together
from tests.scenes.edit_fixtures import NegativePrior, make_trainer, tiny_run, weights


class Rows(NegativePrior):
    """Counts the rows that it is asked."""

    rows = 0

    def predict_noise(self, x_t: Any, t: Any, condition: Any) -> Any:
        self.rows += len(x_t)
        return super().predict_noise(x_t, t, condition)


def train(data: Path, output: Path, scene: Path) -> dict[str, Any]:
    """Edit a trained scene. nerfstudio names the GPU of each process, which there is not."""
    from nerfstudio.pipelines import base_pipeline

    class Wrapped(DistributedDataParallel):
        def __init__(self, module: torch.nn.Module, device_ids: object, **options: Any) -> None:
            super().__init__(module, **options)

    base_pipeline.DDP = Wrapped  # pyright: ignore[reportPrivateImportUsage]
    barrier = dist.barrier
    dist.barrier = lambda **_: barrier()
    rank, prior = dist.get_rank(), Rows()

    def configure(config: EditTrainerConfig) -> None:
        config.load_dir = scene

    trainer = make_trainer(data, output / f"of{rank}", prior, configure, local_rank=rank, world_size=2)
    torch.manual_seed(rank)  # as nerfstudio does: other rays
    trainer.train()
    dist.barrier = barrier
    edits = trainer.pipeline.datamanager.train_dataset.edits
    return {
        "weights": {name: value.detach().clone() for name, value in trainer.pipeline.model.state_dict().items()},
        "edits": [edits[view] for view in sorted(edits)],
        "rows": prior.rows,
        "samples": trainer.session.network_samples,
        "base": trainer.base_dir,
    }


@pytest.fixture(scope="module")
def scene(tiny_scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny_run(tiny_scene, tmp_path_factory.mktemp("scene"))


def test_two_processes_train_one_scene_and_share_its_rounds(tiny_scene: Path, tmp_path: Path, scene: Any):
    first, second = together(tmp_path / "work", train, tiny_scene, tmp_path, scene.scene_checkpoint.parent)
    assert first["weights"].keys() == second["weights"].keys()
    assert all(torch.equal(value, second["weights"][name]) for name, value in first["weights"].items())
    assert all(torch.equal(a, b) for a, b in zip(first["edits"], second["edits"], strict=True))
    # 11 views in rounds of 6 and 5: 30 rows a step are 15 in each process, 25 are 13, one of them twice.
    assert first["samples"] == second["samples"] == (6 + 5) * 5 * 5
    assert first["rows"] == second["rows"] == (15 + 13) * 5

    # The first round begins from the same scene and photos as in one process, and its edits are the same.
    alone = tiny_run(tiny_scene, tmp_path / "alone", load_dir=scene.scene_checkpoint.parent)
    base = first["base"]
    entries = json.loads((base / "edits" / "edits.json").read_text())["rounds"]
    for file in entries[0]["views"].values():
        found, expected = (read_picture(folder / file).int() for folder in (base / "edits", alone.edits))
        assert (found - expected).abs().max() <= 1

    # The main process alone has written, and its checkpoint is one of a single process.
    assert not second["base"].exists()
    assert [path.name for path in (tmp_path / "of1").rglob("*") if path.is_file()] == ["config.yml"]  # of make_trainer
    kept = max((base / "nerfstudio_models").glob("*.ckpt"))
    saved: dict[str, Tensor] = weights(kept)
    assert saved.keys() == weights(alone.checkpoint).keys()
    assert all(torch.equal(value, first["weights"][name.removeprefix("_model.")]) for name, value in saved.items())
    assert load_scene(base / "config.yml").render_training_views([0])[0].shape == (3, 16, 16)


def test_each_process_meets_the_others_on_its_own_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """nerfstudio's launcher leaves all of them on the first one, which NCCL refuses."""
    own: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_device", own.append)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    config = EditTrainerConfig(output_dir=tmp_path, data=tmp_path, method_name="csd-edit", mixed_precision=False)
    cases: list[tuple[Literal["cuda", "cpu"], int, int]] = [("cuda", 1, 2), ("cuda", 0, 1), ("cpu", 1, 2)]
    for kind, rank, size in cases:
        config.machine.device_type = kind
        EditTrainer(config, rank, size)
    assert own == ["cuda:1"]


def test_devices_that_are_not_there_or_contradict_are_told(
    tiny_scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def configure(config: EditTrainerConfig) -> None:
        config.machine.num_devices, config.machine.device_type = 2, "cuda"
        config.pipeline.prior_device = "cpu"

    with pytest.raises(SceneError, match="--machine.num-devices 2: torch sees . GPU"):
        tiny_run(tiny_scene, tmp_path, configure=configure)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(SceneError, match="--pipeline.prior-device: with several devices each has a prior of its own"):
        tiny_run(tiny_scene, tmp_path, configure=configure)
