"""The pictures of a scene: originals read from disk, and the edits that stand in for them during training."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, UInt8
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.datasets.base_dataset import InputDataset
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from csd_nerf.scenes.errors import SceneError


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what PIL raises for a missing or broken picture into a `SceneError` that names the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise SceneError(f"image file {path} is missing: put it back or take it out of transforms.json.") from error
    except (OSError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise SceneError(
            f"image file {path} cannot be read ({error}): replace it or take it out of transforms.json."
        ) from error


def check_mode(path: Path, image: Image.Image) -> None:
    """Raise `SceneError` for a picture whose values do not fit into bytes: nerfstudio would keep their lower half."""
    if image.mode.startswith(("I", "F")):
        raise SceneError(
            f"image file {path} has values of more than 8 bits (mode {image.mode}): convert it to 8 bits a channel."
        )


class SceneDataset(InputDataset):
    """Pictures of one split, at most `view_size` pixels on their shorter side, with replaceable contents.

    Transparent parts show the data parser's colour, else `background`. `edits` holds the edited pictures by view. They
    are 8 bit, as the PNGs they are kept in: training on them before and after an interruption is then the same.
    """

    def __init__(
        self,
        dataparser_outputs: DataparserOutputs,
        scale_factor: float = 1.0,
        view_size: int | None = None,
        background: Literal["black", "white"] = "black",
    ) -> None:
        super().__init__(dataparser_outputs, scale_factor)
        alpha_colour = dataparser_outputs.alpha_color
        self._background = np.full(3, 255.0 * (background == "white"), np.float32)
        if alpha_colour is not None:  # the data's own comes first
            self._background = 255 * alpha_colour.numpy().astype(np.float32)
        self.edits: dict[int, UInt8[Tensor, "h w 3"]] = {}
        if view_size is not None:
            self._limit_views(view_size)

    def view_shape(self, view: int) -> tuple[int, int]:
        """Height and width of a view in pixels."""
        return int(self.cameras.height[view]), int(self.cameras.width[view])

    def original(self, view: int) -> Float[Tensor, "3 h w"]:
        """The photo of a view in [0, 1], whatever was put in its place."""
        return torch.from_numpy(self._read(view)).permute(2, 0, 1).float() / 255

    def get_numpy_image(self, image_idx: int) -> npt.NDArray[np.uint8]:
        """The view's current picture, h w 3."""
        if image_idx in self.edits:
            return self.edits[image_idx].numpy()
        return self._read(image_idx)

    def get_data(self, image_idx: int, image_type: Literal["uint8", "float32"] = "float32") -> dict[str, Any]:
        """As nerfstudio's, with the mask at the view's size."""
        image = self.get_image_float32(image_idx) if image_type == "float32" else self.get_image_uint8(image_idx)
        data: dict[str, Any] = {"image_idx": image_idx, "image": image}
        masks = self._dataparser_outputs.mask_filenames
        if masks is not None:
            data["mask"] = torch.from_numpy(self._read_mask(masks[image_idx], image.shape[0], image.shape[1]))
            if self.mask_color:
                data["image"] = torch.where(data["mask"], data["image"], torch.tensor(self.mask_color))
        data.update(self.get_metadata(data))
        return data

    def _limit_views(self, view_size: int) -> None:
        """Shrink the cameras so that the shorter side has at most `view_size` pixels; each keeps its aspect."""
        cameras = self.cameras
        if len(cameras.camera_to_worlds) == 0:
            return
        short = torch.minimum(cameras.height, cameras.width).float()
        scale = (view_size / short).clamp(max=1)
        for size, focal, centre in (("width", "fx", "cx"), ("height", "fy", "cy")):
            before = getattr(cameras, size)
            after = (before * scale).round().clamp(min=1).to(before.dtype)
            # The rounded size decides, so that the picture's border stays the camera's border.
            setattr(cameras, focal, getattr(cameras, focal) * after / before)
            setattr(cameras, centre, getattr(cameras, centre) * after / before)
            setattr(cameras, size, after)

    def _read(self, view: int) -> npt.NDArray[np.uint8]:
        path = self.image_filenames[view]
        height, width = self.view_shape(view)
        with readable(path), Image.open(path) as image:
            check_mode(path, image)
            if image.mode not in ("RGB", "RGBA"):
                image = image.convert("RGBA" if image.has_transparency_data else "RGB")
            if abs(image.width / width * height - image.height) > 2 * max(1.0, image.height / height):
                raise SceneError(
                    f"image file {path} has {image.width} x {image.height} pixels, its camera {width} x {height}: "
                    "correct w and h in transforms.json or the picture."
                )
            if image.size != (width, height):
                image = image.resize((width, height), Image.Resampling.LANCZOS)
            pixels = np.array(image, dtype=np.uint8)
        if pixels.shape[2] == 4:
            rgb, alpha = pixels[..., :3].astype(np.float32), pixels[..., 3:].astype(np.float32) / 255
            pixels = (rgb * alpha + self._background * (1 - alpha)).round().astype(np.uint8)
        return pixels

    @staticmethod
    def _read_mask(path: Path, height: int, width: int) -> npt.NDArray[np.bool_]:
        with readable(path), Image.open(path) as mask:
            mask = mask.convert("L").resize((width, height), Image.Resampling.NEAREST)
            return np.array(mask)[..., None] > 0
