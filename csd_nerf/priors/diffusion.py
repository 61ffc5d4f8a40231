"""What all diffusion priors share: the network's edge.

A network of prediction type epsilon estimates the noise itself. The others are converted with `x_t = alpha x + sigma
eps`, for a sample x and noise eps:

    v_prediction   v = alpha eps - sigma x   ->   eps = alpha v + sigma x_t      (Salimans and Ho 2022, Appendix D)
    sample         x                         ->   eps = (x_t - alpha x) / sigma

The conversion runs in float32 on the unrounded x_t; only the network sees its own precision.
"""

import copy
import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from csd_nerf.distill.schedule import NoiseSchedule
from csd_nerf.distill.types import Condition
from csd_nerf.priors.autoencoder import freeze, frozen
from csd_nerf.priors.compiled import compiled_where_worth
from csd_nerf.priors.cuda_graphs import captured_where_quicker
from csd_nerf.priors.text import TextEncoder

log = logging.getLogger("csd_nerf.priors")
PredictionType = Literal["epsilon", "v_prediction", "sample"]

_Prior = TypeVar("_Prior", bound="DiffusionPrior")


@dataclass(frozen=True)
class Networks:
    """The parts of a diffusion model, all on one device."""

    unet: nn.Module
    """diffusers' `UNet2DConditionModel`."""
    text_encoder: TextEncoder
    schedule: NoiseSchedule
    prediction_type: PredictionType
    """What the network estimates."""
    device: torch.device
    dtype: torch.dtype
    """Precision of the network."""

    def __post_init__(self) -> None:
        """Refuse prediction types that cannot be converted."""
        if self.prediction_type not in get_args(PredictionType):
            raise ValueError(
                f"prediction type {self.prediction_type!r} is unknown: choose {', '.join(get_args(PredictionType))}"
            )


class DiffusionPrior(ABC):
    """A frozen diffusion model, an `ImagePrior`. Subclasses say what the network's input is, and bring the codec."""

    takes_image = False

    def __init__(self, networks: Networks, *, name: str, factor: int, batch_size: int | None = None) -> None:
        """`factor` is pixels per latent pixel.

        `batch_size` bounds the rows of one network call (and so memory); None sends all rows at once. It is halved, for
        good, where a GPU's memory is short. Raises `ValueError` for a batch size below 1.
        """
        check_batch_size(batch_size)
        self.unet = freeze(networks.unet, networks.device, networks.dtype)
        # Not in the order of channels last: convolutions are quicker in it, but attention and normalisation copy their
        # inputs out of it (H100, 80 rows of InstructPix2Pix in float16: 274 ms a call, and 243 as it is).
        captured = captured_where_quicker(self.unet, networks.device)
        self._network = compiled_where_worth(captured, self.unet, networks.device)
        self.text_encoder = networks.text_encoder
        self.schedule, self.prediction_type = networks.schedule, networks.prediction_type
        self.device, self.dtype = networks.device, networks.dtype
        self.name, self.batch_size = name, batch_size
        self.factor = factor
        self.size = _sample_size(self.unet) * factor
        self.samples = 0
        """Network samples so far: rows over all calls."""
        self.calls = 0
        """Network calls so far."""
        self._fingerprint: bytes | None = None

    def predict_noise(
        self, x_t: Float[Tensor, "n c h w"], t: Int[Tensor, "*m"], condition: Condition
    ) -> Float[Tensor, "n c h w"]:
        """Estimate the noise in `x_t`, float32: one network call, or as few as `batch_size` allows.

        `t` is one timestep for all rows, or one for each.
        """
        if len(condition.text) != len(x_t):
            raise ValueError(f"{len(x_t)} noisy particles, but {len(condition.text)} text encodings")
        x_t = x_t.to(self.device, torch.float32)
        inputs = self.network_input(x_t, condition).to(self.dtype)
        text = condition.text.to(self.device, self.dtype)
        with frozen(self.device):
            output = self._in_calls(inputs, t.to(self.device), text)
            return self._to_noise(output.float(), x_t, t)

    def fingerprint(self) -> bytes:
        """A digest of everything but its inputs that the network's answers depend on, down to their rounding."""
        if self._fingerprint is None:
            digest = hashlib.blake2b(digest_size=16)
            precision = _float32_precision()
            where = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else str(self.device)
            about = (type(self).__name__, self.prediction_type, self.dtype, where, torch.__version__, precision)
            digest.update(repr((about, sorted(dict(self.unet.config).items(), key=str))).encode())
            digest.update(self.schedule.alphas_cumprod.numpy().tobytes())
            for name, weight in self.unet.state_dict().items():
                digest.update(name.encode())
                digest.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
            self._fingerprint = digest.digest()
        return self._fingerprint

    def through(self: _Prior, network: Callable[..., Any]) -> _Prior:
        """This prior with `network` called in place of `unet`: a compiled or captured form of the same weights."""
        other = copy.copy(self)
        other._network = network
        return other

    @abstractmethod
    def network_input(self, x_t: Float[Tensor, "n c h w"], condition: Condition) -> Float[Tensor, "n k h w"]:
        """Everything that enters the network as channels."""

    @abstractmethod
    def encode(self, images: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n c h w"]:
        """Particles of pictures in [0, 1] whose sides are multiples of `factor`."""

    @abstractmethod
    def encode_attached(self, images: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n c h w"]:
        """As `encode`, with autograd from the particles to the pictures."""

    @abstractmethod
    def decode(self, latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 H W"]:
        """Pictures, clamped to [0, 1], float32; what overflows becomes NaN."""

    def encode_condition(
        self, images: Float[Tensor, "n 3 H W"], *, scaled_sample: torch.Generator | None = None
    ) -> Float[Tensor, "n c h w"]:
        """Image condition; see `ImagePrior`. Raises `ValueError` for priors without an image input."""
        raise ValueError(
            f"prior {self.name!r} has no image input: use 'toy', 'instruct-pix2pix' or another InstructPix2Pix"
        )

    def encode_text(self, prompts: Sequence[str]) -> Float[Tensor, "n l d"]:
        """Encoded prompts, float32; each prompt is encoded once. Warns of unknown words and of what is cut off."""
        return self.text_encoder(prompts)

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        """Words of the prompt that a prior with a small vocabulary (the embedded toy) does not know."""
        return self.text_encoder.unknown_words(prompt)

    def _in_calls(self, inputs: Tensor, t: Tensor, text: Tensor) -> Tensor:
        """The network's output, in calls of as many rows as allowed and as fit."""
        spent = self.samples, self.calls
        while True:
            rows = min(self.batch_size or len(inputs), len(inputs)) or 1
            parts = list(zip(inputs.split(rows), text.split(rows), strict=True))
            times = t.split(rows) if t.ndim else [t] * len(parts)
            try:
                return torch.cat([self._call(x, time, y) for (x, y), time in zip(parts, times, strict=True)])
            except torch.cuda.OutOfMemoryError:
                if rows == 1:
                    raise
                self.samples, self.calls = spent
                self.batch_size = -(-rows // 2)
                log.warning("%d network samples in one call do not fit: from now on %d at most", rows, self.batch_size)
            torch.cuda.empty_cache()  # not within `except`: the error holds on to what was computed

    def _call(self, inputs: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        self.samples += len(inputs)
        self.calls += 1
        return self._network(inputs, timestep, encoder_hidden_states=text, return_dict=False)[0]

    def _to_noise(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        if self.prediction_type == "epsilon":
            return output
        alpha, sigma = (values.to(x_t) for values in (self.schedule.alpha(t), self.schedule.sigma(t)))
        if t.ndim:
            alpha, sigma = alpha[:, None, None, None], sigma[:, None, None, None]
        if self.prediction_type == "v_prediction":
            return alpha * output + sigma * x_t
        return (x_t - alpha * output) / sigma


def check_batch_size(batch_size: int | None) -> None:
    """Raise `ValueError` for batch sizes below 1."""
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: give at least 1, or None for all rows in one call")


def _float32_precision() -> tuple[Any, ...]:
    """How products and convolutions of float32 numbers are rounded.

    Since torch 2.9 it is set by names of which some cannot be read by the older ones: those then raise.
    """
    backends: Any = torch.backends
    if not hasattr(backends, "fp32_precision"):
        return torch.get_float32_matmul_precision(), backends.cudnn.allow_tf32
    parts = (backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv)
    return tuple(part.fp32_precision for part in parts)


def _sample_size(unet: Any) -> int:
    """Side of the latents that the network was trained on; the longer one if they were not square."""
    size = unet.config.sample_size
    return int(size) if isinstance(size, int) else int(max(size))
