"""Particles of an adaptation: latents of pictures that a generator makes, and the way back into its weights."""

import copy
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from csd_nerf.distill import Rendering
from csd_nerf.images.stylegan.bounds import clip_at_percentile
from csd_nerf.images.stylegan.generator import Generator
from csd_nerf.images.stylegan.settings import AdaptSettings, Trained
from csd_nerf.priors import LatentDiffusionPrior


def trained_parameters(generator: Generator, which: Trained) -> Iterator[nn.Parameter]:
    """The weights that are adapted."""
    for name, parameter in generator.named_parameters():
        if which == "fusion":
            chosen = name.startswith("convs.") and not name.startswith("convs.0.") and not name.endswith(".bias")
        else:
            chosen = which == "all" or not name.startswith(("mapping.", "to_rgb."))
        if chosen:
            yield parameter


class GeneratedLatents:
    """Latents of new pictures in each call, attached to the weights that are trained; a `Parameterisation`."""

    def __init__(self, source: Generator, prior: LatentDiffusionPrior, settings: AdaptSettings) -> None:
        """The source generator is kept as it is; what is trained is a copy."""
        self.source, self.prior, self.settings = source, prior, settings
        self.adapted = copy.deepcopy(source).requires_grad_(False)
        for parameter in trained_parameters(self.adapted, settings.trained):
            parameter.requires_grad_(True)
        self.before: Tensor | None = None
        """The source generator's latents of the same z and noise, if the directional regulariser needs them."""
        self._images, self._latents = torch.empty(0), torch.empty(0)
        self._clip: Any = None

    def parameters(self) -> Iterable[nn.Parameter]:
        """The weights that are trained."""
        return trained_parameters(self.adapted, self.settings.trained)

    def __call__(self, generator: torch.Generator) -> Rendering:
        """Draw z and the generator's noise, and make pictures of the prior's size."""
        count = self.settings.samples
        z = torch.randn(count, self.source.shape.style, generator=generator).to(self.source.constant.device)
        noise = self.adapted.noise("random", count, generator)
        images = self._images = self._pictures(self.adapted, z, noise)
        self._latents = self._encoded(images)
        self._clip = images.register_hook(self._clipped) if images.requires_grad else None
        if self.settings.directional:
            with torch.no_grad():
                self.before = self._encoded(self._pictures(self.source, z, noise))
        return Rendering(self._latents)

    def pull(self, gradient: Float[Tensor, "n c h w"]) -> None:
        """Take a gradient into this call's latents that joins theirs in the pictures, where it is not clipped."""
        self._clip.remove()  # torch calls hooks for gradients that are asked for by hand, too
        (beside,) = torch.autograd.grad(self._latents, self._images, gradient.to(self._latents), retain_graph=True)
        self._clip = self._images.register_hook(lambda base: self._clipped(base) + beside)

    def _clipped(self, gradient: Tensor) -> Tensor:
        percentile = self.settings.percentile
        return gradient if percentile is None else clip_at_percentile(gradient, percentile / 100)

    def _pictures(self, network: Generator, z: Tensor, noise: list[Tensor | None]) -> Tensor:
        """Of the prior's size, -1..1."""
        images = network.synthesise(network.styles(z), noise)
        size = self.prior.size
        if images.shape[-1] != size:
            smaller = size < images.shape[-1]
            images = F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=smaller)
        return images.clamp(-1, 1)

    def _encoded(self, images: Tensor) -> Tensor:
        return self.prior.autoencoder.encode_attached(images / 2 + 0.5)
