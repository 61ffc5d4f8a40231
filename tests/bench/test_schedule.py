"""Cells run where they should, once, and what fails takes nothing else with it."""

import io
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from csd_nerf.bench.engines import Engine, Finished, LocalEngine, RayEngine, _call
from csd_nerf.bench.plan import Cell
from csd_nerf.bench.schedule import Estimate, Outcome, run_cells
from csd_nerf.bench.store import Store
from tests.bench.cells import broken, cells, fake, slow, store_in


class Here:
    """An engine without processes."""

    slots = 2

    def __init__(self, interrupt_at: int = 99) -> None:
        self.calls: list[Finished] = []
        self.most, self.ended, self.interrupt_at = 0, 0, interrupt_at

    def submit(self, key: str, function: Any, *arguments: Any) -> None:
        self.calls.append(_call(key, function, arguments))
        self.most = max(self.most, len(self.calls))

    def next_finished(self) -> Finished:
        if self.ended == self.interrupt_at:
            raise KeyboardInterrupt
        self.ended += 1
        return self.calls.pop(0)

    def close(self) -> None: ...


def run(made: list[Cell], store: Store, engine: Engine, function: Any = fake) -> tuple[Outcome, str]:
    said = io.StringIO()
    outcome = run_cells(made, store, engine, Console(file=said, width=200), function)
    return outcome, said.getvalue()


def read(store: Store, cell: Cell) -> dict[str, Any]:
    found = store.result(cell)
    assert found is not None
    return found


def test_a_cell_is_given_what_it_needs_and_runs_once(tmp_path: Path):
    made, store, engine = cells(3), store_in(tmp_path), Here()
    outcome, said = run(made, store, engine)
    assert outcome == Outcome(6, ()) and engine.most == 2
    assert [read(store, cell)["given"] for cell in made] == [[], [0], [], [1], [], [2]]
    assert store.read(made[0])["folder/picture.png"] == b"picture"
    assert "(6/6)" in said and "left)" in said
    again, said = run(made, store, Here())
    assert again == Outcome(0, ()) and said == ""


def test_an_interrupted_sitting_goes_on_where_it_stopped(tmp_path: Path):
    made, store = cells(3), store_in(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(made, store, Here(interrupt_at=3))
    assert sum(store.has(cell) for cell in made) == 3
    outcome, _ = run(made, store, Here())
    assert outcome.computed == 3 and all(store.has(cell) for cell in made)


def test_a_changed_setting_is_another_cell(tmp_path: Path):
    made, store = cells(1), store_in(tmp_path)
    run(made, store, Here())
    other = Cell({**made[1].spec, "method": "b"}, made[1].needs)
    assert store.has(made[1]) and not store.has(other)
    assert not store.has(Cell(made[1].spec, ("another scene",)))
    assert store.has(Cell(made[1].spec, made[1].needs, {"prior": "moved"}, "renamed"))


@pytest.fixture(scope="module", params=["local", "ray"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Two processes at a time, of either kind."""
    if request.param == "ray":
        pytest.importorskip("ray", reason="Ray is not installed (pip install -e '.[ray]')")
    try:
        made = LocalEngine(2, 1) if request.param == "local" else RayEngine(2, 1)
    except ValueError as error:
        if "timed out during startup" not in str(error):  # a busy machine is no fault of the engine
            raise
        pytest.skip(str(error))
    yield made
    made.close()


def test_two_processes_share_the_work(tmp_path: Path, engine: Engine):
    made, store = cells(2), store_in(tmp_path)
    outcome, _ = run(made, store, engine, slow)
    results = [read(store, cell) for cell in made]
    assert outcome == Outcome(4, ())
    assert len({one["process"] for one in results} - {os.getpid()}) == 2
    assert {one["threads"] for one in results} == {1}


def test_failures_are_told_and_tried_again(tmp_path: Path, engine: Engine):
    """One error, one process that is killed: the others are done, and what needed the first was not tried."""
    made, store = cells(3), store_in(tmp_path)
    outcome, said = run(made, store, engine, broken)
    assert {cell.label for cell in outcome.failed} == {"scene 0", "edit 0", "edit 1"}
    assert [store.has(cell) for cell in made] == [False, False, True, False, True, True]
    assert "SystemExit: csd-edit: no such thing" in (store.failure(made[0]) or "")
    assert (
        "scene 0 FAILED: SystemExit: csd-edit: no such thing (" in said
        and store.failure(made[3])
        and store.failure(made[1]) is None
    )
    outcome, _ = run(made, store, engine)
    assert outcome == Outcome(3, ()) and store.failure(made[0]) is None


def test_a_worker_ends_with_its_parent(tmp_path: Path):
    """Even if the parent is killed, which gives it no time to end anything."""
    import signal
    import subprocess
    import sys

    script = (
        "import sys, time\nfrom csd_nerf.bench.engines import LocalEngine\nfrom tests.bench.cells import fake\n"
        "if __name__ == '__main__':\n"
        "    engine = LocalEngine(1, 1)\n    engine.submit('a', time.sleep, 60)\n"
        "    print(engine._busy['a'].process.pid, flush=True)\n    time.sleep(60)\n"
    )
    (tmp_path / "parent.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py")], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    time.sleep(1)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    for _ in range(100):
        if not Path(f"/proc/{worker}").exists() or "Z" in Path(f"/proc/{worker}/stat").read_text().split()[2]:
            return
        time.sleep(0.2)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker outlived its parent")


def test_without_ray_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch):
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"--engine ray needs Ray.*pip install .*--engine local"):
        RayEngine(None, 1)


def test_the_time_left_is_that_of_cells_like_those():
    scene, edit = cells(1)
    other = Cell({"kind": "edit", "method": "b"})
    estimate = Estimate(slots=2)
    assert estimate.left([scene, edit]) is None
    estimate.add(scene, 10.0)
    estimate.add(Cell({"kind": "edit", "method": "unedited"}), 0.1)
    assert estimate.left([edit]) is None, "neither a scene nor doing nothing says anything about edits"
    for seconds in (20.0, 30.0, 90.0):
        estimate.add(edit, seconds)
    assert estimate.left([scene, edit, other]) == pytest.approx((10 + 30 + 30) / 2)


def test_two_sittings_that_share_a_folder_go_on_side_by_side(tmp_path: Path):
    """The other one finishes each cell while this one computes it; its results stay, and nothing else does."""
    made, store = cells(2), store_in(tmp_path)
    other = {"result.json": json.dumps({"seconds": 9.0, "number": 7}).encode()}

    class Overtaken(Here):
        def next_finished(self) -> Finished:
            finished = super().next_finished()
            store.keep(next(cell for cell in made if cell.key == finished.key), other)
            return finished

    outcome, _ = run(made, store, Overtaken())
    assert outcome.failed == () and [read(store, cell)["number"] for cell in made] == [7] * 4
    assert {path.name for path in (store.folder / "cells").iterdir()} == {cell.key for cell in made}


def test_a_place_that_holds_no_result_is_an_error(tmp_path: Path):
    made, store = cells(1), store_in(tmp_path)
    (store.folder / "cells" / made[0].key / "folder").mkdir(parents=True)
    with pytest.raises(OSError, match="not empty"):
        store.keep(made[0], fake(made[0].spec, {}, ()))
    assert not store.has(made[0])


def test_stored_cells_can_be_read_by_people(tmp_path: Path):
    made, store = cells(1), store_in(tmp_path)
    run(made, store, Here())
    about = json.loads((store.folder / "cells" / made[1].key / "cell.json").read_text())
    assert about["label"] == "edit 0" and about["kind"] == "edit"
