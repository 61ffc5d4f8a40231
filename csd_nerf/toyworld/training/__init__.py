"""Training of the toy prior, a small InstructPix2Pix. It imports diffusers and transformers: import it late."""

from csd_nerf.toyworld.training.run import train_prior
from csd_nerf.toyworld.training.settings import ConditioningDropout, TrainingSettings

__all__ = ["ConditioningDropout", "TrainingSettings", "train_prior"]
