"""Masks of named objects by torchvision's Mask R-CNN (He et al. 2017), as LDP Section 5.3 takes them.

The network is the ResNet-50 FPN one trained on COCO; its weights come from torchvision's server at the first use, or
from a local file (`maskrcnn_resnet50_fpn_coco-*.pth`), which is read without running any code in it.
"""

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

SCORE = 0.5
"""Objects of which the network is less sure do not count."""
_CLASSES = 91
_SHORT_SIDE, _LONG_SIDE = 800, 1333
"""The network sees a picture that exceeds neither."""


@runtime_checkable
class Detector(Protocol):
    """What torchvision's detection models are."""

    def __call__(self, pictures: list[Tensor]) -> Sequence[Mapping[str, Tensor]]:
        """For each picture: `labels` (m), `scores` (m), in descending order, and `masks` (m 1 h w) in [0, 1]."""
        ...


@dataclass(frozen=True)
class MaskRCNN:
    """Finds objects by their COCO names."""

    detector: Detector
    names: tuple[str, ...]
    """Of the labels, from 0 on."""

    @torch.no_grad()
    def __call__(self, picture: Float[Tensor, "3 H W"], name: str) -> Float[Tensor, "H W"]:
        """The mask of all objects of this name in a picture in [0, 1], in [0, 1].

        Raises `ValueError` if the name is none that it knows, or the picture shows none; that says what it does show.
        """
        check_name(name, self.names)
        size = (picture.shape[-2], picture.shape[-1])
        (found,) = self.detector([_shrunk(picture.float())])
        sure = found["scores"] >= SCORE
        wanted = sure & (found["labels"] == self.names.index(name))
        if not wanted.any():
            shown = sorted({self.names[int(label)] for label in found["labels"][sure]})
            seen = f"it finds {', '.join(shown)}" if shown else "it finds nothing that it knows"
            raise ValueError(f"--mask-object {name}: Mask R-CNN finds none in the picture, {seen}; give --mask FILE")
        mask = found["masks"][wanted].amax(dim=0, keepdim=True).float()
        return interpolate(mask, size=size, mode="bilinear", align_corners=False)[0, 0].clamp(0, 1).cpu()


def _shrunk(picture: Float[Tensor, "3 H W"]) -> Float[Tensor, "3 h w"]:
    """At the size at which the network works. It does so itself, but gives each of its up to 100 masks in full size."""
    height, width = picture.shape[-2:]
    scale = min(_SHORT_SIDE / min(height, width), _LONG_SIDE / max(height, width))
    if scale >= 1:
        return picture
    size = (max(1, round(scale * height)), max(1, round(scale * width)))
    return interpolate(picture[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0]


def coco_names() -> tuple[str, ...]:
    """The names that the network knows, by label."""
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

    return tuple(MaskRCNN_ResNet50_FPN_Weights.DEFAULT.meta["categories"])


def check_name(name: str, names: Sequence[str]) -> None:
    """Raise `ValueError` for a name that is none of the network's."""
    known = [one for one in names if one not in ("__background__", "N/A")]
    if name not in known:
        raise ValueError(f"--mask-object {name} is none that Mask R-CNN knows: {', '.join(known)}; or give --mask FILE")


def load_mask_rcnn(weights: Path | None = None) -> MaskRCNN:
    """The network, on the CPU: it runs once for a picture.

    Raises `ValueError`, naming the flag and the remedy, if the weights cannot be had or are not this network's.
    """
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights, maskrcnn_resnet50_fpn

    found = _downloaded(MaskRCNN_ResNet50_FPN_Weights.DEFAULT) if weights is None else _read(weights)
    network = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=_CLASSES)
    try:
        network.load_state_dict(found)
    except RuntimeError as error:
        told = str(error).splitlines()
        raise ValueError(
            f"{'--mask-object' if weights is None else f'--mask-weights {weights}'}: these are no weights of "
            f"maskrcnn_resnet50_fpn ({told[min(1, len(told) - 1)].strip()[:120]} ...): give its own file"
        ) from error
    return MaskRCNN(network.eval().requires_grad_(False), coco_names())


def _downloaded(weights: Any) -> Mapping[str, Tensor]:
    try:
        return weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"--mask-object: the weights of Mask R-CNN cannot be had from {weights.url} ({error}): give "
            "--mask-weights FILE with a copy, --mask FILE with a mask, or neither"
        ) from error


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ValueError(f"--mask-weights {path} {what}: give torchvision's maskrcnn_resnet50_fpn_coco file")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"--mask-weights {path} cannot be read as weights ({reason})") from error
    if not isinstance(found, Mapping) or "roi_heads.mask_predictor.mask_fcn_logits.weight" not in found:
        raise ValueError(f"--mask-weights {path} does not hold Mask R-CNN's weights: give maskrcnn_resnet50_fpn_coco")
    return found
