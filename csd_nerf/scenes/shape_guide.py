"""A mesh as a soft constraint on a field's shape (Latent-NeRF's sketch shape, Metzer et al. 2023, Section 3.4).

At points `p` with density `sigma`, distance `d` from the mesh, and inside or outside of it (winding number `W`):

    occupancy(p) = 1 - exp(-delta sigma)        weight(p) = 1 - exp(-d^2 / (2 s^2))
    loss = mean of  weight * [ -occupancy log W' - (1 - occupancy) log(1 - W') ],   W' = 0.99 if W > 1/2 else 0.01

Far from the mesh the field has to be solid within and empty without; nearer to it than about `s` it is free to have the
details that the words ask for. The winding number (Jacobson et al. 2013) is 1 inside of what a closed mesh encloses and
more where its parts overlap, so that a sketch of intersecting boxes and balls is a good mesh here.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from csd_nerf.scenes.errors import SceneError

_STEP = 0.2  # delta, as in Latent-NeRF's released code
_SURE = 0.01
_ROWS = 1 << 14


@dataclass(frozen=True)
class ShapeGuide:
    """Winding number and distance of a mesh, on a grid over the cube [-1, 1]^3."""

    winding: Float[Tensor, "1 1 r r r"]
    """How often the mesh encloses a grid point, at least 0."""
    distance: Float[Tensor, "1 1 r r r"]
    """To the mesh."""
    freedom: float
    """Distance `s` within which the field is free."""

    def loss(self, points: Float[Tensor, "*n 3"], density: Float[Tensor, "*n"]) -> Float[Tensor, ""]:
        """Mean over the points; differentiable in the density. Points outside of the cube count as on its faces."""
        occupancy = 1 - torch.exp(-_STEP * density)
        inside = torch.where(self.inside(points), 1 - _SURE, _SURE)
        entropy = -occupancy * inside.log() - (1 - occupancy) * (1 - inside).log()
        distance = _at(self.distance, points)
        weight = 1 - torch.exp(-distance.square() / (2 * self.freedom**2)) if self.freedom > 0 else 1.0
        return (weight * entropy).mean()

    def inside(self, points: Float[Tensor, "*n 3"]) -> Tensor:
        """Whether the mesh encloses the points."""
        return _at(self.winding, points) > 0.5

    def to(self, device: torch.device | str) -> "ShapeGuide":
        """The same on another device."""
        return ShapeGuide(self.winding.to(device), self.distance.to(device), self.freedom)


def load_shape(
    path: Path, *, scale: float = 0.6, freedom: float = 0.25, up: Literal["x", "y", "z"] = "y", resolution: int = 64
) -> ShapeGuide:
    """A mesh file (OBJ, PLY, STL, glTF), centred, its longest side `2 scale` long, standing on the z axis.

    `up` is the axis of the file that points upwards (y in most OBJ and glTF files). The grid has `resolution` points
    along each side. Raises `SceneError`, naming the file and the remedy, for files that hold no mesh.
    """
    if not 0 < scale <= 1:
        raise SceneError(f"shape scale {scale}: give more than 0 and at most 1, where the object's box ends")
    if not 0 <= freedom < math.inf:
        raise SceneError(f"shape freedom {freedom}: give a distance, 0 or more (the box is 2 wide)")
    vertices, triangles = read_mesh(path)
    vertices = vertices - (vertices.amax(0) + vertices.amin(0)) / 2
    vertices = vertices * (2 * scale / float((vertices.amax(0) - vertices.amin(0)).max()))
    turn = {"z": (0, 1, 2), "y": (2, 0, 1), "x": (1, 2, 0)}[up]  # cyclic, so that left stays left
    vertices = vertices[:, turn]
    side = torch.linspace(-1, 1, resolution)
    points = torch.stack(torch.meshgrid(side, side, side, indexing="ij"), -1).reshape(-1, 3)
    shape = (1, 1, resolution, resolution, resolution)
    # Faces that look inwards give -1.
    winding = winding_number(points, vertices, triangles).abs().reshape(shape)
    return ShapeGuide(winding, _distance(points, vertices, triangles).reshape(shape), freedom)


def winding_number(
    points: Float[Tensor, "n 3"], vertices: Float[Tensor, "v 3"], triangles: Int[Tensor, "f 3"]
) -> Float[Tensor, " n"]:
    """Generalised winding number: the triangles' signed solid angles over 4 pi (Jacobson et al. 2013, Eq. 6)."""
    corners = vertices[triangles]
    total = []
    for rows in points.split(max(1, (_ROWS << 8) // len(triangles))):
        a, b, c = (corners[None, :, k] - rows[:, None] for k in range(3))
        lengths = [side.norm(dim=-1) for side in (a, b, c)]
        volume = (a * torch.linalg.cross(b, c)).sum(-1)
        below = lengths[0] * lengths[1] * lengths[2]
        below = below + (a * b).sum(-1) * lengths[2] + (b * c).sum(-1) * lengths[0] + (c * a).sum(-1) * lengths[1]
        total.append(torch.atan2(volume, below).sum(-1) / (2 * math.pi))
    return torch.cat(total)


def _distance(
    points: Float[Tensor, "n 3"], vertices: Float[Tensor, "v 3"], triangles: Int[Tensor, "f 3"]
) -> Float[Tensor, " n"]:
    import open3d

    scene = open3d.t.geometry.RaycastingScene()
    scene.add_triangles(
        open3d.core.Tensor(vertices.numpy()), open3d.core.Tensor(triangles.to(torch.int32).numpy().astype(np.uint32))
    )
    return torch.from_numpy(scene.compute_distance(open3d.core.Tensor(points.numpy())).numpy())


def read_mesh(path: Path) -> tuple[Float[Tensor, "v 3"], Int[Tensor, "f 3"]]:
    """Vertices and triangles of a file. Raises `SceneError`, naming it, if it holds no mesh."""
    import trimesh

    if not path.is_file():
        raise SceneError(f"{path}: no such file; give a mesh (OBJ, PLY, STL or glTF)")
    try:
        mesh = trimesh.load(path, force="mesh", process=False)
    except Exception as error:  # the readers of trimesh raise whatever their format makes them
        raise SceneError(f"{path} cannot be read as a mesh ({error}); give OBJ, PLY, STL or glTF") from error
    vertices = torch.tensor(np.asarray(getattr(mesh, "vertices", ())), dtype=torch.float32)
    triangles = torch.tensor(np.asarray(getattr(mesh, "faces", ())), dtype=torch.int64)
    if len(triangles) == 0:
        raise SceneError(f"{path} has no faces; give a mesh whose faces enclose the shape")
    if not vertices.isfinite().all() or not float((vertices.amax(0) - vertices.amin(0)).max()) > 0:
        raise SceneError(f"{path} has no extent, or vertices that are no numbers; give a mesh that encloses the shape")
    return vertices, triangles


def _at(grid: Float[Tensor, "1 1 r r r"], points: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n"]:
    """Values of a grid over [-1, 1]^3 whose outermost points lie on the faces, interpolated linearly."""
    places = points.detach().flip(-1).reshape(1, -1, 1, 1, 3)
    sampled = F.grid_sample(grid, places, align_corners=True, padding_mode="border")
    return sampled.reshape(points.shape[:-1])
