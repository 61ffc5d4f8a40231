"""A datamanager without data: random cameras to train, a turntable to evaluate, an orbit to export."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.datamanagers.base_datamanager import DataManager, DataManagerConfig
from nerfstudio.data.datamanagers.random_cameras_datamanager import RandomCamerasDataManager, TrivialDataset
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.pixel_samplers import PixelSampler, PixelSamplerConfig
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.data.utils.dataloaders import FixedIndicesEvalDataloader
from torch import Tensor
from torch.nn import Parameter

from csd_nerf.scenes.generation.cameras import (
    OrbitRanges,
    OrbitViews,
    Range,
    generate_rays,
    in_the_middle,
    random_views,
    turntable,
)
from csd_nerf.scenes.generation.seeds import Stream, step_generator

EVALUATION_VIEWS = 12
"""One each 30 degrees, as CSD D.2 evaluates."""
EXPORT_VIEWS = 60
_EXPORT_SIZE = 256
GOLDEN = (5**0.5 - 1) / 2
"""Turns between neighbours on the spiral: views are then spread evenly."""


@dataclass
class RandomViewDataManagerConfig(DataManagerConfig):
    """Cameras that look at an object from all around."""

    _target: type = field(default_factory=lambda: RandomViewDataManager)
    """Target class to instantiate."""
    radius: Range = (1.5, 2.0)
    """Distance of the cameras from the object's middle; the object is in the box from -1 to 1."""
    elevation: Range = (-10.0, 60.0)
    """Degrees above the horizon."""
    azimuth: Range = (-180.0, 180.0)
    """Degrees around the object, 0 in front of it."""
    field_of_view: Range = (40.0, 70.0)
    """Degrees from edge to edge of the picture."""
    views_per_step: int = 4
    """Views rendered in a step: the particles (CSD D.2)."""
    resolution: int = 64
    """Pixels along a side of a training view."""
    coarse_resolution: int | None = None
    """The same in the first `coarse_share` of the training, which saves time; None takes `resolution`."""
    coarse_share: float = 0.5
    """Share of the training with `coarse_resolution`."""
    evaluation_resolution: int = 128
    """Pixels along a side of the views for evaluation and for nerfstudio's camera paths."""
    seed: int = 0
    """Seed of the views."""

    def ranges(self) -> OrbitRanges:
        """Where cameras may be. Raises `ValueError`, which names the field."""
        return OrbitRanges(self.radius, self.elevation, self.azimuth, self.field_of_view)

    def resolution_at(self, progress: float) -> int:
        """Pixels along a side, after a share `progress` of the training."""
        coarse = self.coarse_resolution is not None and progress < self.coarse_share
        return cast(int, self.coarse_resolution) if coarse else self.resolution


class RandomViewDataManager(RandomCamerasDataManager):
    """Serves random views; nerfstudio's exporter and renderer accept it as the class that it extends."""

    config: RandomViewDataManagerConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(
        self,
        config: RandomViewDataManagerConfig,
        device: torch.device | str = "cpu",
        test_mode: Literal["test", "val", "inference"] = "val",
        world_size: int = 1,
        local_rank: int = 0,
        **_: Any,
    ) -> None:
        self.config, self.device, self.test_mode = config, device, test_mode
        self.world_size, self.local_rank, self.sampler = world_size, local_rank, None
        self.test_split = "test" if test_mode in ("test", "inference") else "val"
        ranges = config.ranges()
        self.evaluation_views = turntable(ranges, EVALUATION_VIEWS, config.evaluation_resolution)
        self.train_dataset = _without_pictures(_all_around(ranges))
        self.eval_dataset = _without_pictures(self.evaluation_views.cameras)
        self.eval_dataloader = FixedIndicesEvalDataloader(self.eval_dataset, device=device, num_workers=0)
        self.fixed_indices_eval_dataloader = self.eval_dataloader
        # The exporter sets its batch size here.
        self.train_pixel_sampler = PixelSampler(PixelSamplerConfig(), num_rays_per_batch=config.resolution**2)
        self._exported = 0
        DataManager.__init__(self)  # RandomCamerasDataManager's own would make other cameras

    def views(self, step: int, size: int) -> OrbitViews:
        """The cameras of a training step with pictures of `size` pixels, on the CPU; a step always has the same."""
        generator = step_generator(self.config.seed, Stream.CAMERAS, step)
        return random_views(self.config.ranges(), self.config.views_per_step, size, generator)

    def next_train(self, step: int) -> tuple[RayBundle, dict[str, Any]]:
        """Rays of a new random view at each call, for nerfstudio's exporter; training takes `views`."""
        generator = step_generator(self.config.seed, Stream.EXPORT, self._exported)
        self._exported += 1
        assert self.train_pixel_sampler is not None
        size = max(1, round(self.train_pixel_sampler.num_rays_per_batch**0.5))
        views = random_views(self.config.ranges(), 1, size, generator)
        return ray_bundle(views.cameras.to(self.device)), {}

    def next_eval(self, step: int) -> tuple[RayBundle, dict[str, Any]]:
        """Rays of a view of the turntable."""
        camera, batch = self.next_eval_image(step)
        return ray_bundle(camera), batch

    def next_eval_image(self, step: int) -> tuple[Cameras, dict[str, Any]]:
        """Views of the turntable, one after another."""
        index = step % EVALUATION_VIEWS
        return self.evaluation_views.cameras[index : index + 1].to(self.device), {"image_idx": index}

    def get_train_rays_per_batch(self) -> int:
        """Rays of a training step."""
        return self.config.views_per_step * self.config.resolution**2

    def get_eval_rays_per_batch(self) -> int:
        """Rays of a view of the turntable."""
        return self.config.evaluation_resolution**2

    def get_param_groups(self) -> dict[str, list[Parameter]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """No parameters."""
        return {}


def ray_bundle(cameras: Cameras) -> RayBundle:
    """All rays of cameras of one size, as nerfstudio's models take them."""
    rays = generate_rays(cameras)
    indices = torch.arange(len(cameras.camera_to_worlds), device=rays.origins.device)
    pixels = len(rays.origins) // len(indices)
    one: Float[Tensor, "n 1"] = torch.ones_like(rays.origins[:, :1])
    return RayBundle(
        rays.origins, rays.directions, pixel_area=one, camera_indices=indices.repeat_interleave(pixels)[:, None]
    )


def _without_pictures(cameras: Cameras) -> TrivialDataset:
    """Nerfstudio's blank data set: its viewer and its exporter want to know cameras and scene box."""
    dataset = TrivialDataset(cameras)
    dataset._dataparser_outputs = DataparserOutputs(  # pyright: ignore[reportAttributeAccessIssue]
        image_filenames=[], cameras=cameras, scene_box=SceneBox(torch.tensor([[-1.0, -1, -1], [1, 1, 1]]))
    )
    return dataset


def _all_around(ranges: OrbitRanges) -> Cameras:
    """Cameras on a spiral over the ranges, from which the exporter builds a mesh."""
    steps = (torch.arange(EXPORT_VIEWS) + 0.5) / EXPORT_VIEWS
    low, high = (math.sin(math.radians(end)) for end in ranges.elevation)
    elevation = torch.rad2deg(torch.asin(low + (high - low) * steps))
    azimuth = ranges.azimuth[0] + (ranges.azimuth[1] - ranges.azimuth[0]) * ((steps * EXPORT_VIEWS * GOLDEN) % 1)
    return in_the_middle(ranges, azimuth, elevation, _EXPORT_SIZE).cameras
