"""Checkpoints written from the definitions of their formats, and what a generator makes of them, sample by sample.

Nothing here uses the package: state dicts are made key by key, and pictures by loops over samples, channels and taps.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

BINOMIAL = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64)
CHANNELS, STYLE, MAPPING = (6, 5, 3), 7, 3
"""A generator of 16 x 16 pixels, as small as one can be and still have every kind of layer twice."""


def random(seed: int):
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


def rosinality(seed: int = 0) -> dict[str, Tensor]:
    """`g_ema` with `latent_avg`."""
    draw = random(seed)
    weights = {"latent_avg": draw(STYLE), "input.input": draw(1, CHANNELS[0], 4, 4)}
    for i in range(MAPPING):
        weights[f"style.{i + 1}.weight"] = draw(STYLE, STYLE) / 0.01
        weights[f"style.{i + 1}.bias"] = draw(STYLE)
    kernel = torch.outer(BINOMIAL, BINOMIAL) / 64

    def affine(name: str, inputs: int) -> None:
        weights[f"{name}.conv.modulation.weight"] = draw(inputs, STYLE)
        weights[f"{name}.conv.modulation.bias"] = 1 + draw(inputs)

    def styled(name: str, inputs: int, outputs: int) -> None:
        weights[f"{name}.conv.weight"] = draw(1, outputs, inputs, 3, 3)
        affine(name, inputs)
        weights[f"{name}.noise.weight"] = draw(1)
        weights[f"{name}.activate.bias"] = draw(outputs)

    def colours(name: str, inputs: int) -> None:
        weights[f"{name}.conv.weight"] = draw(1, 3, inputs, 1, 1)
        affine(name, inputs)
        weights[f"{name}.bias"] = draw(1, 3, 1, 1)

    styled("conv1", CHANNELS[0], CHANNELS[0])
    colours("to_rgb1", CHANNELS[0])
    for level in range(1, len(CHANNELS)):
        styled(f"convs.{2 * level - 2}", CHANNELS[level - 1], CHANNELS[level])
        weights[f"convs.{2 * level - 2}.conv.blur.kernel"] = 4 * kernel
        styled(f"convs.{2 * level - 1}", CHANNELS[level], CHANNELS[level])
        colours(f"to_rgbs.{level - 1}", CHANNELS[level])
        weights[f"to_rgbs.{level - 1}.upsample.kernel"] = 4 * kernel
    for i in range(2 * len(CHANNELS) - 1):
        side = 4 * 2 ** ((i + 1) // 2)
        weights[f"noises.noise_{i}"] = draw(1, 1, side, side)
    return {name: value.float() for name, value in weights.items()}


def nvidia(seed: int = 0) -> dict[str, Tensor]:
    """The state dict of `G_ema`."""
    draw = random(seed)
    kernel = torch.outer(BINOMIAL, BINOMIAL) / 64
    weights = {"mapping.w_avg": draw(STYLE), "synthesis.b4.const": draw(CHANNELS[0], 4, 4)}
    for i in range(MAPPING):
        weights[f"mapping.fc{i}.weight"] = draw(STYLE, STYLE) / 0.01
        weights[f"mapping.fc{i}.bias"] = draw(STYLE)
    for level, outputs in enumerate(CHANNELS):
        side = 4 * 2**level
        block = f"synthesis.b{side}"
        weights[f"{block}.resample_filter"] = kernel
        for conv in ("conv0", "conv1") if level else ("conv1",):
            inputs = CHANNELS[level - 1] if conv == "conv0" else outputs
            weights |= {
                f"{block}.{conv}.weight": draw(outputs, inputs, 3, 3),
                f"{block}.{conv}.bias": draw(outputs),
                f"{block}.{conv}.noise_const": draw(side, side),
                f"{block}.{conv}.noise_strength": draw(1)[0],
                f"{block}.{conv}.resample_filter": kernel,
                f"{block}.{conv}.affine.weight": draw(inputs, STYLE),
                f"{block}.{conv}.affine.bias": 1 + draw(inputs),
            }
        weights |= {
            f"{block}.torgb.weight": draw(3, outputs, 1, 1),
            f"{block}.torgb.bias": draw(3),
            f"{block}.torgb.affine.weight": draw(outputs, STYLE),
            f"{block}.torgb.affine.bias": 1 + draw(outputs),
        }
    return {name: value.float() for name, value in weights.items()}


def modulated(x: Tensor, weight: Tensor, scales: Tensor, *, demodulate: bool, up: bool, gain: bool = True) -> Tensor:
    """Karras et al. 2020, Eq. 1 and 3, weight by weight: `x` i h w, `weight` o i k k, `scales` i; one sample."""
    outputs, inputs, k, _ = weight.shape
    result = []
    for o in range(outputs):
        own = torch.empty_like(weight[o])
        for i in range(inputs):
            own[i] = weight[o, i] * scales[i] * (1 / math.sqrt(inputs * k * k) if gain else 1)
        if demodulate:
            own = own / math.sqrt(float(own.square().sum()) + 1e-8)
        total = torch.zeros(1, dtype=x.dtype)
        for i in range(inputs):
            total = total + (spread(x[i], own[i]) if up else correlate(x[i], own[i]))
        result.append(filtered(total, 4.0, (1, 1)) if up else total)
    return torch.stack(result)


def correlate(plane: Tensor, kernel: Tensor) -> Tensor:
    """Zero-padded correlation of one plane, tap by tap."""
    k = kernel.shape[0]
    height, width = plane.shape
    padded = F.pad(plane, (k // 2,) * 4)
    result = torch.zeros_like(plane)
    for a in range(k):
        for b in range(k):
            result = result + kernel[a, b] * padded[a : a + height, b : b + width]
    return result


def spread(plane: Tensor, kernel: Tensor) -> Tensor:
    """Transposed convolution of stride 2: each pixel adds the kernel around its place, 2 h + 1 wide."""
    height, width = plane.shape
    result = torch.zeros(2 * height + 1, 2 * width + 1, dtype=plane.dtype)
    for y in range(height):
        for x in range(width):
            result[2 * y : 2 * y + 3, 2 * x : 2 * x + 3] += plane[y, x] * kernel
    return result


def filtered(plane: Tensor, gain: float, pad: tuple[int, int]) -> Tensor:
    """[1, 3, 3, 1] / 8 along both axes, `pad` zeros before and after."""
    kernel = gain * torch.outer(BINOMIAL, BINOMIAL).to(plane) / 64
    padded = F.pad(plane, (*pad, *pad))
    height, width = (side - 3 for side in padded.shape)
    result = torch.zeros(height, width, dtype=plane.dtype)
    for a in range(4):
        for b in range(4):
            result = result + kernel[a, b] * padded[a : a + height, b : b + width]
    return result


def doubled(image: Tensor) -> Tensor:
    """Zeros between the pixels, then the filter with gain 4."""
    planes = []
    for plane in image:
        apart = torch.zeros(2 * plane.shape[0], 2 * plane.shape[1], dtype=plane.dtype)
        apart[::2, ::2] = plane
        planes.append(filtered(apart, 4.0, (2, 1)))
    return torch.stack(planes)


def activated(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.2 * x) * math.sqrt(2)


def pictures_of_rosinality(weights: dict[str, Tensor], z: Tensor, truncation: float = 1.0) -> Tensor:
    """What rosinality's generator makes of z with the noise in the checkpoint."""
    p = {name: value.double() for name, value in weights.items()}
    made = []
    for sample in z.double():
        w = sample / math.sqrt(float(sample.square().mean()) + 1e-8)
        for i in range(MAPPING):
            matrix = p[f"style.{i + 1}.weight"] * 0.01 / math.sqrt(len(w))
            w = activated(matrix @ w + 0.01 * p[f"style.{i + 1}.bias"])
        w = p["latent_avg"] + truncation * (w - p["latent_avg"])

        def scales(name: str, w: Tensor = w) -> Tensor:
            matrix = p[f"{name}.conv.modulation.weight"] / math.sqrt(len(w))
            return matrix @ w + p[f"{name}.conv.modulation.bias"]

        def styled(x: Tensor, name: str, index: int, up: bool) -> Tensor:
            y = modulated(x, p[f"{name}.conv.weight"][0], scales(name), demodulate=True, up=up)
            y = y + p[f"{name}.noise.weight"] * p[f"noises.noise_{index}"][0]
            return activated(y + p[f"{name}.activate.bias"][:, None, None])

        def colours(x: Tensor, name: str) -> Tensor:
            y = modulated(x, p[f"{name}.conv.weight"][0], scales(name), demodulate=False, up=False)
            return y + p[f"{name}.bias"][0]

        x = styled(p["input.input"][0], "conv1", 0, up=False)
        image = colours(x, "to_rgb1")
        for level in range(len(CHANNELS) - 1):
            x = styled(x, f"convs.{2 * level}", 2 * level + 1, up=True)
            x = styled(x, f"convs.{2 * level + 1}", 2 * level + 2, up=False)
            image = doubled(image) + colours(x, f"to_rgbs.{level}")
        made.append(image)
    return torch.stack(made)


def pictures_of_nvidia(weights: dict[str, Tensor], z: Tensor) -> Tensor:
    """What stylegan2-ada-pytorch makes of z with `noise_mode='const'`: demodulated weights carry no gain there."""
    p = {name: value.double() for name, value in weights.items()}
    made = []
    for sample in z.double():
        w = sample / math.sqrt(float(sample.square().mean()) + 1e-8)
        for i in range(MAPPING):
            w = activated(p[f"mapping.fc{i}.weight"] @ w * 0.01 / math.sqrt(len(w)) + 0.01 * p[f"mapping.fc{i}.bias"])

        def scales(name: str, w: Tensor = w) -> Tensor:
            return p[f"{name}.affine.weight"] @ w / math.sqrt(len(w)) + p[f"{name}.affine.bias"]

        x, image = p["synthesis.b4.const"], None
        for level in range(len(CHANNELS)):
            block = f"synthesis.b{4 * 2**level}"
            for conv in ("conv0", "conv1") if level else ("conv1",):
                name = f"{block}.{conv}"
                y = modulated(x, p[f"{name}.weight"], scales(name), demodulate=True, up=conv == "conv0", gain=False)
                y = y + p[f"{name}.noise_const"] * p[f"{name}.noise_strength"]
                x = activated(y + p[f"{name}.bias"][:, None, None])
            weight = p[f"{block}.torgb.weight"]
            own = modulated(x, weight, scales(f"{block}.torgb"), demodulate=False, up=False)
            own = own + p[f"{block}.torgb.bias"][:, None, None]
            image = own if image is None else doubled(image) + own
        assert image is not None
        made.append(image)
    return torch.stack(made)
