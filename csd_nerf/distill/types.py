"""Protocols and frozen records of the distiller core.

Symbols (CSD Sections 2 and 3): a particle `x` is one image or latent of the set that is edited or generated together;
`x_t = alpha_t x + sigma_t eps` is the particle after noise of level `t`; `eps_hat(x_t; condition, t)` is the frozen
network's estimate of that noise. Particles have shape `n c h w`, text encodings `n l d`.

A noise estimate under guidance needs several network samples per particle. Guidance and baselines therefore do not
call the network: they describe what they need as an `Estimate` (queries, and how the answers combine), and the
distiller asks for the queries of all estimates in one network call.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

if TYPE_CHECKING:
    from csd_nerf.distill.schedule import NoiseSchedule


@dataclass(frozen=True)
class Condition:
    """What the network is told about each of its `n` inputs."""

    text: Float[Tensor, "n l d"]
    """Encoded prompt, one row per input."""
    image: Float[Tensor, "n c h w"] | None = None
    """Encoded source picture, for priors that take one (InstructPix2Pix); all zeros means 'no picture'."""


@dataclass(frozen=True)
class Query:
    """One network sample per row."""

    x_t: Float[Tensor, "n c h w"]
    """Noisy particles."""
    condition: Condition
    """What the network is told about them."""


@dataclass(frozen=True)
class Estimate:
    """A noise estimate that has not been evaluated yet."""

    queries: tuple[Query, ...]
    """The network samples it needs; empty if it needs none."""
    combine: Callable[[Sequence[Tensor]], Tensor]
    """Turns the answers, one tensor per query in the same order, into the estimate (n c h w)."""


@dataclass(frozen=True)
class Target:
    """What a set of `n` particles should become, and what it was."""

    texts: tuple[Float[Tensor, "n l d"], ...]
    """Encoded prompts; more than one for compositional editing (CSD D.1)."""
    null_text: Float[Tensor, "n l d"]
    """Encoding of the empty or the negative prompt."""
    image: Float[Tensor, "n c h w"] | None = None
    """Image condition, for priors that take one."""
    weights: Float[Tensor, "k n"] | None = None
    """Share of each prompt in each particle, at least 0, columns sum to 1; None with a single prompt."""
    source: Float[Tensor, "n c h w"] | None = None
    """The particles before the edit, for `SourceScore` baselines."""
    source_text: Float[Tensor, "n l d"] | None = None
    """Encoded description of the source, for Delta Denoising Score; None means the null text."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for weights that are no shares of the prompts in the particles."""
        if self.weights is None:
            return
        wanted = (len(self.texts), len(self.null_text))
        if tuple(self.weights.shape) != wanted:
            raise ValueError(
                f"weights of shape {tuple(self.weights.shape)} for {wanted[0]} prompts and {wanted[1]} particles: give "
                f"shape {wanted}"
            )
        sums = self.weights.sum(dim=0)
        wrong = ~((self.weights >= 0).all(dim=0) & ((sums - 1).abs() < 1e-3))
        if wrong.any():
            particle = int(torch.nonzero(wrong)[0])
            raise ValueError(
                f"the prompts' weights in particle {particle} are {self.weights[:, particle].tolist()}: give shares, "
                "at least 0, that sum to 1"
            )

    def __getitem__(self, rows: Int[Tensor, " m"]) -> "Target":
        """The target of a subset of the particles."""

        def pick(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[rows]

        return Target(
            texts=tuple(text[rows] for text in self.texts),
            null_text=self.null_text[rows],
            image=pick(self.image),
            weights=None if self.weights is None else self.weights[:, rows],
            source=pick(self.source),
            source_text=pick(self.source_text),
        )


@dataclass(frozen=True)
class Noised:
    """Particles after the forward process, `x_t = alpha x + sigma eps`."""

    x_t: Float[Tensor, "n c h w"]
    """Noisy particles."""
    eps: Float[Tensor, "n c h w"]
    """The noise that was added."""
    t: Int[Tensor, ""]
    """Timestep, an index into the schedule; the same for all particles."""
    alpha: Float[Tensor, ""]
    """Signal scale at `t`."""
    sigma: Float[Tensor, ""]
    """Noise scale at `t`."""


@dataclass(frozen=True)
class Distillation:
    """One distillation step."""

    gradient: Float[Tensor, "n c h w"]
    """Descent direction: `x <- x - lr * gradient`."""
    t: int
    """Timestep of this step."""
    gram: Float[Tensor, "n n"]
    """Kernel matrix `k(x_t^j, x_t^i)`; how much particle i listens to particle j."""
    network_samples: int
    """Network samples that the step cost, over all particles."""


@runtime_checkable
class ScorePrior(Protocol):
    """A frozen diffusion model. No autograd goes through it."""

    @property
    def schedule(self) -> "NoiseSchedule":
        """Noise schedule that the model was trained with."""
        ...

    def predict_noise(
        self, x_t: Float[Tensor, "n c h w"], t: Int[Tensor, ""], condition: Condition
    ) -> Float[Tensor, "n c h w"]:
        """Estimate the noise in `x_t` (float32 in, float32 out), splitting into micro-batches as it needs.

        A prior of networks also takes a timestep for each row.
        """
        ...


@runtime_checkable
class ImagePrior(ScorePrior, Protocol):
    """A score prior with its codec: pictures in [0, 1] to particles and back, prompts to encodings."""

    name: str
    """As a user would call it, for messages."""
    takes_image: bool
    """Whether the network has an image-condition input (InstructPix2Pix)."""
    factor: int
    """Pixels per latent pixel (1 for pixel-space models)."""
    size: int
    """Side in pixels of the pictures that the model was trained on."""
    device: torch.device
    """Where the networks run; particles and encodings live there too."""

    def encode(self, images: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n c h w"]:
        """Latents (float32, scaled to unit variance) of pictures in [0, 1]: the mode of the posterior."""
        ...

    def decode(self, latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 H W"]:
        """Pictures, clamped to [0, 1], float32; what overflows becomes NaN, not white."""
        ...

    def encode_condition(
        self, images: Float[Tensor, "n 3 H W"], *, scaled_sample: torch.Generator | None = None
    ) -> Float[Tensor, "n c h w"]:
        """Image condition: the posterior's mode, not scaled (as InstructPix2Pix was trained).

        With a generator in `scaled_sample`: a scaled posterior sample, as the CSD authors' released code feeds it.
        Raises `ValueError` for priors without an image input.
        """
        ...

    def encode_text(self, prompts: Sequence[str]) -> Float[Tensor, "n l d"]:
        """Encoded prompts, float32."""
        ...


@runtime_checkable
class ViewPrior(ImagePrior, Protocol):
    """An image prior that rendered views can be distilled from: autograd goes through its encoder."""

    def encode_attached(self, images: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n c h w"]:
        """As `encode`, with autograd from the particles to the pictures."""
        ...


@runtime_checkable
class Guidance(Protocol):
    """Classifier-free guidance."""

    def estimate(self, x_t: Float[Tensor, "n c h w"], t: Int[Tensor, ""], target: Target) -> Estimate:
        """Guided noise estimate of `x_t`, at noise level `t`, towards `target`."""
        ...


@runtime_checkable
class Kernel(Protocol):
    """A kernel and its repulsion. `gram[j, i] = k(x_j, x_i)`, `repulsion[i] = sum_j grad_{x_j} k(x_j, x_i)`."""

    def __call__(self, particles: Float[Tensor, "n ..."]) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n ..."]]:
        """Gram matrix and repulsion of the (noisy) particles."""
        ...


@runtime_checkable
class Baseline(Protocol):
    """What is subtracted from the score to reduce its variance."""

    def estimate(self, noised: Noised, target: Target) -> Estimate:
        """Baseline noise estimate for the particles in `noised`."""
        ...


@runtime_checkable
class NoiseSource(Protocol):
    """Where the particles' noise comes from: unit normal for each particle, jointly as the source likes."""

    def __call__(self, particles: Float[Tensor, "n c h w"], generator: torch.Generator) -> Float[Tensor, "n c h w"]:
        """Draw noise for the particles."""
        ...
