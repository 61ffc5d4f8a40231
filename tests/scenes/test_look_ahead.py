"""Answers that are kept or asked for ahead leave a run what it is, and make its rounds cheaper."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from csd_nerf.distill import MemoryBank
from csd_nerf.scenes.edit_trainer import EditTrainerConfig
from csd_nerf.scenes.errors import SceneError
from csd_nerf.scenes.look_ahead import LookAhead, _other_device
from csd_nerf.scenes.run import EditRun
from csd_nerf.scenes.terminal import own_writers
from tests.scenes.edit_fixtures import NegativePrior, make_trainer, same_edits, same_weights, tiny_run

VIEWS, STEPS = (6, 5), 5
"""Of the rounds."""


def cost(samples: int) -> list[int]:
    """Network samples of the rounds at so many a view and step."""
    return [samples * views * STEPS for views in VIEWS]


def samples(run: EditRun) -> list[int]:
    return [entry["network_samples"] for entry in json.loads((run.edits / "edits.json").read_text())["rounds"]]


def run_with(data: Path, output: Path, bank: Path | None, **changes: Any) -> EditRun:
    def configure(config: EditTrainerConfig) -> None:
        config.pipeline.source_bank = bank
        for name, value in changes.items():
            setattr(config.pipeline, name, value)

    return tiny_run(data, output, configure=configure)


def test_a_second_edit_of_a_scene_takes_its_source_branch_from_the_bank(tiny_scene: Path, tmp_path: Path):
    bank = tmp_path / "bank"
    first = run_with(tiny_scene, tmp_path / "first", bank)
    assert samples(first) == cost(5)
    # Up to here nothing but the first run's own answers were used, so that even the NeRF is the same to the bit.
    plain = run_with(tiny_scene, tmp_path / "plain", None)
    entries = [json.loads((run.edits / "edits.json").read_text())["rounds"] for run in (first, plain)]
    assert [entry["settings"] for entry in entries[0]] == [entry["settings"] for entry in entries[1]]
    assert same_edits(first, plain) and same_weights(first, plain)
    other = run_with(tiny_scene, tmp_path / "other", bank, guidance_scale=2.0)
    expected = run_with(tiny_scene, tmp_path / "expected", None, guidance_scale=2.0)
    assert samples(other) == cost(3) and samples(expected) == cost(5)
    assert same_weights(other, expected) and not same_weights(other, plain)


def test_looking_ahead_during_training_changes_no_round(tiny_scene: Path, tmp_path: Path):
    """The closed-form prior answers each row by itself, so that even the rounding is the same.

    The bank has room for the answers of one round, on latents of 3 x 4 x 4 numbers, and not of two.
    """
    room = 2 * VIEWS[0] * STEPS * 3 * 4 * 4 * 4
    expected = tiny_run(tiny_scene, tmp_path / "expected")
    prior = NegativePrior()
    with own_writers():
        trainer = make_trainer(tiny_scene, tmp_path / "ahead", prior)
        trainer.editor.bank, trainer.editor.ahead = MemoryBank(prior.fingerprint(), room), True
        before, counted = trainer.editor.look_ahead, []

        def look_ahead(edit_steps: int) -> None:
            before(edit_steps)
            ahead = trainer.editor._ahead
            if ahead is not None:
                ahead.wait()
                counted.append(ahead._spent)

        trainer.editor.look_ahead = look_ahead
        trainer.train()
    base = trainer.base_dir
    rounds = json.loads((base / "edits" / "edits.json").read_text())["rounds"]
    assert counted[:2] == cost(2)
    assert [entry["network_samples"] for entry in rounds] == cost(5)  # two of them ahead
    for entry in rounds:
        for file in entry["views"].values():
            assert (base / "edits" / file).read_bytes() == (expected.edits / file).read_bytes()


def begin(ahead: LookAhead, steps: int = 5) -> None:
    from csd_nerf.distill import EditSettings
    from csd_nerf.scenes.edit_options import Instruction

    generator = torch.Generator().manual_seed(0)
    ahead.begin([torch.rand(3, 16, 16)], Instruction("make it red"), EditSettings(steps=steps), generator)


def test_what_goes_wrong_ahead_is_told_by_the_round():
    def fail(call: int) -> float:
        raise RuntimeError("no memory")

    ahead = LookAhead(NegativePrior(on_call=fail), MemoryBank(b"negative"))
    begin(ahead)
    ahead.wait()
    with pytest.raises(RuntimeError, match="no memory"):
        ahead.finish()
    assert ahead.finish() == 0


def test_it_ends_after_its_present_call():
    prior, asked = NegativePrior(), threading.Event()
    ahead = LookAhead(prior, MemoryBank(b"negative"))

    def until_the_end_is_asked_for(call: int) -> float:
        asked.set()
        return float(ahead._stop.wait(10))

    prior.on_call = until_the_end_is_asked_for
    begin(ahead, steps=1000)
    assert asked.wait(10)
    assert ahead.finish() == 2 and prior.calls == 1


def test_a_device_is_what_nerfstudio_takes_it_for():
    assert not _other_device(torch.device("cuda"), torch.device("cuda:0"))
    assert _other_device(torch.device("cuda"), torch.device("cuda:1"))
    assert _other_device(torch.device("cpu"), torch.device("cuda"))


def test_a_bank_that_cannot_be_opened_is_told_before_any_step(tiny_scene: Path, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(SceneError, match="--pipeline.source-bank: source bank .* cannot be made"):
        run_with(tiny_scene, tmp_path / "run", tmp_path / "file" / "bank")
    with pytest.raises(SceneError, match="--pipeline.source-bank: a limit of 0.0 GB: give more than 0"):
        run_with(tiny_scene, tmp_path / "other", tmp_path / "bank", source_bank_gigabytes=0.0)


def test_looking_ahead_ends_with_the_run_whatever_ends_that(
    tiny_scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its thread would go on using networks that somebody else uses next."""
    prior, threads = NegativePrior(), []

    def interrupted(trainer: Any) -> None:
        trainer.session.phase = "edit"
        trainer.editor.look_ahead(trainer.edit_steps)
        threads.append(trainer.editor._ahead._thread)
        raise KeyboardInterrupt

    with own_writers():
        trainer = make_trainer(tiny_scene, tmp_path, prior)
        trainer.editor.bank, trainer.editor.ahead = MemoryBank(prior.fingerprint()), True
        monkeypatch.setattr("csd_nerf.scenes.scene_trainer.SceneTrainer.train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
    assert len(threads) == 1 and not threads[0].is_alive() and trainer.editor._ahead._thread is None


def test_several_processes_are_not_paused(tiny_scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with own_writers():
        trainer = make_trainer(tiny_scene, tmp_path, NegativePrior())
    trainer.training_state = "paused"
    assert trainer.training_state == "paused", "one may be"
    trainer.training_state, trainer._processes = "training", 2
    trainer.training_state = "paused"
    assert trainer.training_state == "training" and "cannot be paused" in "".join(capsys.readouterr())
