"""What the prior says of the views of a step, as a loss that the field can be trained with.

The frozen prior is here and not in the pipeline: a module of the pipeline would enter every checkpoint, and evaluation,
rendering and export, which build the pipeline too, must not load it.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from csd_nerf.distill.baselines import InjectedNoise
from csd_nerf.distill.distiller import Distiller
from csd_nerf.distill.guidance import TextGuidance
from csd_nerf.distill.kernels import IndependentKernel, RBFKernel
from csd_nerf.distill.noise import IndependentNoise, SharedNoise
from csd_nerf.distill.types import Kernel, Target, ViewPrior
from csd_nerf.distill.views import ViewDistiller, surrogate
from csd_nerf.priors.prompts import mix_encodings, view_prompts, view_weights
from csd_nerf.scenes.generation.options import GenerationPipelineConfig, Wish


@dataclass(frozen=True)
class Guided:
    """One step's answer."""

    loss: Float[Tensor, ""]
    """To be differentiated; its value says nothing."""
    metrics: dict[str, Tensor]
    """For the log, numbers."""
    network_samples: int
    """Rows through the prior's network."""


def view_target(
    prior: ViewPrior,
    wish: Wish,
    config: GenerationPipelineConfig,
    azimuth: Float[Tensor, " n"],
    elevation: Float[Tensor, " n"],
) -> Target:
    """What views should show: the prompt's encodings for four directions, mixed by where each camera stands."""
    prompt = " ".join(filter(None, (wish.prompt.strip().rstrip(",."), config.prompt_suffix.strip())))
    encodings = prior.encode_text(view_prompts(prompt))
    weights = view_weights(azimuth, elevation, overhead=config.overhead, ramp=config.overhead_ramp)
    text = mix_encodings(encodings, weights.to(encodings))
    null = prior.encode_text([wish.negative_prompt]).expand_as(text)
    return Target(texts=(text,), null_text=null)


def at_prior_size(pictures: Float[Tensor, "n 3 h w"], prior: ViewPrior) -> Float[Tensor, "n 3 H W"]:
    """Views at the size that the prior was trained on."""
    if pictures.shape[-1] == prior.size:
        return pictures
    return F.interpolate(pictures, (prior.size, prior.size), mode="bilinear", align_corners=False)


@dataclass
class ViewGuide:
    """Collaborative score distillation into rendered pictures (CSD Section 4.4, D.2)."""

    prior: ViewPrior
    config: GenerationPipelineConfig
    between_pictures: Kernel | None = None
    """LPIPS between views, where the configuration's kernel is lpips."""

    def __call__(
        self,
        pictures: Float[Tensor, "n 3 h w"],
        wish: Wish,
        azimuth: Float[Tensor, " n"],
        elevation: Float[Tensor, " n"],
        progress: float,
        generator: torch.Generator,
    ) -> Guided:
        """Score rendered views in [0, 1]. Raises `NonFiniteError`."""
        pictures = at_prior_size(pictures.to(self.prior.device), self.prior)
        particles = self.prior.encode_attached(pictures)
        target = view_target(self.prior, wish, self.config, azimuth, elevation)
        gradient = ViewDistiller(self.distiller(wish, progress), self.between_pictures)(
            pictures, particles, target, generator
        )
        distillation = gradient.distillation
        metrics = {
            "t": torch.tensor(float(distillation.t)),
            "score": gradient.on_particles.norm() / len(pictures) ** 0.5,
            "kernel": _between(distillation.gram),
        }
        return Guided(surrogate(gradient, pictures, particles), metrics, distillation.network_samples)

    def distiller(self, wish: Wish, progress: float) -> Distiller:
        """The distiller of a step."""
        kernel: Kernel = RBFKernel() if self.config.kernel == "rbf" else IndependentKernel()
        return Distiller(
            self.prior,
            TextGuidance(wish.guidance_scale),
            kernel,
            InjectedNoise(),
            noise=SharedNoise() if self.config.noise == "shared" else IndependentNoise(),
            timesteps=self.config.timesteps(progress),
            mixing=self.config.mixing,
        )


def _between(gram: Float[Tensor, "n n"]) -> Float[Tensor, ""]:
    """Mean of the kernel between different views; 0 for a single one."""
    n = len(gram)
    return (gram.sum() - gram.trace()) / max(1, n * (n - 1))
