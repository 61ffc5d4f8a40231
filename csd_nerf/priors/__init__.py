"""Frozen diffusion models behind one protocol. Importing this is cheap: diffusers loads with the first prior."""

from csd_nerf.priors.decoder_features import DecoderFeatures, decoder_of
from csd_nerf.priors.deepfloyd import DeepFloydPrior
from csd_nerf.priors.diffusion import DiffusionPrior
from csd_nerf.priors.errors import PriorError, PriorLayoutError, PriorNotFoundError
from csd_nerf.priors.gaussian import GaussianPrior, MixturePrior
from csd_nerf.priors.instruct_pix2pix import InstructPix2PixPrior
from csd_nerf.priors.latent_diffusion import LatentDiffusionPrior
from csd_nerf.priors.picture_sampling import solver_of
from csd_nerf.priors.prompts import DIRECTIONS, mix_encodings, nearest_view, view_prompts, view_weights
from csd_nerf.priors.registry import PRIORS, auto_precision, load_prior, toy_folder
from csd_nerf.priors.sampling import sample
from csd_nerf.priors.source_bank import SourceBank
from csd_nerf.priors.text_to_image import TextToImagePrior

__all__ = [
    "DIRECTIONS",
    "PRIORS",
    "DecoderFeatures",
    "DeepFloydPrior",
    "DiffusionPrior",
    "GaussianPrior",
    "InstructPix2PixPrior",
    "LatentDiffusionPrior",
    "MixturePrior",
    "PriorError",
    "PriorLayoutError",
    "PriorNotFoundError",
    "SourceBank",
    "TextToImagePrior",
    "decoder_of",
    "auto_precision",
    "load_prior",
    "mix_encodings",
    "nearest_view",
    "sample",
    "solver_of",
    "toy_folder",
    "view_prompts",
    "view_weights",
]
