"""The Ray engine on a cluster that is made up: with GPUs, and one that goes away."""

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from csd_nerf.bench.engines import EngineLostError, RayEngine


class LostError(Exception):
    """In the place of Ray's own."""


class Cluster:
    """What the engine uses of the module `ray`; calls are made when they are asked for."""

    exceptions = SimpleNamespace(RayError=LostError)

    def __init__(self, **resources: float) -> None:
        self.resources, self.options, self.cancelled = resources, {}, 0
        self.gone = False

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return self.resources

    def remote(self, **options: Any) -> Callable[..., Any]:
        self.options = options
        return lambda function: SimpleNamespace(remote=lambda *given: self._reached(lambda: function(*given)))

    def wait(self, references: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        return self._reached((references[:num_returns], references[num_returns:]))

    def get(self, reference: Callable[[], Any]) -> Any:
        return reference()

    def cancel(self, reference: Any, force: bool) -> None:
        self._reached(reference)
        self.cancelled += 1

    def _reached(self, answer: Any) -> Any:
        if self.gone:
            raise LostError("GCS is unreachable")
        return answer


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Cluster]:
    def made(**resources: float) -> Cluster:
        one = Cluster(**resources)
        monkeypatch.setitem(sys.modules, "ray", one)
        return one

    return made


@pytest.mark.parametrize(
    ("resources", "workers", "slots", "gpus"),
    [
        ({"CPU": 16.0, "GPU": 3.0}, None, 3, 1),
        ({"CPU": 16.0, "GPU": 3.0}, 2, 2, 1),
        ({"CPU": 16.0, "GPU": 3.0}, 8, 3, 1),
        ({"CPU": 6.0}, None, 6, 0),
        ({"CPU": 6.0}, 2, 2, 0),
        ({}, None, 1, 0),
    ],
)
def test_a_call_has_a_gpu_where_there_are_any(
    cluster: Callable[..., Cluster], resources: dict[str, float], workers: int | None, slots: int, gpus: int
):
    one = cluster(**resources)
    engine = RayEngine(workers, 1)
    assert engine.slots == slots and one.options["num_gpus"] == gpus and one.options["num_cpus"] == 1
    engine.submit("a", max, 1, 2)
    assert engine.next_finished().value == 2


def test_a_cluster_that_goes_away_is_one_error(cluster: Callable[..., Cluster]):
    one = cluster(CPU=2.0)
    engine = RayEngine(None, 1)
    engine.submit("a", max, 1, 2)
    one.gone = True
    for call in (engine.next_finished, lambda: engine.submit("b", max, 1, 2)):
        with pytest.raises(EngineLostError, match=r"--engine ray: the cluster is lost \(LostError: GCS is unreach"):
            call()
    engine.close()
    assert one.cancelled == 0
    one.gone = False
    engine.submit("c", max, 1, 2)
    engine.close()
    assert one.cancelled == 1, "what runs in a cluster that is there is cancelled"
