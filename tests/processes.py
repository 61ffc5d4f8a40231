"""Runs a function in two processes that work together over gloo."""

import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


def _work(function: Callable[..., Any], arguments: tuple[Any, ...], rank: int, count: int, folder: Path) -> None:
    sys.stdout = sys.stderr = (folder / f"said.{rank}").open("w")
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank)}
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=count)
    try:
        torch.save(function(*arguments), folder / f"answer.{rank}")
        dist.barrier()
    finally:
        sys.stdout.flush()
        dist.destroy_process_group()


def together(folder: Path, function: Callable[..., Any], *arguments: Any, count: int = 2) -> list[Any]:
    """What `function` returns in each process. It must be importable, and its answer something that torch can save."""
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    started = [
        context.Process(target=_work, args=(function, arguments, rank, count, folder), daemon=True)
        for rank in range(count)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(120)
    said = "\n".join(
        (folder / f"said.{rank}").read_text() for rank in range(count) if (folder / f"said.{rank}").exists()
    )
    assert [process.exitcode for process in started] == [0] * count, said
    return [torch.load(folder / f"answer.{rank}", weights_only=False) for rank in range(count)]
