"""The method: collaborative score distillation in pure torch. `types` is the place to start reading."""

from csd_nerf.distill.banked import AnswerBank, BankedBaseline, MemoryBank, look_ahead
from csd_nerf.distill.baselines import InjectedNoise, SourceScore
from csd_nerf.distill.counting import CountingPrior
from csd_nerf.distill.detail import give_back
from csd_nerf.distill.distiller import Distiller, NonFiniteError, evaluate
from csd_nerf.distill.editing import EditResult, check_edit, check_groups, edit_images, look_ahead_edit
from csd_nerf.distill.editors import EDITORS, Editor, EditorParts
from csd_nerf.distill.guidance import GuidanceInterval, ImageGuidance, ImageTextGuidance, JointGuidance, TextGuidance
from csd_nerf.distill.kernels import (
    EmbeddingKernel,
    FeatureKernel,
    IndependentKernel,
    RBFKernel,
    TemporalKernel,
    median_bandwidth,
    released_bandwidth,
)
from csd_nerf.distill.latent_losses import FeatureDecoder, LossGradient, feature_matching, kl_regulariser
from csd_nerf.distill.latent_objective import (
    LDP_WEIGHTS,
    LatentLosses,
    LatentStep,
    LossPart,
    LossRecord,
    LossWeights,
    latent_score_distiller,
    mean_losses,
)
from csd_nerf.distill.noise import CanvasNoise, IndependentNoise, SharedNoise
from csd_nerf.distill.optimize import OptimizeResult, OptimizeSettings, Reached, optimize, optimize_latents
from csd_nerf.distill.parameters import Parameterisation, Rendering, optimize_parameters, set_linear_rate
from csd_nerf.distill.particles import FreeLatents, ParticleSet, Targets
from csd_nerf.distill.presets import EditSettings, Preset
from csd_nerf.distill.schedule import NoiseSchedule, UniformTimesteps
from csd_nerf.distill.sizes import edit_size, resize
from csd_nerf.distill.solving import Solution, Solver, distil, make_edit_distiller, optimize_settings
from csd_nerf.distill.types import (
    Baseline,
    Condition,
    Distillation,
    Estimate,
    Guidance,
    ImagePrior,
    Kernel,
    Noised,
    NoiseSource,
    Query,
    ScorePrior,
    Target,
    ViewPrior,
)
from csd_nerf.distill.views import GivenKernel, ViewDistiller, ViewGradient, surrogate

__all__ = [
    "EDITORS",
    "LDP_WEIGHTS",
    "AnswerBank",
    "BankedBaseline",
    "Baseline",
    "CanvasNoise",
    "Condition",
    "CountingPrior",
    "Distillation",
    "Distiller",
    "EditResult",
    "EditSettings",
    "Editor",
    "EditorParts",
    "Estimate",
    "FeatureDecoder",
    "EmbeddingKernel",
    "FeatureKernel",
    "FreeLatents",
    "GivenKernel",
    "Guidance",
    "GuidanceInterval",
    "ImageGuidance",
    "ImagePrior",
    "ImageTextGuidance",
    "IndependentKernel",
    "IndependentNoise",
    "InjectedNoise",
    "JointGuidance",
    "Kernel",
    "LatentLosses",
    "LatentStep",
    "LossGradient",
    "LossPart",
    "LossRecord",
    "LossWeights",
    "MemoryBank",
    "NoiseSchedule",
    "NoiseSource",
    "Noised",
    "NonFiniteError",
    "OptimizeResult",
    "OptimizeSettings",
    "Parameterisation",
    "ParticleSet",
    "Preset",
    "Query",
    "RBFKernel",
    "Reached",
    "Rendering",
    "ScorePrior",
    "SharedNoise",
    "Solution",
    "Solver",
    "SourceScore",
    "Target",
    "Targets",
    "TemporalKernel",
    "TextGuidance",
    "UniformTimesteps",
    "ViewDistiller",
    "ViewGradient",
    "ViewPrior",
    "check_edit",
    "check_groups",
    "distil",
    "edit_images",
    "edit_size",
    "evaluate",
    "feature_matching",
    "give_back",
    "kl_regulariser",
    "latent_score_distiller",
    "look_ahead",
    "look_ahead_edit",
    "make_edit_distiller",
    "mean_losses",
    "median_bandwidth",
    "optimize",
    "optimize_latents",
    "optimize_parameters",
    "optimize_settings",
    "released_bandwidth",
    "resize",
    "set_linear_rate",
    "surrogate",
]
