"""Adversarial training of a generator from pictures, as StyleGAN2 does it.

With logits D and softplus f(x) = log(1 + e^x):

    generator       f(-D(G(z)))                                      non-saturating loss (Goodfellow et al. 2014)
    discriminator   f(D(G(z))) + f(-D(x)) + gamma / 2 |grad_x D(x)|^2               R1 (Mescheder et al. 2018)
    path lengths    (|J_w^T y| - a)^2, y ~ N(0, 1) / pixels, a its running mean   (Karras et al. 2020, Section 3.2)

The last two are computed every k-th step only, k times as strong ("lazy regularisation"): Adam's learning rate and
betas are therefore those for k + 1 steps in place of k, lr k / (k + 1) and beta^(k / (k + 1)). What is kept in the end
is the running average of the generator's weights. Unlike StyleGAN2's, the learning rate falls linearly to a tenth over
the last 15 % of the steps: a training of an hour has no time to average its swings away.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor, nn

from csd_nerf.images.stylegan.augmentation import AdaptiveProbability, augmented
from csd_nerf.images.stylegan.discriminator import Discriminator
from csd_nerf.images.stylegan.generator import Generator, GeneratorShape

_PATH_DECAY = 0.01
_FALLING, _LOWEST = 0.15, 0.1


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a generator is trained."""

    steps: int
    """Steps of generator and discriminator."""
    batch_size: int = 16
    """Pictures of each kind in a step."""
    lr: float = 0.0025
    """Adam's learning rate, of both networks, before it falls at the end."""
    r1: float = 0.1
    """gamma."""
    r1_every: int = 16
    """Steps between computations of R1."""
    path_weight: float = 0.0
    """Weight of the path-length regulariser (StyleGAN2: 2); 0 leaves it out."""
    path_every: int = 8
    """Steps between its computations."""
    adapt_augmentation: bool = True
    """Whether the discriminator's pictures are changed at random, as much as it needs."""
    average_images: int = 5000
    """Pictures after which a weight has lost half its share in the average."""
    bfloat16: bool = False
    """Whether convolutions are computed in bfloat16; weights stay in float32."""

    def __post_init__(self) -> None:
        """Raise `ValueError`, naming the field and the remedy, for values that cannot work."""
        for name in ("steps", "batch_size", "r1_every", "path_every", "average_images"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: give at least 1")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr={self.lr}: give a positive learning rate")
        for name in ("r1", "path_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)}: give a finite weight, 0 or more")

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        left = (self.steps - step) / (_FALLING * self.steps)
        return self.lr * max(_LOWEST, min(1.0, left))


class DivergedError(FloatingPointError):
    """A loss or its gradient is not finite any more. The step was not made: weights and their average are finite."""


@dataclass(frozen=True)
class TrainingRecord:
    """One step."""

    step: int
    generator: float
    """Its loss."""
    discriminator: float
    """Its loss, without R1."""
    certainty: float
    """Mean sign of the logits of real pictures, -1..1."""
    augmentation: float
    """Probability p of each change."""


class Training:
    """Generator, discriminator, and what their training has to remember."""

    def __init__(self, shape: GeneratorShape, settings: TrainingSettings, seed: int, device: torch.device) -> None:
        """Random weights of the seed. The discriminator has as many channels as the generator."""
        self.settings, self.device = settings, device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.generator = Generator(shape).to(device).to(memory_format=torch.channels_last)
            self.discriminator = Discriminator(shape.channels).to(device).to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self.random = torch.Generator().manual_seed(seed)
        self.probability = AdaptiveProbability()
        self.path_mean, self.step = 0.0, 0
        self.ratios = (
            _lazy_ratio(settings.path_every if settings.path_weight else None),
            _lazy_ratio(settings.r1_every),
        )
        networks = (self.generator, self.discriminator)
        self.optimizers = tuple(
            torch.optim.Adam(network.parameters(), lr=settings.lr * ratio, betas=(0.0, 0.99**ratio))
            for network, ratio in zip(networks, self.ratios, strict=True)
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed training needs, tensors and numbers only."""
        return {
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "random": self.random.get_state(),
            "augmentation": self.probability.p,
            "path_mean": self.path_mean,
            "step": self.step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where the state stands."""
        self.generator.load_state_dict(state["generator"])
        self.discriminator.load_state_dict(state["discriminator"])
        self.average.load_state_dict(state["average"])
        for optimizer, stored in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(stored)
        self.random.set_state(state["random"])
        self.probability.p, self.path_mean, self.step = state["augmentation"], state["path_mean"], state["step"]

    def run(
        self,
        data: UInt8[Tensor, "m 3 s s"],
        on_step: Callable[[TrainingRecord], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        """Make the steps that are left. Raises `DivergedError` for a step that cannot be made."""
        while self.step < self.settings.steps and not (should_stop is not None and should_stop()):
            record = self._step(data)
            if on_step is not None:
                on_step(record)

    def finished(self, samples: int = 4096) -> Generator:
        """The averaged generator, with the mean of w measured."""
        self.average.measure_mean_w(torch.Generator().manual_seed(0), samples)
        return self.average

    def _step(self, data: Tensor) -> TrainingRecord:
        settings = self.settings
        generator_loss = self._descend(0, lambda: F.softplus(-self._judged(self._generated())).mean())
        if settings.path_weight and self.step % settings.path_every == 0:
            self._descend(0, self._path_lengths)
        rows = torch.randint(len(data), (settings.batch_size,), generator=self.random)
        real = data[rows].to(self.device).float() / 127.5 - 1
        logits: list[Tensor] = []

        def discriminate() -> Tensor:
            with torch.no_grad():
                fake = self._generated()
            logits.append(self._judged(real))
            return F.softplus(self._judged(fake)).mean() + F.softplus(-logits[0]).mean()

        discriminator_loss = self._descend(1, discriminate)
        if self.step % settings.r1_every == 0:
            self._descend(1, lambda: self._r1(real))
        if settings.adapt_augmentation:
            self.probability.update(logits[0], settings.batch_size)
        self.step += 1
        self._average()
        certainty = float(logits[0].detach().sign().mean())
        return TrainingRecord(self.step, generator_loss, discriminator_loss, certainty, self.probability.p)

    def _descend(self, which: int, loss_of: Callable[[], Tensor]) -> float:
        """One step of the generator (0) or the discriminator (1). Raises `DivergedError` before a step into nowhere."""
        networks: tuple[nn.Module, nn.Module] = (self.generator, self.discriminator)
        networks[1 - which].requires_grad_(False)
        networks[which].requires_grad_(True)
        for group in self.optimizers[which].param_groups:
            group["lr"] = self.settings.rate(self.step) * self.ratios[which]
        self.optimizers[which].zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.bfloat16):
            loss = loss_of()
        loss.backward()
        gradients = [weight.grad for weight in networks[which].parameters() if weight.grad is not None]
        finite = torch.stack([torch.isfinite(values).all() for values in [loss.detach(), *gradients]])
        if not finite.all():
            name = ("generator", "discriminator")[which]
            raise DivergedError(
                f"the training of the {name} diverged at step {self.step} (its loss or gradient is not finite): take a "
                "lower learning rate, or float32 if it was bfloat16"
            )
        self.optimizers[which].step()
        return float(loss.detach())

    def _generated(self) -> Tensor:
        z = torch.randn(self.settings.batch_size, self.generator.shape.style, generator=self.random).to(self.device)
        return self.generator(z, noise="random", generator=self.random)

    def _judged(self, images: Tensor) -> Tensor:
        return self.discriminator(augmented(images, self.probability.p, self.random))

    def _r1(self, real: Tensor) -> Tensor:
        real = real.detach().requires_grad_()
        with torch.autocast(self.device.type, enabled=False):
            logits = self._judged(real)
            (gradient,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
        return self.settings.r1 / 2 * self.settings.r1_every * gradient.square().sum(dim=(1, 2, 3)).mean()

    def _path_lengths(self) -> Tensor:
        """For half the batch, as StyleGAN2 does, in full precision."""
        count = max(1, self.settings.batch_size // 2)
        z = torch.randn(count, self.generator.shape.style, generator=self.random).to(self.device)
        with torch.autocast(self.device.type, enabled=False):
            styles = self.generator.styles(z)
            images = self.generator.synthesise(styles, self.generator.noise("random", count, self.random))
            y = torch.randn(images.shape, generator=self.random).to(images) / math.sqrt(images[0, 0].numel())
            (gradient,) = torch.autograd.grad((images * y).sum(), styles, create_graph=True)
        lengths = gradient.square().sum(dim=2).mean(dim=1).sqrt()
        self.path_mean += _PATH_DECAY * (float(lengths.detach().mean()) - self.path_mean)
        loss = (lengths - self.path_mean).square().mean()
        return self.settings.path_weight * self.settings.path_every * loss

    @torch.no_grad()
    def _average(self) -> None:
        """Early averages forget faster: what is averaged over grows with what was seen."""
        seen = self.step * self.settings.batch_size
        half_life = min(self.settings.average_images, 0.05 * seen)
        decay = 0.5 ** (self.settings.batch_size / max(half_life, 1e-8))
        for average, weight in zip(self.average.parameters(), self.generator.parameters(), strict=True):
            average.lerp_(weight.detach(), 1 - decay)
        for average, buffer in zip(self.average.buffers(), self.generator.buffers(), strict=True):
            average.copy_(buffer)


def _lazy_ratio(regularised_every: int | None) -> float:
    """What learning rate and betas are corrected by; 1 for a network that is not regularised."""
    return 1.0 if regularised_every is None else regularised_every / (regularised_every + 1)
