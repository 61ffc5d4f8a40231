"""How published checkpoints name the weights of a generator, and what their shapes say of it.

rosinality (github.com/rosinality/stylegan2-pytorch): the state dict `g_ema`, and `latent_avg` beside it,

    style.{i}.weight (i from 1)            input.input 1 c 4 4
    conv1, convs.{i}: .conv.weight 1 o i 3 3, .conv.modulation.{weight,bias}, .noise.weight 1, .activate.bias
    to_rgb1, to_rgbs.{i}: .conv.weight 1 3 i 1 1, .conv.modulation.{weight,bias}, .bias 1 3 1 1
    noises.noise_{i} 1 1 h w               convs.{i}.conv.blur.kernel, to_rgbs.{i}.upsample.kernel 4 4

NVIDIA (stylegan2-ada-pytorch, and StyleGAN2 models of stylegan3): the state dict of `G_ema`,

    mapping.fc{i}.{weight,bias}            mapping.w_avg
    synthesis.b4.const c 4 4               synthesis.b{r}.resample_filter 4 4
    synthesis.b{r}.conv0, .conv1: .weight o i 3 3, .affine.{weight,bias}, .noise_strength, .noise_const r r, .bias
    synthesis.b{r}.torgb: .weight 3 i 1 1, .affine.{weight,bias}, .bias 3

(there is no conv0 at 4 x 4). Both keep weights as N(0, 1) times what was learned and scale them when used, by the same
gains, and both store kernels in the same orientation, so that a weight goes from one to the other by its name alone.
Filters are constants, [1, 3, 3, 1] in all checkpoints that have this architecture; other filters are refused.
NVIDIA's `conv_clamp`, which cuts activations at 256 in its half-precision layers, is not in the weights and not
applied.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from csd_nerf.images.stylegan.generator import Generator, GeneratorShape

Layout = Literal["rosinality", "nvidia"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
_MARKS = {"rosinality": "input.input", "nvidia": "synthesis.b4.const"}
"""A key that each layout has and the other has not."""
_SHOWN = 4
"""So many keys at most are named in a message."""


class CheckpointError(ValueError):
    """A file is no checkpoint of a generator that can be read."""


@dataclass(frozen=True)
class _Entry:
    """One weight, by our name and by a layout's."""

    own: str
    theirs: str
    ones: tuple[int, int] = (0, 0)
    """Dimensions of length 1 that their shape has before and after ours."""

    def their_shape(self, own: Sequence[int]) -> tuple[int, ...]:
        """Shape in the checkpoint."""
        return (1,) * self.ones[0] + tuple(own) + (1,) * self.ones[1]


def layout_of(keys: Mapping[str, Tensor], source: str) -> Layout:
    """Which layout it is. Raises `CheckpointError` that says what was found; `source` is the file's name."""
    for layout in LAYOUTS:
        if _MARKS[layout] in keys:
            return layout
    raise CheckpointError(
        f"{source} has no layout that is known: neither {_MARKS['rosinality']!r} (rosinality) nor "
        f"{_MARKS['nvidia']!r} (NVIDIA) is among its keys. It has {_some(sorted(keys))}" + _guess(keys)
    )


def read_generator(weights: Mapping[str, Tensor], source: str) -> Generator:
    """The generator of a flat state dict, without gradients; `latent_avg` beside rosinality's keys is taken.

    Where the mean of w is missing it is measured, and noise that is missing is drawn: both always the same. Raises
    `CheckpointError` that names missing, unknown and wrong keys.
    """
    layout = layout_of(weights, source)
    if layout == "nvidia":
        _check_architecture(weights, source)
    shape = _shape(weights, layout, source)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = Generator(shape).requires_grad_(False)
    entries = list(_entries(layout, shape))
    own = generator.state_dict()
    missing = [entry.theirs for entry in entries if entry.theirs not in weights and not _optional(entry)]
    known = {entry.theirs for entry in entries}
    unknown = [key for key in sorted(weights) if key not in known and not _is_filter(key)]
    if missing or unknown:
        said = [f"lacks {_some(missing)}"] if missing else []
        said += [f"has {_some(unknown)}, which this architecture does not have"] if unknown else []
        raise CheckpointError(f"{source} ({layout} layout, {shape.size} x {shape.size} pixels) {' and '.join(said)}")
    for entry in entries:
        if entry.theirs not in weights:
            continue
        found = weights[entry.theirs]
        expected = own[entry.own].shape
        if _squeezed(found.shape) != _squeezed(expected):
            wanted = entry.their_shape(expected)
            raise CheckpointError(
                f"{source}: {entry.theirs} has the shape {tuple(found.shape)}, the other weights need {wanted}"
            )
        if not found.isfinite().all():
            raise CheckpointError(f"{source}: {entry.theirs} has values that are not finite")
        own[entry.own].copy_(found.reshape(expected))
    _check_filters(weights, source)
    if not any(entry.own == "mean_w" and entry.theirs in weights for entry in entries):
        generator.measure_mean_w(torch.Generator().manual_seed(0))
    return generator.to(memory_format=torch.channels_last)


def write_generator(generator: Generator, layout: Layout) -> dict[str, Tensor]:
    """The flat state dict of a layout, complete with filters; what `read_generator` takes."""
    own, shape = generator.state_dict(), generator.shape
    weights = {}
    for entry in _entries(layout, shape):
        value = own[entry.own]
        weights[entry.theirs] = value.reshape(entry.their_shape(value.shape)).contiguous().clone()
    weights.update(_filters(layout, shape))
    return weights


def _entries(layout: Layout, shape: GeneratorShape) -> Iterator[_Entry]:
    return _rosinality(shape) if layout == "rosinality" else _nvidia(shape)


def _rosinality(shape: GeneratorShape) -> Iterator[_Entry]:
    yield _Entry("mean_w", "latent_avg")
    for i in range(shape.mapping_layers):
        for part in ("weight", "bias"):
            yield _Entry(f"mapping.layers.{i}.{part}", f"style.{i + 1}.{part}")
    yield _Entry("constant", "input.input", (1, 0))
    for i in range(2 * len(shape.channels) - 1):
        theirs = "conv1" if i == 0 else f"convs.{i - 1}"
        yield _Entry(f"convs.{i}.conv.weight", f"{theirs}.conv.weight", (1, 0))
        yield from _affine(f"convs.{i}.conv", f"{theirs}.conv.modulation")
        yield _Entry(f"convs.{i}.noise_strength", f"{theirs}.noise.weight", (1, 0))
        yield _Entry(f"convs.{i}.bias", f"{theirs}.activate.bias")
        yield _Entry(f"noise_{i}", f"noises.noise_{i}", (2, 0))
    for i in range(len(shape.channels)):
        theirs = "to_rgb1" if i == 0 else f"to_rgbs.{i - 1}"
        yield _Entry(f"to_rgb.{i}.conv.weight", f"{theirs}.conv.weight", (1, 0))
        yield from _affine(f"to_rgb.{i}.conv", f"{theirs}.conv.modulation")
        yield _Entry(f"to_rgb.{i}.bias", f"{theirs}.bias", (1, 2))


def _nvidia(shape: GeneratorShape) -> Iterator[_Entry]:
    yield _Entry("mean_w", "mapping.w_avg")
    for i in range(shape.mapping_layers):
        for part in ("weight", "bias"):
            yield _Entry(f"mapping.layers.{i}.{part}", f"mapping.fc{i}.{part}")
    yield _Entry("constant", "synthesis.b4.const")
    for i in range(2 * len(shape.channels) - 1):
        theirs = f"synthesis.b{4 * 2 ** ((i + 1) // 2)}.conv{(i + 1) % 2}"
        yield _Entry(f"convs.{i}.conv.weight", f"{theirs}.weight")
        yield from _affine(f"convs.{i}.conv", f"{theirs}.affine")
        yield _Entry(f"convs.{i}.noise_strength", f"{theirs}.noise_strength")
        yield _Entry(f"convs.{i}.bias", f"{theirs}.bias")
        yield _Entry(f"noise_{i}", f"{theirs}.noise_const")
    for i in range(len(shape.channels)):
        theirs = f"synthesis.b{4 * 2**i}.torgb"
        yield _Entry(f"to_rgb.{i}.conv.weight", f"{theirs}.weight")
        yield from _affine(f"to_rgb.{i}.conv", f"{theirs}.affine")
        yield _Entry(f"to_rgb.{i}.bias", f"{theirs}.bias")


def _affine(own: str, theirs: str) -> Iterator[_Entry]:
    for part in ("weight", "bias"):
        yield _Entry(f"{own}.affine.{part}", f"{theirs}.{part}")


def _check_architecture(weights: Mapping[str, Tensor], source: str) -> None:
    """Raise `CheckpointError` for NVIDIA's generators that their keys tell from ours, before shapes are compared."""
    keys = sorted(weights)

    def refuse(found: str, why: str) -> None:
        raise CheckpointError(f"{source} (nvidia layout) {found}: {why}")

    # Their first mapping layer takes z and the embedded class, which together may be as long as w.
    if "mapping.embed.weight" in weights:
        refuse("has mapping.embed.weight", "generators of classes are not supported")
    skip = next((key for key in keys if key.startswith("synthesis.b") and ".skip." in key), None)
    supported = "only 'skip', where each resolution adds its colours, is supported"
    if skip is not None:
        refuse(
            f"has {skip.partition('.skip.')[0]}.skip", f"this is a generator of the architecture 'resnet'; {supported}"
        )
    blocks = [key.removesuffix(".conv1.weight") for key in keys if key.endswith(".conv1.weight")]
    bare = [block for block in blocks if not any(key.startswith(f"{block}.torgb.") for key in keys)]
    if bare:
        missing = _some(sorted((f"{block}.torgb" for block in bare), key=len))  # b8 before b16
        refuse(f"lacks {missing}", f"this is a generator of the architecture 'orig', or a part of one; {supported}")


def _shape(weights: Mapping[str, Tensor], layout: Layout, source: str) -> GeneratorShape:
    """What the keys and the shapes of the first layers say."""

    def needed(key: str, dimensions: int) -> torch.Size:
        if key not in weights:
            raise CheckpointError(f"{source} ({layout} layout) lacks {key!r}")
        found = weights[key].shape
        if len(found) != dimensions or 0 in found:
            raise CheckpointError(
                f"{source} ({layout} layout): {key} has the shape {tuple(found)}, where {dimensions} dimensions, none "
                "of them empty, are needed"
            )
        return found

    def count(name: Callable[[int], str]) -> int:
        number = 0
        while name(number) in weights:
            number += 1
        return number

    if layout == "rosinality":
        mapping = count(lambda i: f"style.{i + 1}.weight")
        levels = 1 + count(lambda i: f"to_rgbs.{i}.conv.weight")
        first = needed("style.1.weight", 2)
        channels = [needed("input.input", 4)[1]]
        channels += [needed(f"convs.{2 * i + 1}.conv.weight", 5)[1] for i in range(levels - 1)]
    else:
        mapping = count(lambda i: f"mapping.fc{i}.weight")
        levels = count(lambda i: f"synthesis.b{4 * 2**i}.torgb.weight")
        first = needed("mapping.fc0.weight", 2)
        channels = [needed("synthesis.b4.const", 3)[0]]
        channels += [needed(f"synthesis.b{8 * 2**i}.conv1.weight", 4)[0] for i in range(levels - 1)]
    if first[0] != first[1]:
        raise CheckpointError(
            f"{source} ({layout} layout): its mapping takes {first[1]} numbers and gives {first[0]}: generators of "
            "classes, and those whose z and w differ in length, are not supported"
        )
    return GeneratorShape(tuple(channels), style=first[0], mapping_layers=mapping)


def _filters(layout: Layout, shape: GeneratorShape) -> dict[str, Tensor]:
    line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    kernel = torch.outer(line, line)
    filters = {}
    for i in range(len(shape.channels)):
        if layout == "nvidia":
            block = f"synthesis.b{4 * 2**i}"
            names = ("conv1", *(("conv0",) if i else ()))
            for name in (f"{block}.resample_filter", *(f"{block}.{conv}.resample_filter" for conv in names)):
                filters[name] = kernel.clone()
        elif i:
            filters[f"convs.{2 * (i - 1)}.conv.blur.kernel"] = 4 * kernel
            filters[f"to_rgbs.{i - 1}.upsample.kernel"] = 4 * kernel
    return filters


def _check_filters(weights: Mapping[str, Tensor], source: str) -> None:
    line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    expected = torch.outer(line, line)
    for key, value in weights.items():
        if not _is_filter(key):
            continue
        found = value.float()
        found = torch.outer(found, found) if found.ndim == 1 else found
        if found.shape != expected.shape or not torch.allclose(found / found.sum(), expected, atol=1e-3):
            raise CheckpointError(f"{source}: {key} is another filter than [1, 3, 3, 1], which this generator has")


def _is_filter(key: str) -> bool:
    return key.endswith((".resample_filter", ".blur.kernel", ".upsample.kernel"))


def _optional(entry: _Entry) -> bool:
    """What a checkpoint may leave out: it can be measured, or drawn anew."""
    return entry.own == "mean_w" or entry.own.startswith("noise_")


def _squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _some(keys: list[str]) -> str:
    if not keys:
        return "no keys"
    shown = ", ".join(keys[:_SHOWN])
    return shown + (f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else "")


def _guess(keys: Mapping[str, Tensor]) -> str:
    """What it may be, of what people have."""
    if any(key.startswith("synthesis.L0_") for key in keys):
        return ". This is StyleGAN3, another architecture"
    if any(key.startswith(("from_rgb", "final_conv", "b4.out", "convs.0.0.")) for key in keys):
        return ". This looks like a discriminator"
    return ""
