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

SCORE = 0.5
"""Objects of which the network is less sure do not count."""
_CLASSES = 91


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
        (found,) = self.detector([picture.float()])
        sure = found["scores"] >= SCORE
        wanted = sure & (found["labels"] == self.names.index(name))
        if not wanted.any():
            shown = sorted({self.names[int(label)] for label in found["labels"][sure]})
            seen = f"it finds {', '.join(shown)}" if shown else "it finds nothing that it knows"
            raise ValueError(f"--mask-object {name}: Mask R-CNN finds none in the picture, {seen}; give --mask FILE")
        return found["masks"][wanted].amax(dim=0)[0].clamp(0, 1).float().cpu()


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

    network = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=_CLASSES)
    network.load_state_dict(_downloaded(MaskRCNN_ResNet50_FPN_Weights.DEFAULT) if weights is None else _read(weights))
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
        raise ValueError(f"--mask-weights {path} does not exist: give torchvision's maskrcnn_resnet50_fpn_coco file")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"--mask-weights {path} cannot be read as weights ({str(error).splitlines()[0]})") from error
    if not isinstance(found, Mapping) or "roi_heads.mask_predictor.mask_fcn_logits.weight" not in found:
        raise ValueError(f"--mask-weights {path} does not hold Mask R-CNN's weights: give maskrcnn_resnet50_fpn_coco")
    return found
