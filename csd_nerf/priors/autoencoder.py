"""Pictures to latents and back.

The encoder gives a Gaussian posterior N(m, s^2) per picture. With the model's scale c (`scaling_factor`, which makes
latents unit variance) and shift b (`shift_factor`, usually 0):

    latent            z = c (m - b)
    image condition   m          the mode, *not* scaled: so InstructPix2Pix was trained (Brooks et al. 2023)
    released quirk    c (m + s n - b), n ~ N(0, 1): what the CSD authors' code feeds instead, too weak by 1 / c

Tiny autoencoders (TAESD) have no posterior: s = 0, and their latents come scaled already (c = 1), by a factor that they
do not tell. An image condition cannot be had from them.

Posteriors are remembered by the content of their pictures: latent and image condition of a picture, and the photos that
every round of a scene's edit begins from, cost one pass through the encoder. Each picture is encoded by itself, so that
no rounding tells which others it was encoded with.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

TINY = "AutoencoderTiny"
"""diffusers' class without a posterior."""
PIXELS_PER_CALL = 1 << 20
"""Pictures are decoded in groups of at most this many pixels (or one by one): memory stays bounded."""
REMEMBERED_BYTES = 1 << 28
"""Of posteriors, in main memory: those of two thousand pictures of Stable Diffusion's size, so that photos and renders
of a thousand views have room between two rounds of the same view; the least recently used are forgotten."""


@contextmanager
def frozen(device: torch.device) -> Iterator[None]:
    """Run a frozen network: no gradients, and in its own precision even inside somebody else's autocast.

    Not `inference_mode`: its tensors could not enter an autograd graph as constants.
    """
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        yield


def freeze(network: nn.Module, device: torch.device, dtype: torch.dtype) -> Any:
    """Move a network to its device and precision, for good. `Any`, since torch's type does not know `config`.

    In float16, what the network's class wants in float32 (the wide layers of T5, which overflow) is left in it.
    """
    kept = set(getattr(network, "_keep_in_fp32_modules", None) or ()) if dtype == torch.float16 else set()
    exact = {name: weight.data.float() for name, weight in network.named_parameters() if kept & set(name.split("."))}
    # torch's own `to`: that of diffusers' models warns about every change of precision.
    nn.Module.to(network, device=device, dtype=dtype).eval().requires_grad_(False)
    for name, weight in exact.items():
        network.get_parameter(name).data = weight.to(device)
    return network


class Autoencoder:
    """A frozen diffusers autoencoder (`AutoencoderKL` or `AutoencoderTiny`); pictures in [0, 1], float32 both ways."""

    def __init__(self, vae: Any, *, device: torch.device, dtype: torch.dtype) -> None:
        """Move the network to its device and precision.

        Stable Diffusion's decoder overflows in half precision: where the configuration says `force_upcast` it runs in
        float32 instead of float16 (bfloat16 has float32's range).
        """
        config = vae.config
        if dtype == torch.float16 and getattr(config, "force_upcast", False):
            dtype = torch.float32
        self.vae = freeze(vae, device, dtype)
        self.device, self.dtype = device, dtype
        self.scaling_factor = float(config.scaling_factor)
        self.shift_factor = float(getattr(config, "shift_factor", None) or 0.0)
        self.factor: int = 2 ** (len(config.block_out_channels) - 1)
        self.latent_channels: int = config.latent_channels
        self.has_posterior = type(vae).__name__ != TINY
        self.encoded = 0
        """Pictures that went through the encoder so far."""
        self._remembered: OrderedDict[bytes, Tensor] = OrderedDict()

    def encode(self, images: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n c h w"]:
        """Scaled posterior mode. Raises `ValueError` unless height and width are multiples of `factor`."""
        mean, _ = self._posterior(images)
        return self._scale(mean)

    def encode_attached(self, images: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n c h w"]:
        """`encode`, differentiable with respect to the pictures although the network is frozen; all rows in one call.

        For pictures that a network makes or that are optimised themselves. Raises `ValueError` as `encode`.
        """
        self._check_sides(images)
        with torch.autocast(self.device.type, enabled=False):
            return self._scale(self._moments(images)[0])

    def decode_attached(self, latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 H W"]:
        """`decode`, differentiable with respect to the latents, not clamped; all rows in one call."""
        with torch.autocast(self.device.type, enabled=False):
            raw = latents.to(self.device, torch.float32) / self.scaling_factor + self.shift_factor
            return self.vae.decode(raw.to(self.dtype), return_dict=False)[0].float() / 2 + 0.5

    def encode_condition(
        self, images: Float[Tensor, "n 3 H W"], *, scaled_sample: torch.Generator | None = None
    ) -> Float[Tensor, "n c h w"]:
        """Unscaled posterior mode; with a (CPU) generator a scaled posterior sample.

        Raises `ValueError` for tiny autoencoders.
        """
        if not self.has_posterior:
            raise ValueError(
                "a tiny autoencoder gives scaled latents only, and an image condition is the unscaled mode of a "
                "posterior: use the AutoencoderKL that the model was trained with"
            )
        mean, std = self._posterior(images)
        if scaled_sample is None:
            return mean
        # Drawn at once and on the CPU: the same seed gives the same sample however pictures are grouped, and where.
        noise = torch.randn(mean.shape, generator=scaled_sample).to(mean)
        return self._scale(mean + std * noise)

    def decode(self, latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 H W"]:
        """Pictures of scaled latents, clamped to [0, 1]; what overflows becomes NaN, since clamping would hide it."""

        def group(rows: Tensor) -> Tensor:
            raw = rows.to(self.device, torch.float32) / self.scaling_factor + self.shift_factor
            pictures = self.vae.decode(raw.to(self.dtype), return_dict=False)[0]
            pictures = pictures.float()
            return torch.where(pictures.isfinite(), (pictures / 2 + 0.5).clamp(0, 1), torch.nan)

        return self._in_groups(group, latents, latents.shape[-2] * latents.shape[-1] * self.factor**2)

    def _scale(self, latents: Tensor) -> Tensor:
        return (latents - self.shift_factor) * self.scaling_factor

    def _posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, unscaled."""
        self._check_sides(images)
        mean, std = torch.cat([self._remember(image) for image in images]).chunk(2, dim=1)
        return mean, std

    def _check_sides(self, images: Tensor) -> None:
        height, width = images.shape[-2:]
        if height % self.factor or width % self.factor:
            raise ValueError(
                f"pictures of {width} x {height} pixels cannot be encoded: sides must be multiples of {self.factor}"
            )

    def _moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        encoded = self.vae.encode((images.to(self.device, torch.float32) * 2 - 1).to(self.dtype))
        if hasattr(encoded, "latent_dist"):
            return encoded.latent_dist.mode().float(), encoded.latent_dist.std.float()
        latents = encoded.latents.float()
        return latents, torch.zeros_like(latents)

    def _remember(self, image: Float[Tensor, "3 H W"]) -> Float[Tensor, "1 c2 h w"]:
        """Mean and standard deviation of one picture, side by side."""
        content = image.detach().to("cpu", torch.float32).contiguous()
        digest = hashlib.blake2b(str(tuple(content.shape)).encode(), digest_size=16)
        digest.update(content.numpy().data)
        key = digest.digest()
        if key not in self._remembered:
            self.encoded += 1
            with frozen(self.device):
                self._remembered[key] = torch.cat(self._moments(image[None]), dim=1).cpu()
            while len(self._remembered) > 1 and _total_bytes(self._remembered.values()) > REMEMBERED_BYTES:
                self._remembered.popitem(last=False)
        self._remembered.move_to_end(key)
        return self._remembered[key].to(self.device)

    def _in_groups(self, function: Callable[[Tensor], Tensor], rows: Tensor, pixels: int) -> Tensor:
        with frozen(self.device):
            return torch.cat([function(group) for group in rows.split(max(1, PIXELS_PER_CALL // pixels))])


def _total_bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
