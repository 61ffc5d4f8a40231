"""Answers of the network that are kept: the source's, which do not depend on what is being optimised.

The source branch of a step (CSD Section 3.2) sees the source under the noise of level t, and neither the instruction
nor its scale. An edit of the same pictures with another instruction and the same seed draws the same noise, and asks
the same again; and what the next round of an edit will ask is known before it begins.

An answer is found by the content of its question: timestep, noisy particles, texts and image condition of every row,
and the fingerprint of the network. What has changed in any of them is another question, so that no answer is stale.
A kept answer is, to the bit, what the network gave when it was asked. Read in place of being computed it changes the
batch that the other branches are computed in, and with it their rounding alone (float32: about 1e-6).
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from csd_nerf.distill.distiller import Distiller, ask
from csd_nerf.distill.kernels import at_least_float32
from csd_nerf.distill.types import Baseline, Estimate, Noised, Query, Target

Answers = Sequence[Float[Tensor, "n c h w"]]


@runtime_checkable
class AnswerBank(Protocol):
    """Where answers are kept."""

    fingerprint: bytes
    """Of the network; see `DiffusionPrior.fingerprint`."""

    def read(self, key: str) -> Answers | None:
        """The answers under a key, on the CPU; None if there are none."""
        ...

    def write(self, key: str, answers: Answers) -> None:
        """Keep answers, as long as there is room."""
        ...


@dataclass(frozen=True)
class BankedBaseline:
    """A baseline whose answers are taken from a bank, or asked for and kept there."""

    baseline: Baseline
    bank: AnswerBank

    def estimate(self, noised: Noised, target: Target) -> Estimate:
        """The baseline's estimate; without queries if the bank knows the answers."""
        estimate = self.baseline.estimate(noised, target)
        if not estimate.queries:
            return estimate
        key = question(self.bank.fingerprint, noised.t, estimate.queries)
        known = self.bank.read(key)
        if known is not None:
            kept = [answer.to(query.x_t.device) for answer, query in zip(known, estimate.queries, strict=True)]
            return Estimate((), lambda _: estimate.combine(kept))

        def combine(answers: Sequence[Tensor]) -> Tensor:
            self.bank.write(key, answers)
            return estimate.combine(answers)

        return Estimate(estimate.queries, combine)


def question(fingerprint: bytes, t: Int[Tensor, ""], queries: Sequence[Query]) -> str:
    """The key of these queries' answers: a digest of all that the answers depend on."""
    digest = hashlib.blake2b(fingerprint, digest_size=20)
    digest.update(str(int(t)).encode())
    seen: dict[int, bytes] = {}
    for query in queries:
        condition = query.condition
        for value, constant in ((query.x_t, False), (condition.text, True), (condition.image, True)):
            if value is not None and id(value) not in seen:
                seen[id(value)] = _known_content(value) if constant else _content(value)
            digest.update(b"none" if value is None else seen[id(value)])
    return digest.hexdigest()


_KNOWN: Any = WeakIdKeyDictionary()
"""Version and digest of conditions, which are the same tensors in all steps of an edit, for as long as they exist."""


def _known_content(value: Tensor) -> bytes:
    if value.is_inference():  # whose versions are not counted
        return _content(value)
    version, known = _KNOWN.get(value, (None, b""))
    if version != value._version:
        known = _content(value)
        _KNOWN[value] = (value._version, known)
    return known


def _content(value: Tensor) -> bytes:
    """A digest of a tensor's rows. Where all are one in memory, as those of an expanded text, that is read once."""
    same = value.stride(0) == 0
    content = (value[:1] if same else value).detach().cpu().contiguous().view(torch.uint8).numpy()
    rows = [hashlib.blake2b(row.data, digest_size=20).digest() for row in content]
    about = hashlib.blake2b(f"{value.dtype} {tuple(value.shape)}".encode(), digest_size=20)
    about.update(b"".join(rows * len(value) if same else rows))
    return about.digest()


class MemoryBank:
    """A bank in main memory. What does not fit is not kept."""

    def __init__(self, fingerprint: bytes, limit: int = 1 << 30) -> None:
        """`limit` bounds the answers, in bytes."""
        self.fingerprint = fingerprint
        self._limit, self._held = limit, 0
        self._answers: dict[str, Answers] = {}

    def read(self, key: str) -> Answers | None:
        """The answers under a key."""
        return self._answers.get(key)

    def write(self, key: str, answers: Answers) -> None:
        """Keep them if there is room."""
        size = sum(answer.nbytes for answer in answers)
        if key not in self._answers and self._held + size <= self._limit:
            self._answers[key] = [answer.detach().cpu().clone() for answer in answers]
            self._held += size

    def clear(self) -> None:
        """Forget everything."""
        self._answers, self._held = {}, 0


@torch.no_grad()
def look_ahead(
    distiller: Distiller,
    particles: Float[Tensor, "n c h w"],
    target: Target,
    steps: int,
    generator: torch.Generator,
    *,
    steps_per_call: int = 1,
    should_stop: Callable[[], bool] | None = None,
) -> int:
    """Ask what the source branch of the next steps will ask, so that the bank of the distiller's baseline knows it.

    Args:
        distiller: Whose baseline is a `BankedBaseline`.
        particles: Of the shape and precision of those that will be optimised, all in each step; their values are free.
        target: What they will become.
        steps: Steps ahead.
        generator: As it will be when the steps begin; it advances as they will advance it.
        steps_per_call: Steps that share a network call; more than one needs a prior that takes a timestep for each row.
        should_stop: Asked before each call.

    It ends early where the bank has no room for more. Returns the network samples spent.
    """
    if not isinstance(distiller.baseline, BankedBaseline):
        raise ValueError("looking ahead needs a bank: give the distiller a BankedBaseline")
    baseline, bank, schedule = distiller.baseline.baseline, distiller.baseline.bank, distiller.prior.schedule
    particles, spent, done = at_least_float32(particles), 0, 0
    while done < steps and not (should_stop is not None and should_stop()):
        waiting: list[tuple[str, Tensor, Sequence[Query]]] = []
        for _ in range(min(steps_per_call, steps - done)):
            t = distiller.timesteps(schedule, generator)
            eps = distiller.noise(particles, generator)
            alpha, sigma = schedule.alpha(t).to(particles), schedule.sigma(t).to(particles)
            queries = baseline.estimate(Noised(particles, eps, t, alpha, sigma), target).queries
            key = question(bank.fingerprint, t, queries)
            if queries and bank.read(key) is None:
                waiting.append((key, t, queries))
            done += 1
        spent += _answer(distiller, bank, waiting)
        if waiting and bank.read(waiting[-1][0]) is None:
            break  # there is no room: what is asked from here on would be asked again
    return spent


def _answer(distiller: Distiller, bank: AnswerBank, waiting: Sequence[tuple[str, Tensor, Sequence[Query]]]) -> int:
    """Ask all that waits in one network call and keep the answers; how many samples that took."""
    if not waiting:
        return 0
    rows = [sum(len(query.x_t) for query in queries) for _, _, queries in waiting]
    t = waiting[0][1]
    if len(waiting) > 1:
        t = torch.cat([t.expand(count) for (_, t, _), count in zip(waiting, rows, strict=True)])
    answers = iter(ask(distiller.prior, t, [query for _, _, queries in waiting for query in queries]))
    for key, _, queries in waiting:
        bank.write(key, [next(answers) for _ in queries])
    return sum(rows)
