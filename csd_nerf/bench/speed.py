"""What one CSD-Edit step costs, against the released code's schedule and against the network call that it cannot avoid.

For N particles the step needs 5 N network samples (three branches of the edited particle, two of its source); the call
of the bare network on 5 N rows is its limit. The contestants compute the same gradient from the same draw:

    matrix product   of the network's precision: the machine's rate
    limit            the bare network, one call of 5 N rows
    without network  ours with a network that answers 0 at once: what is done outside of it
    released         the released code's schedule (see `released_step`), attention in slices
    unsliced         the same without slices
    ours             the distiller: one call of 5 N rows
    captured         ours, its network replayed as a CUDA graph
    compiled         ours, its network compiled by torch
    source bank      ours, the source's answers read from a bank on the disk: one call of 3 N rows

They are timed in turns, round after round and every other round backwards, so that whatever else the machine does meets
all of them alike. On a CPU with one thread (OMP_NUM_THREADS=1) it is the thread's processor time that counts, which
other programs change little.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from csd_nerf.bench.allocations import TensorMemory
from csd_nerf.bench.released_step import attention_in_slices, released_step
from csd_nerf.distill.presets import EditSettings
from csd_nerf.distill.solving import make_edit_distiller
from csd_nerf.distill.types import Condition, Target
from csd_nerf.priors.autoencoder import frozen
from csd_nerf.priors.cuda_graphs import CudaGraphs
from csd_nerf.priors.diffusion import DiffusionPrior
from csd_nerf.priors.source_bank import SourceBank

SETTINGS = EditSettings(preset="released", image_condition="mode", image_guidance_scale=1.5)
"""The released code's choices, so that its schedule can be held against ours; the cost is that of every preset."""
REFERENCE = "ours"
OUTSIDE = "without network"
COMPILED = "compiled"
SAME = {torch.float32: 1e-5, torch.float16: 2e-2, torch.bfloat16: 5e-2}
"""Largest relative difference of gradients, by precision: who computes something else is not a contestant."""


@dataclass(frozen=True)
class Contestant:
    """Somebody who computes the step."""

    run: Callable[[], Tensor | None]
    """The gradient; None of those that are there to compare with."""
    around: Callable[[], AbstractContextManager[None]] = nullcontext
    """What has to be arranged for it, which is not timed."""


Contestants = dict[str, Contestant]


@dataclass(frozen=True)
class Timing:
    """One contestant at one number of particles."""

    seconds: float
    """Median over the rounds."""
    ratio: float
    """Median over the rounds of its time over that of `ours`."""
    peak_bytes: int | None
    """Most memory at the same time: on a GPU what torch held, weights included, and what a captured form keeps; on a
    CPU of tensors, without them. None for a compiled form on a CPU, whose tensors torch does not show."""
    error: float | None
    """Largest difference of its gradient from that of `ours`, relative to the largest gradient."""
    setup: float = 0.0
    """Wall-clock seconds of the first call less those of a later one: compilation, capture."""


@dataclass(frozen=True)
class Measured:
    """All contestants at one number of particles."""

    particles: int
    timings: dict[str, Timing]
    failures: dict[str, str]
    """Contestants that could not run, or computed something else, and how."""
    sample_flops: int
    """Floating-point operations of one network sample, a multiplication and an addition counted as two."""
    product_flops: int
    """Those of the matrix product."""

    def rate(self, name: str) -> float:
        """FLOP/s of a contestant, the network's operations alone counted: 3 samples a particle with a source bank."""
        samples = (3 if name == "source bank" else 5) * self.particles
        work = self.product_flops if name == "matrix product" else samples * self.sample_flops
        return work / self.timings[name].seconds


@dataclass(frozen=True)
class Problem:
    """What is edited: random latents, since only their shapes cost time."""

    particles: Float[Tensor, "n c h w"]
    target: Target

    @classmethod
    def draw(cls, prior: DiffusionPrior, n: int) -> "Problem":
        """N particles of the prior's own size."""
        side, channels = prior.size // prior.factor, prior.unet.config.out_channels
        generator = torch.Generator().manual_seed(n)
        shape = (n, channels, side, side)
        source, image, particles = (torch.randn(shape, generator=generator).to(prior.device) for _ in range(3))
        text, null = (prior.encode_text([prompt]).expand(n, -1, -1) for prompt in ("make it snow", ""))
        return cls(particles, Target((text,), null, image, source=source))

    def rows(self, prior: DiffusionPrior) -> Mapping[str, Tensor]:
        """What the network sees in one step."""
        assert self.target.image is not None
        condition = Condition(self.target.texts[0].repeat(5, 1, 1), self.target.image.repeat(5, 1, 1, 1))
        inputs = prior.network_input(self.particles.repeat(5, 1, 1, 1), condition)
        text = condition.text.to(prior.dtype)
        return {"inputs": inputs.to(prior.dtype), "text": text, "t": torch.tensor(300, device=prior.device)}


def measure(prior: DiffusionPrior, n: int, *, rounds: int = 7, compiled: bool = False) -> Measured:
    """Time all contestants on `n` particles, at least 3: the released code's kernel is not defined for 2.

    Raises `ValueError` for fewer, and for priors without an image input.
    """
    if not prior.takes_image:
        raise ValueError(f"prior {prior.name!r} has no image input: the step that is timed is that of an edit")
    if n < 3:
        raise ValueError(f"particles={n}: give at least 3, the released code's kernel is not defined for 2")
    problem, rounds = Problem.draw(prior, n), max(1, rounds)
    with _contestants(prior, problem, compiled) as contestants:
        ready, failures = _made_ready(prior, contestants)
        seconds: dict[str, list[float]] = {name: [] for name in ready}
        for number in range(rounds):
            for name in ready if number % 2 else reversed(ready):
                seconds[name].append(_timed(prior, contestants[name], _clock(prior))[0])
    timings = {
        name: replace(
            ready[name],
            seconds=statistics.median(times),
            ratio=statistics.median(a / b for a, b in zip(times, seconds[REFERENCE], strict=True)),
        )
        for name, times in seconds.items()
    }
    return Measured(n, timings, failures, _sample_flops(prior, problem), 2 * _product_side(prior) ** 3)


def _made_ready(prior: DiffusionPrior, contestants: Contestants) -> tuple[dict[str, Timing], dict[str, str]]:
    """Let everyone run: what that says of all but the time, and who is out of it and why."""
    ready, failures, gradients = {}, {}, {}
    for name, contestant in contestants.items():
        try:
            before = _idle_bytes(prior)
            # Compilers have processes of their own, whose time no thread's clock counts.
            first, _ = _timed(prior, contestant, time.perf_counter)
            again, gradients[name] = _timed(prior, contestant, time.perf_counter)
            kept = max(0, _idle_bytes(prior) - before)
            peak = None if name == COMPILED and prior.device.type == "cpu" else _peak(prior, contestant) + kept
            ready[name] = Timing(again, 1.0, peak, None, max(0.0, first - again))
        except Exception as error:  # what a machine cannot run is part of the report
            failures[name] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    if REFERENCE in failures:
        raise RuntimeError(f"the step that is to be timed cannot run: {failures[REFERENCE]}")
    reference, bound = gradients[REFERENCE], SAME[prior.dtype]
    errors = {
        name: float((gradient - reference).abs().max() / reference.abs().max())
        for name, gradient in gradients.items()
        if gradient is not None
    }
    for name, error in errors.items():
        if not error <= bound:  # nor if it is not a number
            failures[name] = f"its gradient differs from that of {REFERENCE} by {error:.1e}, more than {bound:.0e}"
    made = {name: replace(timing, error=errors.get(name)) for name, timing in ready.items() if name not in failures}
    return made, failures


@contextmanager
def _contestants(prior: DiffusionPrior, problem: Problem, compiled: bool) -> Iterator[Contestants]:
    plain = prior.through(prior.unet)  # on a GPU a prior chooses between the forms below by itself
    silent = prior.through(_no_network(prior.unet.config.out_channels))
    matrices = [torch.randn(_product_side(prior), _product_side(prior)).to(prior.device, prior.dtype) for _ in "ab"]
    rows = problem.rows(prior)
    result: Contestants = {
        "matrix product": Contestant(lambda: _nothing(matrices[0] @ matrices[1])),
        "released": Contestant(lambda: _released(plain, problem), lambda: attention_in_slices(prior)),
        "unsliced": Contestant(lambda: _released(plain, problem)),
        "limit": Contestant(lambda: _nothing(_bare(prior, rows))),
        OUTSIDE: Contestant(lambda: _nothing(_ours(silent, problem))),
        REFERENCE: Contestant(lambda: _ours(plain, problem)),
    }
    if prior.device.type == "cuda":
        captured = prior.through(CudaGraphs(prior.unet))
        result["captured"] = Contestant(lambda: _ours(captured, problem))
    if compiled:
        faster = prior.through(torch.compile(prior.unet))
        result[COMPILED] = Contestant(lambda: _ours(faster, problem))
    with tempfile.TemporaryDirectory() as folder:
        bank = SourceBank(Path(folder), prior.fingerprint())
        result["source bank"] = Contestant(lambda: _ours(plain, problem, bank))
        yield result


def _clock(prior: DiffusionPrior) -> Callable[[], float]:
    """On one thread of a CPU its own time, which other programs do not lengthen."""
    return time.thread_time if prior.device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter


def _timed(prior: DiffusionPrior, contestant: Contestant, clock: Callable[[], float]) -> tuple[float, Tensor | None]:
    with contestant.around():
        if prior.device.type == "cuda":
            torch.cuda.synchronize(prior.device)
        started = clock()
        value = contestant.run()
        if prior.device.type == "cuda":
            torch.cuda.synchronize(prior.device)
        return clock() - started, value


def _peak(prior: DiffusionPrior, contestant: Contestant) -> int:
    with contestant.around():
        if prior.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(prior.device)
            contestant.run()
            return torch.cuda.max_memory_allocated(prior.device)
        with TensorMemory() as memory:
            contestant.run()
        return memory.peak


def _idle_bytes(prior: DiffusionPrior) -> int:
    """What a GPU holds for nobody but captured graphs: their activations count as free between two replays."""
    if prior.device.type != "cuda":
        return 0
    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved(prior.device) - torch.cuda.memory_allocated(prior.device)


def _nothing(_: Any) -> None:
    """Of contestants that compute no gradient."""


def _ours(prior: DiffusionPrior, problem: Problem, bank: SourceBank | None = None) -> Tensor:
    distiller = make_edit_distiller(prior, SETTINGS, bank)
    return distiller(problem.particles, problem.target, torch.Generator().manual_seed(0)).gradient


def _released(prior: DiffusionPrior, problem: Problem) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return released_step(prior, problem.particles, problem.target, SETTINGS, generator)


def _no_network(channels: int) -> Callable[..., tuple[Tensor]]:
    def zeros(inputs: Tensor, *_: Any, **__: Any) -> tuple[Tensor]:
        return (inputs.new_zeros((len(inputs), channels, *inputs.shape[-2:])),)

    return zeros


def _bare(prior: DiffusionPrior, rows: Mapping[str, Tensor]) -> Tensor:
    with frozen(prior.device):
        return prior.unet(rows["inputs"], rows["t"], encoder_hidden_states=rows["text"], return_dict=False)[0]


def _sample_flops(prior: DiffusionPrior, problem: Problem) -> int:
    rows = {name: value if value.ndim == 0 else value[:1] for name, value in problem.rows(prior).items()}
    with FlopCounterMode(display=False) as counter:
        _bare(prior, rows)
    return counter.get_total_flops()


def _product_side(prior: DiffusionPrior) -> int:
    return 8192 if prior.device.type == "cuda" else 1024
