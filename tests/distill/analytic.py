"""Priors with simple formulas, for tests of the core: every row of the answer depends on the same row of the input."""

from collections.abc import Sequence

import torch
from torch import Tensor

from csd_nerf.distill import Condition, NoiseSchedule, Target


class FormulaPrior:
    """eps_hat = sin(1.3 x_t + text) + 0.4 image + t / 1000: nonlinear, and sensitive to all inputs."""

    name, takes_image, factor, size, device = "formula", True, 2, 8, torch.device("cpu")

    def __init__(self) -> None:
        self.schedule = NoiseSchedule.scaled_linear()
        self.samples = self.calls = 0

    def predict_noise(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        self.calls += 1
        self.samples += len(x_t)
        eps = torch.sin(1.3 * x_t + condition.text.mean(dim=(1, 2))[:, None, None, None]) + float(t) / 1000
        return eps if condition.image is None else eps + 0.4 * condition.image

    def encode(self, images: Tensor) -> Tensor:
        pooled = torch.nn.functional.avg_pool2d(images, self.factor)
        return (torch.cat([pooled, pooled.mean(dim=1, keepdim=True)], dim=1) - 0.5) * 2

    def decode(self, latents: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(latents[:, :3] / 2 + 0.5, scale_factor=self.factor).clamp(0, 1)

    def encode_condition(self, images: Tensor, *, scaled_sample: torch.Generator | None = None) -> Tensor:
        latents = self.encode(images)
        if scaled_sample is None:
            return latents / 0.3
        return latents + 0.01 * torch.randn(latents.shape, generator=scaled_sample)

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        return torch.stack([torch.full((2, 3), float(sum(map(ord, prompt)) % 97) / 50) for prompt in prompts])


class Constant(FormulaPrior):
    """eps_hat = the first number of the text encoding, everywhere."""

    def predict_noise(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return torch.ones_like(x_t) * condition.text[:, 0, 0].to(x_t)[:, None, None, None]


def random_target(n: int, seed: int = 0, shape: tuple[int, ...] = (4, 3, 5), image: bool = True) -> Target:
    """A float64 target with distinct text, null text, image and source."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    return Target(
        texts=(draw(1, 2, 3).expand(n, 2, 3),),
        null_text=draw(1, 2, 3).expand(n, 2, 3),
        image=draw(n, *shape) if image else None,
        source=draw(n, *shape),
    )


def random_particles(n: int, seed: int = 1, shape: tuple[int, ...] = (4, 3, 5)) -> Tensor:
    """Float64 particles."""
    return torch.randn((n, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seeded(seed: int = 7) -> torch.Generator:
    """A CPU generator."""
    return torch.Generator().manual_seed(seed)
