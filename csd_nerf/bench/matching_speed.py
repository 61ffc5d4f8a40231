"""Feature matching against what it would cost with whole decodes (LDP Section 3.2).

Ours sends v and v' through the decoder in one call that ends behind the deepest level; the plain way decodes both to
pictures and takes the levels on their way. The gradient is the same. The decoder is Stable Diffusion's, with random
weights; on a CPU with a quarter of its channels and smaller pictures.

What can be gained is the forward pass of the last block, whose gradient nobody asks for: with F_A operations up to the
deepest level and F_B behind it, (2 F_A + F_B) / (2 F_A).
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from csd_nerf.bench.allocations import TensorMemory
from csd_nerf.distill.latent_losses import Distance, feature_matching
from csd_nerf.priors.autoencoder import Autoencoder
from csd_nerf.priors.decoder_features import DecoderFeatures

DECODER = (128, 256, 512, 512)
"""Channels of Stable Diffusion's levels."""
_ALPHA = 0.8


@dataclass(frozen=True)
class MatchingTimes:
    """What was measured."""

    seconds: float
    """Of ours, the median."""
    ratio: float
    """The median of the rounds' ratios: of two whole decodes over ours."""
    memory_ratio: float
    """Of the most bytes of tensors at the same time."""
    operations_ratio: float
    """Of the floating-point operations."""
    error: float
    """Largest difference of the gradients for squared differences, relative to the largest gradient."""


def decoder(device: torch.device, channels: tuple[int, ...]) -> Autoencoder:
    """Stable Diffusion's autoencoder with random weights and `channels` in place of `DECODER`."""
    from diffusers import AutoencoderKL  # pyright: ignore[reportPrivateImportUsage]

    levels = len(channels)
    options: dict[str, Any] = {
        "block_out_channels": channels,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "layers_per_block": 2,
        "latent_channels": 4,
        "scaling_factor": 0.18215,
        "force_upcast": False,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Autoencoder(AutoencoderKL(**options), device=device, dtype=torch.float32)


def measure_matching(codec: Autoencoder, side: int, rounds: int = 7) -> MatchingTimes:
    """Time both ways on one particle of `side` latent pixels."""
    generator = torch.Generator().manual_seed(0)
    v, d = (torch.randn(1, 4, side, side, generator=generator).to(codec.device) for _ in range(2))
    features = DecoderFeatures(codec)

    def ours(distance: Distance = "l1") -> Tensor:
        return feature_matching(features, v, 0.3 * d, torch.tensor(_ALPHA), distance=distance).gradient

    def plain(distance: Distance = "l1") -> Tensor:
        return two_decodes(codec, features.levels, v, 0.3 * d, distance)

    first, second = ours("l2"), plain("l2")
    seconds: list[tuple[float, float]] = []
    for number in range(rounds):  # in turns, as in `speed`
        turns = (ours, plain) if number % 2 else (plain, ours)
        took = {function: _timed(function, codec) for function in turns}
        seconds.append((took[ours], took[plain]))
    return MatchingTimes(
        statistics.median(a for a, _ in seconds),
        statistics.median(b / a for a, b in seconds),
        _peak(plain) / _peak(ours),
        _operations(plain) / _operations(ours),
        float((first - second).abs().max() / second.abs().max()),
    )


def two_decodes(codec: Autoencoder, levels: tuple[str, ...], v: Tensor, d: Tensor, distance: Distance = "l1") -> Tensor:
    """LDP Eq. 2 from two decodes of whole pictures."""
    before, after = v.detach().requires_grad_(), (v + d).detach().requires_grad_()
    with torch.enable_grad():
        pairs = zip(*(_decoded(codec, levels, latents) for latents in (before, after)), strict=True)
        losses = [(a - b).abs().mean() if distance == "l1" else (a - b).square().mean() for a, b in pairs]
        by_before, by_after = torch.autograd.grad(torch.stack(losses).sum(), (before, after))
    return (1 + _ALPHA) * by_after + by_before


def _decoded(codec: Autoencoder, levels: tuple[str, ...], latents: Tensor) -> list[Tensor]:
    blocks, found = codec.vae.decoder.up_blocks, {}

    def keep(level: str) -> Callable[..., None]:
        return lambda _, __, output: found.__setitem__(level, output)

    handles = [blocks[int(level.rpartition(".")[2])].register_forward_hook(keep(level)) for level in levels]
    codec.vae.decode(latents / codec.scaling_factor + codec.shift_factor)
    for handle in handles:
        handle.remove()
    return [found[level] for level in levels]


def _timed(function: Callable[[], Tensor], codec: Autoencoder) -> float:
    clock = time.thread_time if codec.device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    started = clock()
    function()
    if codec.device.type == "cuda":
        torch.cuda.synchronize(codec.device)
    return clock() - started


def _peak(function: Callable[[], Tensor]) -> int:
    with TensorMemory() as memory:
        function()
    return memory.peak


def _operations(function: Callable[[], Tensor]) -> int:
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()
