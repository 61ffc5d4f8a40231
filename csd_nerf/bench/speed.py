"""What one CSD-Edit step costs, against the released code's schedule and against the network call that it cannot avoid.

For N particles the step needs 5 N network samples (three branches of the edited particle, two of its source); the call
of the bare network on 5 N rows is its limit. The contestants compute the same gradient from the same draw:

    matrix product   of the network's precision: the machine's rate
    limit            the bare network, one call of 5 N rows
    released         the released code's schedule, re-derived: particle by particle, a call of three rows for the edited
                     particle and one of three for its source, attention in slices
    unsliced         the same without slices
    ours             the distiller: one call of 5 N rows
    captured         ours, its network replayed as a CUDA graph
    compiled         ours, its network compiled by torch

They are timed in turns, round after round, so that whatever else the machine does meets all of them alike.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from csd_nerf.distill.presets import EditSettings
from csd_nerf.distill.solving import make_edit_distiller
from csd_nerf.distill.types import Condition, Target
from csd_nerf.priors.autoencoder import frozen
from csd_nerf.priors.cuda_graphs import CudaGraphs
from csd_nerf.priors.diffusion import DiffusionPrior

SETTINGS = EditSettings(preset="released", image_condition="mode", image_guidance_scale=1.5)
"""The released code's choices, so that its schedule can be held against ours; the cost is that of every preset."""
REFERENCE = "ours"


@dataclass(frozen=True)
class Timing:
    """One contestant at one number of particles."""

    seconds: float
    """Median over the rounds."""
    ratio: float
    """Median over the rounds of its time over that of `ours`."""
    peak_bytes: int | None
    """Most memory that torch held on the GPU, weights included; None on a CPU."""
    error: float | None
    """Largest difference of its gradient from that of `ours`, relative to the largest gradient."""
    setup: float = 0.0
    """Seconds of the first call less those of a later one: compilation, capture."""


@dataclass(frozen=True)
class Measured:
    """All contestants at one number of particles."""

    particles: int
    timings: dict[str, Timing]
    failures: dict[str, str]
    """Contestants that could not run, and why."""
    sample_flops: int
    """Floating-point operations of one network sample, a multiplication and an addition counted as two."""
    product_flops: int
    """Those of the matrix product."""

    def rate(self, name: str) -> float:
        """FLOP/s of a contestant, the network's operations alone counted."""
        work = self.product_flops if name == "matrix product" else 5 * self.particles * self.sample_flops
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


def measure(prior: DiffusionPrior, n: int, *, rounds: int = 7, compiled: bool = False) -> Measured:
    """Time all contestants on `n` particles. Raises `ValueError` for priors without an image input."""
    if not prior.takes_image:
        raise ValueError(f"prior {prior.name!r} has no image input: the step that is timed is that of an edit")
    problem = Problem.draw(prior, n)
    contestants = _contestants(prior, problem, compiled)
    failures: dict[str, str] = {}
    setup, peaks, gradients = {}, {}, {}
    for name, contestant in list(contestants.items()):
        try:
            first, _ = _timed(prior, contestant)
            if prior.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(prior.device)
            again, gradients[name] = _timed(prior, contestant)
            setup[name] = max(0.0, first - again)
            peaks[name] = torch.cuda.max_memory_allocated(prior.device) if prior.device.type == "cuda" else None
        except Exception as error:  # noqa: BLE001 - what a machine cannot run is part of the report
            failures[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            del contestants[name]
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            seconds[name].append(_timed(prior, contestant)[0])
    timings = {
        name: Timing(
            statistics.median(times),
            statistics.median(a / b for a, b in zip(times, seconds[REFERENCE], strict=True)),
            peaks[name],
            _error(gradients[name], gradients[REFERENCE]),
            setup[name],
        )
        for name, times in seconds.items()
    }
    return Measured(n, timings, failures, _sample_flops(prior, problem), 2 * _product_side(prior) ** 3)


def _contestants(
    prior: DiffusionPrior, problem: Problem, compiled: bool
) -> dict[str, Callable[[], Tensor | None]]:
    matrices = [torch.randn(_product_side(prior), _product_side(prior)).to(prior.device, prior.dtype) for _ in "ab"]
    rows = _rows(prior, problem)
    result: dict[str, Callable[[], Tensor | None]] = {
        "matrix product": lambda: _nothing(matrices[0] @ matrices[1]),
        "limit": lambda: _nothing(_bare(prior, rows)),
        "released": lambda: _released_step(prior, problem, sliced=True),
        "unsliced": lambda: _released_step(prior, problem, sliced=False),
        REFERENCE: lambda: _our_step(prior, problem),
    }
    if prior.device.type == "cuda":
        captured = prior.through(CudaGraphs(prior.unet))
        result["captured"] = lambda: _our_step(captured, problem)
    if compiled:
        faster = prior.through(torch.compile(prior.unet))
        result["compiled"] = lambda: _our_step(faster, problem)
    return result


def _timed(prior: DiffusionPrior, contestant: Callable[[], Any]) -> tuple[float, Any]:
    if prior.device.type == "cuda":
        torch.cuda.synchronize(prior.device)
    started = time.perf_counter()
    value = contestant()
    if prior.device.type == "cuda":
        torch.cuda.synchronize(prior.device)
    return time.perf_counter() - started, value


def _nothing(_: Any) -> None:
    """Of contestants that compute no gradient."""


def _error(gradient: Tensor | None, reference: Tensor | None) -> float | None:
    if gradient is None or reference is None:
        return None
    return float((gradient - reference).abs().max() / reference.abs().max())


def _our_step(prior: DiffusionPrior, problem: Problem) -> Tensor:
    distiller = make_edit_distiller(prior, SETTINGS)
    return distiller(problem.particles, problem.target, torch.Generator().manual_seed(0)).gradient


@torch.no_grad()
def _released_step(prior: DiffusionPrior, problem: Problem, *, sliced: bool) -> Tensor:
    """The same gradient, as the released code goes about it: six samples for each particle, one after the other."""
    full = SETTINGS.resolved()
    assert full.t_min is not None and full.t_max is not None and full.image_guidance_scale is not None
    generator, x, target = torch.Generator().manual_seed(0), problem.particles, problem.target
    last = prior.schedule.steps - 1
    t = torch.randint(round(full.t_min * (last + 1)), round(full.t_max * (last + 1)) + 1, (), generator=generator)
    eps = torch.randn(x.shape, generator=generator).to(x)
    alpha, sigma = prior.schedule.alpha(t).to(x), prior.schedule.sigma(t).to(x)
    assert target.image is not None and target.source is not None
    _slice_attention(prior, sliced)
    noised, differences = alpha * x + sigma * eps, []
    for i in range(len(x)):
        image, null = target.image[i : i + 1], target.null_text[i : i + 1]
        images = torch.cat([image, image, torch.zeros_like(image)])

        def guided(x_t: Tensor, text: Tensor, images: Tensor = images, null: Tensor = null) -> Tensor:
            condition = Condition(torch.cat([text, null, null]), images)
            told, pictured, nothing = prior.predict_noise(x_t.expand(3, -1, -1, -1), t, condition)
            return nothing + full.image_guidance_scale * (pictured - nothing) + full.guidance_scale * (told - pictured)

        source_t = alpha * target.source[i : i + 1] + sigma * eps[i : i + 1]
        differences.append(guided(noised[i : i + 1], target.texts[0][i : i + 1]) - guided(source_t, null))
    _slice_attention(prior, False)
    difference, flat = torch.stack(differences).flatten(1), noised.flatten(1)
    squared = (flat[:, None] - flat[None, :]).square().sum(dim=2)
    h = squared.flatten().sort().values[(squared.numel() - 1) // 2] / torch.log(squared.new_tensor(len(x) + 1.0))
    k = torch.exp(-squared / h)
    repulsion = 2 / h * (flat * k.sum(dim=1, keepdim=True) - k @ flat)
    weight = prior.schedule.weight(t).to(x)
    return (weight * (k @ difference - repulsion) / len(x)).reshape(x.shape)


def _slice_attention(prior: DiffusionPrior, sliced: bool) -> None:
    from diffusers.models.attention_processor import AttnProcessor2_0

    if sliced:
        prior.unet.set_attention_slice("auto")
    else:
        prior.unet.set_attn_processor(AttnProcessor2_0())


def _rows(prior: DiffusionPrior, problem: Problem) -> Mapping[str, Tensor]:
    """What the network sees in one step."""
    target = problem.target
    condition = Condition(target.texts[0].repeat(5, 1, 1), None if target.image is None else target.image.repeat(5, 1, 1, 1))
    inputs = prior.network_input(problem.particles.repeat(5, 1, 1, 1), condition)
    text = condition.text.to(prior.dtype)
    return {"inputs": inputs.to(prior.dtype), "text": text, "t": torch.tensor(300, device=prior.device)}


def _bare(prior: DiffusionPrior, rows: Mapping[str, Tensor]) -> Tensor:
    with frozen(prior.device):
        return prior.unet(rows["inputs"], rows["t"], encoder_hidden_states=rows["text"], return_dict=False)[0]


def _sample_flops(prior: DiffusionPrior, problem: Problem) -> int:
    rows = {name: value if value.ndim == 0 else value[:1] for name, value in _rows(prior, problem).items()}
    with FlopCounterMode(display=False) as counter:
        _bare(prior, rows)
    return counter.get_total_flops()


def _product_side(prior: DiffusionPrior) -> int:
    return 8192 if prior.device.type == "cuda" else 2048
