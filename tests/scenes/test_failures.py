"""A round or a step that fails: what is said, and what is kept."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from csd_nerf.scenes.edit_pipeline import EditPipeline
from csd_nerf.scenes.errors import SceneError
from csd_nerf.scenes.run import EditRun
from tests.scenes.edit_fixtures import (
    SCENE_STEPS,
    NegativePrior,
    make_trainer,
    same_edits,
    same_weights,
    tiny_run,
)


def test_a_network_that_fails_stops_the_run_and_loses_nothing(tiny_scene: Path, tmp_path: Path):
    prior = NegativePrior(on_call=lambda call: float("nan") if call == 8 else 1.0)
    with pytest.raises(SceneError, match=r"round 2 failed: .*not finite.*keep what they showed before") as error:
        tiny_run(tiny_scene, tmp_path, prior=prior)
    run = tmp_path / "tiny/csd-edit-lite/run"
    said = re.search(r"reached is in (\S+)\.", str(error.value))
    assert said is not None
    partial = Path(said[1])
    assert partial == run / "edits/round_0002_partial" and len(list(partial.glob("view_*.png"))) == 5
    checkpoint = run / "nerfstudio_models" / f"step-{SCENE_STEPS + 3:09d}.ckpt"
    state = torch.load(checkpoint, weights_only=True)["pipeline"]["_extra_state"]["session"]
    assert sorted(set(state["edited_in"])) == [0, 1], "the views of round 2 keep their photos"
    index = json.loads((run / "edits/edits.json").read_text())
    assert len(index["rounds"]) == 1 and index["events"][0]["event"] == "round failed"
    resumed = tiny_run(tiny_scene, tmp_path, load_dir=run / "nerfstudio_models")
    assert resumed.rounds == 2


@pytest.mark.parametrize(
    ("error", "place", "advice"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), "network", "smaller --pipeline.prior-batch-size"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), "encode", "the autoencoder that does not fit, with --pip"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "network", "memory of cpu: resume with"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), "render", "smaller --pipeline.model.eval-num-rays-per-chu"),
    ],
)
def test_a_round_that_does_not_fit_into_memory_says_so(
    whole: EditRun,
    tiny_scene: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    place: str,
    advice: str,
):
    def fail(*_: Any) -> float:
        raise error

    with monkeypatch.context() as patch, pytest.raises(SceneError, match=r"round 1 does not fit ") as raised:
        prior = NegativePrior(on_call=fail if place == "network" else lambda call: 1.0)
        if place == "encode":
            patch.setattr(prior, "encode", fail)
        if place == "render":
            patch.setattr(EditPipeline, "render_training_views", fail)
        tiny_run(tiny_scene, tmp_path, prior=prior, load_dir=whole.scene_checkpoint.parent)
    assert advice in str(raised.value)
    models = tmp_path / "tiny/csd-edit-lite/run/nerfstudio_models"
    assert [path.name for path in models.iterdir()] == [f"step-{SCENE_STEPS - 1:09d}.ckpt"]
    if place == "network":
        resumed = tiny_run(tiny_scene, tmp_path, load_dir=models)
        assert same_weights(whole, resumed) and same_edits(whole, resumed)


def test_a_round_that_the_core_refuses_names_the_flag(whole: EditRun, tiny_scene: Path, tmp_path: Path):
    def refuse(call: int) -> float:
        raise ValueError("t_min=0.9 is above t_max=0.1")

    with pytest.raises(SceneError, match="round 1 cannot be made: --pipeline.t-min 0.9 is above --pipeline.t-max 0.1"):
        tiny_run(tiny_scene, tmp_path, prior=NegativePrior(on_call=refuse), load_dir=whole.scene_checkpoint.parent)


def test_a_loss_that_is_not_finite_ends_the_run_before_it_is_saved(tiny_scene: Path, tmp_path: Path):
    trainer = make_trainer(tiny_scene, tmp_path, NegativePrior(), lambda config: setattr(config, "steps_per_save", 2))
    losses = trainer.pipeline.model.get_loss_dict

    def diverge(*arguments: Any, **options: Any) -> dict[str, torch.Tensor]:
        factor = float("nan") if trainer.step >= 3 else 1.0
        return {name: factor * loss for name, loss in losses(*arguments, **options).items()}

    trainer.pipeline.model.get_loss_dict = diverge
    with pytest.raises(SceneError, match=r"the NeRF failed at step 3: its loss .*resume with --load-dir \S+ and"):
        trainer.train()
    assert [path.name for path in trainer.checkpoint_dir.iterdir()] == ["step-000000002.ckpt"]
