"""How a generator is adapted: what `adaptation` takes, and what suits the toy prior."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from csd_nerf.distill import LDP_WEIGHTS, LossWeights

Trained = Literal["fusion", "synthesis", "all"]


@dataclass(frozen=True, kw_only=True)
class AdaptSettings:
    """How a generator is adapted. The defaults are LDP Section 5.2's and StyleGANFusion's."""

    losses: LossWeights = LDP_WEIGHTS["stylegan"]
    """Lambdas of LDP Eq. 4."""
    steps: int = 2000
    lr: float = 0.002
    """Adam's, before it is multiplied by 4 / 5."""
    samples: int = 4
    """Pictures in a step, the particles; StyleGANFusion has one."""
    kernel: Literal["independent", "rbf"] = "independent"
    """Whether samples are each alone (SDS) or listen to each other (CSD Eq. 3)."""
    noise: Literal["independent", "shared"] = "independent"
    """Whether samples see noise of their own."""
    guidance_scale: float = 100.0
    t_min: float = 0.01
    """Lowest noise level, a fraction of the schedule."""
    t_max: float = 0.5
    """Highest noise level: 0.5 as in StyleGANFusion's scripts for faces; those for cats have 0.3."""
    directional: float = 0.0
    """Weight of the directional regulariser; 0 leaves it out."""
    clamp: float | None = 1.0
    """Largest gradient of a latent element; None does not bound it."""
    percentile: float | None = 95.0
    """Of a picture's absolute gradients, at which they are clipped; None does not."""
    trained: Trained = "fusion"
    """fusion: see above. synthesis: constant, all convolutions and their biases (StyleGAN-NADA). all: all weights."""

    def __post_init__(self) -> None:
        """Raise `ValueError`, naming the field and the remedy, for values that cannot work."""
        clamp, percentile = self.clamp, self.percentile
        problems = [
            (self.steps < 1, f"steps={self.steps}: give at least 1"),
            (self.samples < 1, f"samples={self.samples}: give at least 1"),
            (not 0 < self.lr < math.inf, f"lr={self.lr}: give a positive learning rate"),
            (not 0 <= self.guidance_scale < math.inf, f"guidance_scale={self.guidance_scale}: give 0 or more"),
            (
                not 0 <= self.t_min <= self.t_max <= 1,
                f"t_min={self.t_min}, t_max={self.t_max}: give two of 0..1 in order",
            ),
            (not 0 <= self.directional < math.inf, f"directional={self.directional}: give 0 or more"),
            (clamp is not None and not 0 < clamp < math.inf, f"clamp={clamp}: give a positive bound, or none"),
            (
                percentile is not None and not 0 < percentile <= 100,
                f"percentile={percentile}: give one above 0, at most 100",
            ),
            (
                not self.losses.lsd and not self.losses.feature_matching,
                f"lsd={self.losses.lsd}, feature_matching={self.losses.feature_matching}: give one of them a weight, "
                "or nothing hears the prompt",
            ),
        ]
        for wrong, message in problems:
            if wrong:
                raise ValueError(message)


TOY: Mapping[str, Any] = {"guidance_scale": 7.5, "t_max": 0.8, "steps": 150}
"""Settings for the toy prior, found by looking: more steps gather all pictures on one background."""
TOY_LOSSES = LossWeights(feature_matching=0.01, kl=0.05)
"""Lambdas for the toy prior: at the paper's 3 its decoder's features outweigh the score four to seven hundred times."""
