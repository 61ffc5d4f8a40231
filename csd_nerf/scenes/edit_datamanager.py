"""nerfstudio's pixel-sampling data manager on pictures that can be replaced while training goes on."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import UInt8
from nerfstudio.configs.dataparser_configs import AnnotatedDataParserUnion
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager, VanillaDataManagerConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from torch import Tensor

from csd_nerf.scenes.scene_dataset import SceneDataset


@dataclass
class EditDataManagerConfig(VanillaDataManagerConfig):
    """Data of a scene that is edited."""

    _target: type = field(default_factory=lambda: EditDataManager)
    """Target class to instantiate."""
    dataparser: AnnotatedDataParserUnion = field(default_factory=NerfstudioDataParserConfig)
    """Specifies the dataparser used to unpack the data."""
    view_size: int | None = None
    """Largest shorter side of a view in pixels; larger photos are shrunk when they are loaded. None keeps them."""
    background: Literal["black", "white"] | None = None
    """Colour behind transparent photos; None takes the one that the model trains against."""


class EditDataManager(VanillaDataManager[SceneDataset]):
    """Serves rays and pixels of the current pictures: the originals, or their edits once `put_view` set them.

    The evaluation pictures are another data set and stay the originals.
    """

    config: EditDataManagerConfig
    train_dataset: SceneDataset
    eval_dataset: SceneDataset

    def create_train_dataset(self) -> SceneDataset:
        """Training pictures."""
        return self._dataset("train")

    def create_eval_dataset(self) -> SceneDataset:
        """Evaluation pictures."""
        return self._dataset(self.test_split)

    def setup_train(self) -> None:
        """Cache the training pictures, in the order of the views: nerfstudio shuffles them with Python's `random`."""
        super().setup_train()
        batch = self.train_image_dataloader.cached_collated_batch
        if batch is None or not self.train_image_dataloader.cache_all_images:
            return
        order = torch.argsort(batch["image_idx"])
        for key, values in batch.items():
            batch[key] = values[order.to(values.device)] if torch.is_tensor(values) else [values[i] for i in order]

    def put_view(self, view: int, picture: UInt8[Tensor, "h w 3"] | None) -> None:
        """Train on `picture` from now on; on the original if None."""
        if picture is None:
            self.train_dataset.edits.pop(view, None)
        else:
            self.train_dataset.edits[view] = picture.cpu()
        batch = self.train_image_dataloader.cached_collated_batch
        if batch is None:  # each batch is read from the data set anew
            return
        for row in torch.nonzero(batch["image_idx"] == view).flatten().tolist():
            current = batch["image"][row]
            current.copy_(self.train_dataset.get_image_float32(view))

    def _dataset(self, split: str) -> SceneDataset:
        outputs = self.train_dataparser_outputs if split == "train" else self.dataparser.get_dataparser_outputs(split)
        background = self.config.background or "black"
        return SceneDataset(outputs, self.config.camera_res_scale_factor, self.config.view_size, background)
