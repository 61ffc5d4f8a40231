"""Scores of edited and generated pictures. Imports nothing else of this package; heavy libraries load when used."""

from csd_nerf.metrics.clip_scores import (
    TextSimilarity,
    depth_pictures,
    directional_similarity,
    image_consistency,
    image_similarity,
    r_precision,
    text_similarity,
)
from csd_nerf.metrics.diversity import diversity
from csd_nerf.metrics.frechet import InceptionDistance, fid, frechet_distance, load_inception
from csd_nerf.metrics.perceptual import PerceptualDistance, load_perceptual_distance
from csd_nerf.metrics.pixel_scores import change_outside, colour_spread, psnr, ssim
from csd_nerf.metrics.types import ImageTextEncoder, Score
from csd_nerf.metrics.warp import PinholeViews, nearest_views, warp_error_3d, warp_error_video

__all__ = [
    "ImageTextEncoder",
    "InceptionDistance",
    "PerceptualDistance",
    "PinholeViews",
    "Score",
    "TextSimilarity",
    "change_outside",
    "colour_spread",
    "depth_pictures",
    "directional_similarity",
    "diversity",
    "fid",
    "frechet_distance",
    "image_consistency",
    "image_similarity",
    "load_inception",
    "load_perceptual_distance",
    "nearest_views",
    "psnr",
    "r_precision",
    "ssim",
    "text_similarity",
    "warp_error_3d",
    "warp_error_video",
]
