"""Commands that several processes run together: `torchrun --nproc-per-node 2 -m csd_nerf.cli panorama ...`.

torchrun starts the same command several times and says so in the environment. All of them edit; the first one speaks
and writes.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from csd_nerf.distill import AnswerBank
    from csd_nerf.priors import DiffusionPrior

RANK = int(os.environ.get("RANK", "0")) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else 0
"""Number of this process; 0 also where it is alone."""


@contextmanager
def working_together(device: str) -> Iterator[None]:
    """Join the processes that torchrun has started, if it has, each with a GPU of its own or all on the CPU.

    `device` is what --device says. Raises `ValueError` where it gives all of them one GPU, or there are too few.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        yield
        return
    import torch
    import torch.distributed as dist

    from csd_nerf.priors.sharded import meet_on

    if device.startswith("cuda:"):
        raise ValueError(f"--device {device}: each of several processes has a GPU of its own; give auto, cuda or cpu")
    gpu = device in ("auto", "cuda") and torch.cuda.is_available()
    if gpu:
        here, count = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
        if here > count:
            raise ValueError(
                f"torchrun --nproc-per-node {here}: torch sees {count} GPU(s) here; start at most as many processes, "
                "or give --device cpu"
            )
        meet_on(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
    dist.init_process_group("nccl" if gpu else "gloo")
    try:
        yield
        dist.barrier()  # nobody leaves while another may still need it
    finally:
        dist.destroy_process_group()


def shared(prior: "DiffusionPrior") -> "DiffusionPrior":
    """The prior, its network calls shared by all processes."""
    from csd_nerf.priors.sharded import ShardedPrior, processes

    return prior if processes() == 1 else ShardedPrior(prior)  # pyright: ignore[reportReturnType]


def shared_bank(bank: "AnswerBank | None") -> "AnswerBank | None":
    """The bank, of which all processes must find the same."""
    from csd_nerf.priors.sharded import AgreedBank, processes

    return bank if bank is None or processes() == 1 else AgreedBank(bank)


def asked_together(question: Callable[[], bool]) -> Callable[[], bool]:
    """True in all processes as soon as it is in one: of a signal, each hears at its own time."""
    from csd_nerf.priors.sharded import agreed

    return lambda: agreed(question())
