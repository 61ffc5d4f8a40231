"""Stopping by signal, what is kept, and what is said."""

import io
import os
import signal
import threading
from pathlib import Path

import pytest
import torch
from rich.console import Console

from csd_nerf.commands import progress, sitting, stopping
from csd_nerf.commands.stopping import stop_on_signals
from csd_nerf.durations import duration
from csd_nerf.images.checkpoint import Checkpoint, checkpoint_path, load_checkpoint


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_once_it_is_a_wish_asked_twice_an_order(number) -> None:
    before, told = signal.getsignal(number), []
    with pytest.raises(KeyboardInterrupt), stop_on_signals(lambda: told.append(1)) as stopped:
        assert not stopped()
        os.kill(os.getpid(), number)
        assert stopped() and told == [1]
        os.kill(os.getpid(), number)
        pytest.fail("the second signal was ignored")
    assert signal.getsignal(number) == before


def test_other_threads_cannot_be_asked() -> None:
    found = []

    def work() -> None:
        with stop_on_signals() as stopped:
            found.append(stopped())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]


def test_the_time_that_is_left_comes_from_this_sitting_alone(monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    out = io.StringIO()
    with progress.steps_progress(Console(file=out, width=80), "Editing", first=90) as update:
        now[0] += 20
        update(92, 100)  # 10 s a step, 8 steps
        now[0] += 5
        update(93, 100)
    assert out.getvalue() == "Editing: 92 of 100, 1 min 20 s left\n"
    assert [duration(s) for s in (0.0, 59.4, 60.0, 200.0, 7300.0)] == [
        "0 s",
        "59 s",
        "1 min",
        "3 min 20 s",
        "2 h 1 min",
    ]


def state(step: int) -> Checkpoint:
    return Checkpoint(step, torch.zeros(1), torch.Generator().get_state())


def test_a_state_is_kept_every_minute(tmp_path: Path, monkeypatch) -> None:
    now, output = [0.0], tmp_path / "out.png"
    monkeypatch.setattr(sitting.time, "monotonic", lambda: now[0])
    with sitting.sitting(output, {"prompt": "a"}, 0) as hooks:
        assert hooks.on_state is not None
        for second in range(1, 131):
            now[0] = float(second)
            hooks.on_state(second, lambda second=second: state(second))
    assert load_checkpoint(checkpoint_path(output), {"prompt": "a"}).step == 120


def test_states_that_take_long_to_write_are_written_rarely(tmp_path: Path, monkeypatch) -> None:
    now, written = [0.0], []

    def slow(path: Path, checkpoint: Checkpoint, asked: object) -> None:
        written.append(checkpoint.step)
        now[0] += 30

    monkeypatch.setattr(sitting.time, "monotonic", lambda: now[0])
    monkeypatch.setattr("csd_nerf.images.checkpoint.save_checkpoint", slow)
    with sitting.sitting(tmp_path / "out.png", {}, 0) as hooks:
        assert hooks.on_state is not None
        for step in range(1, 10_000):
            now[0] += 1
            hooks.on_state(step, lambda step=step: state(step))
    assert written[0] == 60 and 30 * len(written) < 0.035 * now[0]


def test_without_anything_asked_for_no_state_is_kept(tmp_path: Path) -> None:
    with sitting.sitting(tmp_path / "out.png", None, 0) as hooks:
        assert hooks.on_state is None and hooks.on_reached is None and hooks.on_step is not None


def test_a_full_disk_ends_neither_the_work_nor_its_last_state(tmp_path: Path, monkeypatch, capsys) -> None:
    def full(path: Path, *_: object) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file")

    monkeypatch.setattr("csd_nerf.images.checkpoint.save_checkpoint", full)
    sitting.keep(tmp_path / "out.png", {}, state(3))
    assert "--resume will not go on from step 3" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("out of memory")])
def test_a_result_that_cannot_be_written_is_not_lost(tmp_path: Path, error: Exception) -> None:
    output = tmp_path / "out.png"
    sitting.keep(output, {"prompt": "another"}, state(5))
    with pytest.raises(type(error)), sitting.finishing(output, {}):
        raise error  # a state of something else is no help
    sitting.keep(output, {}, state(9))
    with (
        pytest.raises(ValueError, match=r"out\.png\.resume keeps .* --resume goes on") as raised,
        sitting.finishing(output, {}),
    ):
        raise error
    assert str(error) in str(raised.value)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ((), "a.pt, a.png and a.mp4 were not written; the same command with --resume goes on from a.pt.resume\n"),
        (("a.pt",), "a.pt is written, but a.png and a.mp4 were not written; {} from a.pt.resume and makes them\n"),
        (
            ("a.pt", "a.png"),
            "a.pt and a.png are written, but a.mp4 was not written; {} from a.pt.resume and makes it\n",
        ),
        (("a.pt", "a.png", "a.mp4"), ""),
    ],
)
def test_an_interruption_names_only_files_that_are_missing(tmp_path: Path, monkeypatch, capsys, told, said) -> None:
    monkeypatch.chdir(tmp_path)
    names = [Path("a.pt"), Path("a.png"), Path("a.mp4")]
    sitting.keep(names[0], {}, state(9))
    for name in names:
        name.write_text("an earlier command's")
    with pytest.raises(KeyboardInterrupt), sitting.finishing(names[0], {}, *names[1:]) as written:
        for name in told:
            written(Path(name))
        raise KeyboardInterrupt
    assert capsys.readouterr().err == said.format("the same command with --resume goes on")


def test_how_it_ends(tmp_path: Path, capsys) -> None:
    output = tmp_path / "out.png"
    kept = checkpoint_path(output)
    # A stop before the first step leaves nothing to go on from.
    sitting.keep(output, {"prompt": "another"}, state(5))
    assert sitting.conclude(output, {}, state(0), 9, False, None) == 130
    assert "--resume" not in capsys.readouterr().err, "what lies there is not of this command"
    sitting.keep(output, {}, state(3))
    assert sitting.conclude(output, {}, state(3), 9, False, None) == 130
    said = capsys.readouterr().err.replace("\n", " ")
    assert kept.is_file() and "Stopped after step 3 of 9" in said and "--resume" in said
    with pytest.raises(ValueError, match="broken. .*out.png has what was reached before"):
        sitting.conclude(output, {}, state(3), 9, False, RuntimeError("broken"))
    assert kept.is_file()
    sitting.keep(output, {}, state(9))
    assert sitting.conclude(output, {}, state(9), 9, True, None) == 0 and not kept.exists()


def test_sigterm_is_an_interruption_while_nothing_else_listens(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), stopping.terminated_like_interrupted():
        with stopping.stop_on_signals() as stopped:
            os.kill(os.getpid(), signal.SIGTERM)
            assert stopped()
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("it was ignored")
    assert signal.getsignal(signal.SIGTERM) == before
