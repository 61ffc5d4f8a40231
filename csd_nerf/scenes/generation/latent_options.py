"""Flags of `latent-fm`: latent score distillation with feature matching and the KL regulariser (LDP)."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from csd_nerf.distill.latent_objective import LDP_WEIGHTS, LossWeights
from csd_nerf.distill.types import ViewPrior
from csd_nerf.scenes.errors import SceneError
from csd_nerf.scenes.generation.latent_model import LatentModelConfig
from csd_nerf.scenes.generation.options import GenerationPipelineConfig, ViewKernel, flag_of
from csd_nerf.scenes.shape_guide import read_mesh

LatentField = Literal["latent-nerf", "sjc"]
PRESETS: dict[LatentField, str] = {"latent-nerf": "latent-nerf", "sjc": "jacobian-nerf"}
"""Which lambdas of LDP Section 5.1 belong to which field."""


def _pipeline() -> type:
    from csd_nerf.scenes.generation.latent_pipeline import LatentPipeline

    return LatentPipeline


@dataclass
class LatentPipelineConfig(GenerationPipelineConfig):
    """An object that grows from a prompt, in the latent space of a diffusion model."""

    _target: type = field(default_factory=_pipeline)
    """Target class to instantiate."""
    model: LatentModelConfig = field(default_factory=LatentModelConfig)
    """The radiance field of latents."""
    field: LatentField = "latent-nerf"
    """latent-nerf: --pipeline.model.field, refined in colour at the end. sjc: the voxel grid of Score Jacobian
    Chaining, with its emptiness loss."""
    kernel: ViewKernel = "independent"
    """LDP scores each view by itself: independent is the only choice here."""
    feature_matching_weight: float | None = None
    """lambda_1 of LDP Eq. 4; 0 switches the loss off. None takes LDP's for the field: 0.01, sjc 0.1."""
    kl_weight: float | None = None
    """lambda_2 of LDP Eq. 4; 0 switches the loss off. None takes LDP's 0.1."""
    lsd_weight: float = 1.0
    """lambda_3 of LDP Eq. 4; 0 switches the loss off."""
    decoder: Path | None = None
    """Folder of a tiny autoencoder (TAESD) in diffusers layout for feature matching; None takes the prior's decoder."""
    decoder_rows: int | None = None
    """Views in one call of the decoder, to bound memory; None: all."""
    refine_steps: int | None = None
    """Steps at the end in which the views are colours, encoded for the prior (Latent-NeRF). None: 2000, sjc 0."""
    refine_resolution: int = 128
    """Pixels along a side of a view in these steps."""
    emptiness_weight: float | None = None
    """Weight of sjc's emptiness loss, 20 times as much in the second half. None: 1e4 for sjc (100 in -lite), else 0."""
    shape: Path | None = None
    """A mesh as a soft constraint on the object's shape (Latent-NeRF's sketch shape): OBJ, PLY, STL or glTF."""
    shape_weight: float = 1.0
    """Weight of that constraint."""
    shape_scale: float = 0.6
    """Half of the mesh's longest side, in scene units; the object is in the box from -1 to 1."""
    shape_freedom: float = 0.25
    """Distance from the mesh within which the object is free to have details."""
    shape_up: Literal["x", "y", "z"] = "y"
    """Axis of the file that points upwards."""

    @property
    def weights(self) -> LossWeights:
        """The lambdas. Raises `ValueError`."""
        preset = LDP_WEIGHTS[PRESETS[self.field]]
        matching = preset.feature_matching if self.feature_matching_weight is None else self.feature_matching_weight
        kl = preset.kl if self.kl_weight is None else self.kl_weight
        return LossWeights(feature_matching=matching, kl=kl, lsd=self.lsd_weight)

    @property
    def refined(self) -> int:
        """Steps of the refinement in colour."""
        return (2000 if self.field == "latent-nerf" else 0) if self.refine_steps is None else self.refine_steps

    @property
    def emptiness(self) -> float:
        """Weight of the emptiness loss in the first half."""
        return (1e4 if self.field == "sjc" else 0.0) if self.emptiness_weight is None else self.emptiness_weight

    def how(self) -> str:
        """How views are scored, in words."""
        weights = self.weights
        named = {"FM": weights.feature_matching, "KL": weights.kl, "LSD": weights.lsd}
        losses = " + ".join(f"{value:g} {name}" for name, value in named.items() if value)
        return f"{losses}, field {self.field}"

    def check(self) -> None:
        """Raise `SceneError`, naming the flag and the remedy, for values that cannot work."""
        super().check()
        if self.prior == "deepfloyd":
            raise SceneError(
                f"{flag_of('prior')} deepfloyd works on pixels, and latent-fm renders latents: give stable-diffusion "
                "or toy, or take csd-dreamfusion."
            )
        for name, only in (("kernel", "independent"), ("noise", "independent"), ("mixing", "row")):
            if getattr(self, name) != only:
                raise SceneError(
                    f"{flag_of(name)} {getattr(self, name)}: latent-fm scores each view by itself (LDP): leave the "
                    "flag out, or take csd-dreamfusion."
                )
        for flag in ("feature_matching_weight", "kl_weight", "lsd_weight"):
            value = getattr(self, flag)
            if value is not None and not 0 <= value < math.inf:
                raise SceneError(f"{flag_of(flag)} {value}: give a finite weight, 0 or more.")
        weights = self.weights
        if not (weights.feature_matching or weights.kl or weights.lsd):
            raise SceneError("all losses are switched off: give --pipeline.lsd-weight 1.")
        for name in ("emptiness", "shape_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SceneError(f"{flag_of(name)} {getattr(self, name)}: give a finite number, 0 or more.")
        for name, least in (("refined", 0), ("refine_resolution", 1), ("decoder_rows", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise SceneError(
                    f"{flag_of('refine_steps' if name == 'refined' else name)} {value}: give {least} or more."
                )
        for name in ("shape", "decoder"):
            path = getattr(self, name)
            if path is not None and not path.exists():
                raise SceneError(f"{flag_of(name)} {path} does not exist.")
        if self.shape is not None:
            if not 0 < self.shape_scale <= 1:
                raise SceneError(
                    f"{flag_of('shape_scale')} {self.shape_scale}: give more than 0 and at most 1, where the object's "
                    "box ends."
                )
            if not 0 <= self.shape_freedom < math.inf:
                raise SceneError(
                    f"{flag_of('shape_freedom')} {self.shape_freedom}: give a distance, 0 or more (the box is 2 wide)."
                )
            read_mesh(self.shape)
        if self.decoder is not None:
            _check_decoder(self.decoder)
        if self.field == "sjc":
            self.model.field = "sjc"

    def check_prior(self, prior: ViewPrior) -> None:
        """Raise `ValueError` if latents of this prior cannot be rendered."""
        super().check_prior(prior)
        channels = prior.encode(_grey(prior)).shape[1]
        if channels != 4:
            raise ValueError(
                f"its particles have {channels} channels, and the field renders latents of 4: give a latent diffusion "
                "model, such as stable-diffusion or toy"
            )

    def make_guide(self, prior: ViewPrior) -> Callable[..., Any]:
        """What scores the views; loads the decoder of --pipeline.decoder."""
        from csd_nerf.scenes.generation.latent_guide import latent_guide

        return latent_guide(prior, self)


def _check_decoder(folder: Path) -> None:
    """Raise `SceneError` for what feature matching cannot read, by its config.json, before any weights are loaded."""
    flag, described = f"{flag_of('decoder')} {folder}", folder / "config.json"
    try:
        facts = json.loads(described.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SceneError(f"{flag} is no tiny autoencoder: {described} cannot be read ({error}).") from error
    facts = facts if isinstance(facts, dict) else {}
    kind, channels = facts.get("_class_name"), facts.get("latent_channels", 4)
    if kind != "AutoencoderTiny":
        raise SceneError(
            f"{flag} holds a model of the class {kind}: give the folder of an AutoencoderTiny, such as TAESD's, or "
            "leave the flag out to take the prior's own decoder."
        )
    if channels != 4:
        raise SceneError(f"{flag} decodes latents of {channels} channels, and the field renders 4: give another.")


def _grey(prior: ViewPrior) -> Any:
    import torch

    side = max(8, prior.factor)
    return torch.full((1, 3, side, side), 0.5)
