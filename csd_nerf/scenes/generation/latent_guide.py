"""LDP Eq. 4 on rendered latents, and in the refinement on the latents of rendered colours."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from csd_nerf.distill.latent_losses import FeatureDecoder
from csd_nerf.distill.latent_objective import LatentLosses, LossRecord, latent_score_distiller
from csd_nerf.distill.types import ViewPrior
from csd_nerf.priors.decoder_features import DecoderFeatures
from csd_nerf.scenes.errors import SceneError
from csd_nerf.scenes.generation.guide import Guided, at_prior_size, view_target
from csd_nerf.scenes.generation.latent_options import LatentPipelineConfig
from csd_nerf.scenes.generation.options import Wish


@dataclass
class LatentGuide:
    """lambda_1 FM + lambda_2 KL + lambda_3 LSD."""

    prior: ViewPrior
    config: LatentPipelineConfig
    decoder: FeatureDecoder | None
    """For feature matching."""

    def __call__(
        self,
        pictures: Float[Tensor, "n c h w"],
        wish: Wish,
        azimuth: Float[Tensor, " n"],
        elevation: Float[Tensor, " n"],
        progress: float,
        generator: torch.Generator,
    ) -> Guided:
        """Score rendered latents, or rendered colours in [0, 1]. Raises `NonFiniteError`."""
        latents = self.latents(pictures.to(self.prior.device))
        losses = LatentLosses(
            latent_score_distiller(
                self.prior, guidance_scale=wish.guidance_scale, timesteps=self.config.timesteps(progress)
            ),
            self.config.weights,
            self.decoder,
            rows_per_call=self.config.decoder_rows,
        )
        step = losses(latents, view_target(self.prior, wish, self.config, azimuth, elevation), generator)
        loss = (step.gradient * latents).sum() / len(latents)
        return Guided(loss, _metrics(step.losses, step.t), step.network_samples)

    def latents(self, pictures: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k H W"]:
        """Latents at the prior's size."""
        if pictures.shape[1] == 3:
            return self.prior.encode_attached(at_prior_size(pictures, self.prior))
        side = self.prior.size // self.prior.factor
        if pictures.shape[-1] == side:
            return pictures
        return F.interpolate(pictures, (side, side), mode="bilinear", align_corners=False)


def latent_guide(prior: ViewPrior, config: LatentPipelineConfig) -> LatentGuide:
    """The guide of latent-fm. Raises `SceneError` where there is no decoder for feature matching."""
    decoder = None
    if config.weights.feature_matching:
        codec: Any = getattr(prior, "autoencoder", None)
        if config.decoder is not None:
            codec = _tiny(config, prior.device)
        if codec is None:
            raise SceneError(
                f"--pipeline.prior {prior.name} has no decoder for feature matching: give a latent diffusion model, or "
                "--pipeline.feature-matching-weight 0."
            )
        decoder = DecoderFeatures(codec)
    return LatentGuide(prior, config, decoder)


def _tiny(config: LatentPipelineConfig, device: torch.device) -> Any:
    from diffusers import AutoencoderTiny  # pyright: ignore[reportPrivateImportUsage]

    from csd_nerf.priors.autoencoder import Autoencoder

    try:
        vae = AutoencoderTiny.from_pretrained(str(config.decoder), use_safetensors=True)
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SceneError(
            f"--pipeline.decoder {config.decoder} is no tiny autoencoder that can be read ({reason})."
        ) from error
    return Autoencoder(vae, device=device, dtype=torch.float32)


def _metrics(losses: LossRecord, t: int | None) -> dict[str, Tensor]:
    """Each loss, and |grad FM| / |grad LSD|."""
    named = {"FM": losses.feature_matching, "KL": losses.kl, "LSD": losses.lsd}
    found = {name: torch.tensor(part.value) for name, part in named.items() if part is not None}
    if losses.ratio is not None:
        found["FM / LSD"] = torch.tensor(losses.ratio)
    if t is not None:
        found["t"] = torch.tensor(float(t))
    return found
