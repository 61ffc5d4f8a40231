"""How the processes of torchrun meet, on machines that this one is not."""

from typing import Any

import pytest
import torch
import torch.distributed as dist

from csd_nerf.commands.processes import working_together


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the second of two processes, on a machine with two GPUs, asks torch for."""
    asked: list[Any] = []
    for name, value in {"RANK": 1, "LOCAL_RANK": 1, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: asked.append(device))
    monkeypatch.setattr(dist, "init_process_group", lambda backend: asked.append(backend))
    for name in ("barrier", "destroy_process_group"):
        monkeypatch.setattr(dist, name, lambda: None)
    return asked


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_each_process_has_a_gpu_of_its_own(done: list[Any], device: str):
    with working_together(device):
        assert done == ["cuda:1", "nccl"]


def test_what_is_on_the_cpu_meets_there_although_there_are_gpus(done: list[Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    with working_together("cpu"):
        assert done == ["gloo"]


def test_one_gpu_for_several_processes_is_refused_before_they_wait_for_each_other(
    done: list[Any], monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(ValueError, match="--device cuda:1: each of several processes"), working_together("cuda:1"):
        pass
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with (
        pytest.raises(ValueError, match=r"--nproc-per-node 2: torch sees 1 GPU\(s\) here.*--device cpu"),
        working_together("auto"),
    ):
        pass
    assert not done


def test_alone_nothing_is_asked_for(done: list[Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    with working_together("cuda:1"):
        assert not done
