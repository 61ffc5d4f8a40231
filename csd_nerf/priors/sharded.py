"""One edit by several processes, each with a copy of the prior: they share the rows of every network call.

All processes make the same edit: they hold all particles (which are small beside the network), draw the same noise from
the same seed, and mix the same scores. What costs time is shared. Of the 5 N rows of a step each process computes an
equal share, and one all-gather gives all of them the scores; the latents need not travel. A step of a single particle
is shared as well, since its five branches are rows like any others. The result is that of one process but for the
rounding of smaller batches.

What each process finds out for itself (a signal, a file) must be agreed upon before it decides anything: processes
that ask different questions would wait for each other for ever.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor

from csd_nerf.distill.banked import AnswerBank, Answers
from csd_nerf.distill.schedule import NoiseSchedule
from csd_nerf.distill.types import Condition, ImagePrior

T = TypeVar("T")


def processes() -> int:
    """How many work together; 1 where torch.distributed is not in use."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this is the process that writes and speaks."""
    return processes() == 1 or dist.get_rank() == 0


def meet_on(device: str | torch.device) -> None:
    """Make `device` this process's own if it is a GPU.

    A process begins on the first GPU, where two of them cannot meet: NCCL refuses a GPU that has two ranks. Neither
    torchrun nor nerfstudio's launcher changes that.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.set_device(device)


def agreed(flag: bool) -> bool:
    """Whether it is true in any process. All of them must ask."""
    if processes() == 1:
        return flag
    votes = torch.tensor(int(flag), device=_meeting_place())
    dist.all_reduce(votes, op=dist.ReduceOp.MAX)
    return bool(votes)


def main_says(flag: bool) -> bool:
    """Whether it is true in the main process, to which the user speaks. All of them must ask."""
    if processes() == 1:
        return flag
    word = torch.tensor(int(flag), device=_meeting_place())
    dist.broadcast(word, src=0)
    return bool(word)


def from_main(value: T) -> T:
    """The main process's value, which must be one that can be pickled. All of them must ask."""
    if processes() == 1:
        return value
    box: list[Any] = [value]
    dist.broadcast_object_list(box, src=0, device=_meeting_place())
    return box[0]


def _meeting_place() -> torch.device:
    nccl = dist.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")


class ShardedPrior:
    """An `ImagePrior` that computes its share of the rows and gathers those of the others.

    Text encodings, and posterior samples, which are drawn, are computed by every process.
    """

    def __init__(self, prior: ImagePrior) -> None:
        """`prior` is the same in every process, maybe on devices of their own."""
        self._prior = prior
        self.name, self.takes_image = prior.name, prior.takes_image
        self.factor, self.size, self.device = prior.factor, prior.size, prior.device

    def __getattr__(self, name: str) -> Any:
        """Whatever else the prior can do, it does by itself."""
        if name == "_prior":  # while it is being copied
            raise AttributeError(name)
        return getattr(self._prior, name)

    @property
    def schedule(self) -> NoiseSchedule:
        """The prior's."""
        return self._prior.schedule

    def predict_noise(
        self, x_t: Float[Tensor, "n c h w"], t: Int[Tensor, "*m"], condition: Condition
    ) -> Float[Tensor, "n c h w"]:
        """The estimates of all rows: one all-gather."""
        rows = _own_rows(len(x_t))
        image = None if condition.image is None else condition.image[rows]
        times = t[rows] if t.ndim else t
        own = self._prior.predict_noise(x_t[rows], times, Condition(condition.text[rows], image))
        return _gathered(own, len(x_t))

    def encode(self, images: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n c h w"]:
        """Latents of all pictures."""
        return _gathered(self._prior.encode(images[_own_rows(len(images))]), len(images))

    def decode(self, latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 H W"]:
        """All pictures."""
        return _gathered(self._prior.decode(latents[_own_rows(len(latents))]), len(latents))

    def encode_condition(
        self, images: Float[Tensor, "n 3 H W"], *, scaled_sample: torch.Generator | None = None
    ) -> Float[Tensor, "n c h w"]:
        """Image conditions of all pictures."""
        if scaled_sample is not None:
            return self._prior.encode_condition(images, scaled_sample=scaled_sample)
        return _gathered(self._prior.encode_condition(images[_own_rows(len(images))]), len(images))

    def encode_text(self, prompts: Sequence[str]) -> Float[Tensor, "n l d"]:
        """Encoded prompts."""
        return self._prior.encode_text(prompts)

    def fingerprint(self) -> bytes:
        """The prior's, whose answers these are."""
        return self._prior.fingerprint()  # pyright: ignore[reportAttributeAccessIssue]


class AgreedBank:
    """A bank on a disk that the processes share: answers are used where all find them, and written by one."""

    def __init__(self, bank: AnswerBank) -> None:
        self._bank = bank
        self.fingerprint = bank.fingerprint

    def read(self, key: str) -> Answers | None:
        """The answers, if no process lacks them."""
        answers = self._bank.read(key)
        return None if agreed(answers is None) else answers

    def write(self, key: str, answers: Answers) -> None:
        """Keep them once."""
        if is_main():
            self._bank.write(key, answers)


def _own_rows(n: int) -> Int[Tensor, " m"]:
    """The rows of this process: as many in each, so that the last ones may repeat the last row."""
    count, rank = processes(), dist.get_rank()
    share = -(-n // count)
    return torch.arange(rank * share, (rank + 1) * share).clamp(max=n - 1)


def _gathered(own: Float[Tensor, "m ..."], n: int) -> Float[Tensor, "n ..."]:
    """The rows of all processes."""
    own = own.contiguous()
    parts = [torch.empty_like(own) for _ in range(processes())]
    dist.all_gather(parts, own)
    return torch.cat(parts)[:n]
