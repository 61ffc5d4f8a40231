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
def working_together() -> Iterator[None]:
    """Join the processes that torchrun has started, if it has."""
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        yield
        return
    import torch
    import torch.distributed as dist

    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    dist.init_process_group("nccl" if cuda else "gloo")
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
