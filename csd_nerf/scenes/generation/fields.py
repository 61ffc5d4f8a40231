"""What a point in space is: density and albedo, or latent features in the place of the albedo.

The density is `softplus(tau + b(x))`, where b is a blob at the origin that an object grows out of (Lin et al. 2022):
`b(x) = blob_density (1 - |x| / blob_radius)`. Coordinates are those of the cube from -1 to 1.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from nerfstudio.field_components.encodings import HashEncoding, NeRFEncoding
from torch import Tensor, nn

from csd_nerf.scenes import voxel_field as jacobian

FieldKind = Literal["mlp", "hash-grid", "voxel-grid", "sjc"]
_TAP = 0.3
"""How far in cells the neighbours are, along each axis, that a normal is taken from."""
_TETRAHEDRON = torch.tensor([[1.0, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]])


@dataclass(frozen=True)
class FieldSettings:
    """Size and start of a field."""

    blob_density: float = 10.0
    """Density of the blob at its middle, before the softplus."""
    blob_radius: float = 0.5
    """Where the blob ends, in scene units."""
    width: int = 96
    """Units of a hidden layer."""
    blocks: int = 5
    """Residual blocks of the MLP (CSD D.2)."""
    frequencies: int = 6
    """Octaves of the MLP's positional encoding."""
    levels: int = 16
    """Levels of the hash grid."""
    log2_table: int = 19
    """Entries of a level of the hash grid, as a power of two."""
    finest: int = 2048
    """Cells along a side of the finest level of the hash grid."""
    voxels: tuple[int, ...] = (16, 48)
    """Cells along a side of each level of the voxel grid."""
    voxel_features: int = 6
    """Features of a cell of the voxel grid, at each level."""
    implementation: Literal["torch", "tcnn"] = "torch"
    """What computes the hash grid; tcnn needs CUDA and tinycudann."""


class ObjectField(nn.Module, ABC):
    """Density and features of points; the colour is read from the features, only where it is seen."""

    def __init__(self, settings: FieldSettings, channels: int) -> None:
        """`channels` are 3 for colours in [0, 1], else latents without bounds."""
        super().__init__()
        self.settings, self.channels = settings, channels

    @abstractmethod
    def raw(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n f"]]:
        """Tau and features."""

    @abstractmethod
    def raw_colour(self, features: Float[Tensor, "n f"]) -> Float[Tensor, "n c"]:
        """Colour before its activation."""

    def forward(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n f"]]:
        """Density, at least 0, and features."""
        tau, features = self.raw(points)
        blob = self.settings.blob_density * (1 - points.norm(dim=1) / self.settings.blob_radius)
        return F.softplus(tau + blob), features

    def density(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Density alone."""
        return self(points)[0]

    def colour(self, features: Float[Tensor, "n f"]) -> Float[Tensor, "n c"]:
        """Albedo in [0, 1], or latents."""
        raw = self.raw_colour(features)
        return torch.sigmoid(raw) if self.channels == 3 else raw

    @abstractmethod
    def normals(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Unit normals: against the gradient of the density."""


class ResidualField(ObjectField):
    """A coordinate MLP: positional encoding, residual blocks with layer normalisation (CSD D.2; DreamFusion A.1)."""

    def __init__(self, settings: FieldSettings, channels: int) -> None:
        super().__init__(settings, channels)
        octaves = settings.frequencies
        self.encoding = NeRFEncoding(3, octaves, 0.0, octaves - 1.0, include_input=True)
        width = settings.width
        self.first = nn.Linear(self.encoding.get_out_dim(), width)
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(settings.blocks))
        self.last = nn.Linear(width, 1 + channels)

    def raw(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n f"]]:
        """Tau and the colour before its activation, of one network."""
        # nerfstudio's encoding multiplies by 2 pi: a period is then two of our units, the side of the cube.
        hidden = self.first(self.encoding(points / 2))
        for block in self.blocks:
            hidden = block(hidden)
        output = self.last(F.silu(hidden))
        return output[:, 0], output[:, 1:]

    def raw_colour(self, features: Float[Tensor, "n f"]) -> Float[Tensor, "n c"]:
        """The features are the colour."""
        return features

    def normals(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """By differentiating the density, differentiable in turn."""
        wanted = torch.is_grad_enabled()
        with torch.enable_grad():
            inner = points.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(self.density(inner).sum(), inner, create_graph=wanted)
        return -F.normalize(gradient, dim=1)


class ResidualBlock(nn.Module):
    """`x + W_2 silu(W_1 norm(x))`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.inner, self.outer = nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "n w"]) -> Float[Tensor, "n w"]:
        """One block."""
        return x + self.outer(F.silu(self.inner(self.norm(x))))


class GridField(ObjectField):
    """A grid of features and two small networks; subclasses bring the grid."""

    taps: Tensor

    def __init__(self, settings: FieldSettings, channels: int, features: int, finest: int) -> None:
        super().__init__(settings, channels)
        width = settings.width
        self.step = _TAP * 2.0 / finest
        self.shape = nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, 1))
        self.paint = nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, channels))
        self.register_buffer("taps", _TETRAHEDRON.clone(), persistent=False)

    @abstractmethod
    def features(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n f"]:
        """What the grid has at points of the cube from -1 to 1."""

    def raw(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n f"]]:
        """tau, and what the grid has at the points."""
        features = self.features(points)
        return self.shape(features)[:, 0], features

    def raw_colour(self, features: Float[Tensor, "n f"]) -> Float[Tensor, "n c"]:
        """Colour before its activation."""
        return self.paint(features)

    def normals(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """From four neighbours: interpolated features have no second derivative, and a jump in their first one."""
        around = (points[:, None] + self.step * self.taps).reshape(-1, 3)
        return -F.normalize(self.density(around).reshape(-1, 4) @ self.taps, dim=1)


class HashField(GridField):
    """A multi-resolution hash grid (Mueller et al. 2022): the fast choice where there is a GPU."""

    def __init__(self, settings: FieldSettings, channels: int) -> None:
        encoding = HashEncoding(
            num_levels=settings.levels,
            min_res=8,
            max_res=settings.finest,
            log2_hashmap_size=settings.log2_table,
            implementation=settings.implementation,
        )
        super().__init__(settings, channels, encoding.get_out_dim(), min(settings.finest, 256))
        self.encoding = encoding

    def features(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n f"]:
        """Interpolated entries of all levels."""
        return self.encoding(((points + 1) / 2).clamp(0, 1)).to(points)


class VoxelField(GridField):
    """Dense grids of a few resolutions: the fast choice on a CPU, where a hash table costs more than it saves."""

    def __init__(self, settings: FieldSettings, channels: int) -> None:
        super().__init__(settings, channels, settings.voxel_features * len(settings.voxels), max(settings.voxels))
        self.grids = nn.ParameterList(
            1e-2 * torch.randn(1, settings.voxel_features, side, side, side) for side in settings.voxels
        )

    def features(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n f"]:
        """Interpolated features of all levels."""
        at = points.clamp(-1, 1).reshape(1, -1, 1, 1, 3)
        found = [F.grid_sample(grid, at, align_corners=True)[0, :, :, 0, 0] for grid in self.grids]
        return torch.cat(found).T


class JacobianField(ObjectField):
    """The voxel grid of Score Jacobian Chaining; it has no blob, and its background is its own."""

    taps: Tensor

    def __init__(self, settings: FieldSettings, channels: int) -> None:
        super().__init__(settings, channels)
        self.grid = jacobian.VoxelField(settings.voxels[-1], channels)
        self.register_buffer("taps", _TETRAHEDRON.clone(), persistent=False)

    def raw(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n f"]]:
        """Density, and channels as they are."""
        return self.grid.density(points), self.grid.channels(points)

    def forward(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n f"]]:
        """As `raw`: the grid has its softplus already."""
        return self.raw(points)

    def raw_colour(self, features: Float[Tensor, "n f"]) -> Float[Tensor, "n c"]:
        """The features are the channels."""
        return features

    def normals(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """From four neighbours."""
        around = (points[:, None] + _TAP * 2.0 / self.settings.voxels[-1] * self.taps).reshape(-1, 3)
        return -F.normalize(self.density(around).reshape(-1, 4) @ self.taps, dim=1)


FIELDS: dict[FieldKind, type[ObjectField]] = {
    "mlp": ResidualField,
    "hash-grid": HashField,
    "voxel-grid": VoxelField,
    "sjc": JacobianField,
}


class BackgroundField(nn.Module):
    """What is behind the object: a small network of the ray's direction (DreamFusion 3.1)."""

    def __init__(self, channels: int, width: int = 32, frequencies: int = 3) -> None:
        super().__init__()
        self.channels = channels
        self.encoding = NeRFEncoding(3, frequencies, 0.0, frequencies - 1.0, include_input=True)
        self.layers = nn.Sequential(
            nn.Linear(self.encoding.get_out_dim(), width), nn.ReLU(), nn.Linear(width, channels)
        )

    def forward(self, directions: Float[Tensor, "n 3"]) -> Float[Tensor, "n c"]:
        """Colour in [0, 1], or latents, for unit directions."""
        raw = self.layers(self.encoding(directions / 2))
        return torch.sigmoid(raw) if self.channels == 3 else raw
