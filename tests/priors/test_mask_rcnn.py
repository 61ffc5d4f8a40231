"""Masks of named objects: what is taken of a detector's answer, and weights that cannot be had."""

from pathlib import Path

import pytest
import torch

from csd_nerf.priors import mask_rcnn
from csd_nerf.priors.mask_rcnn import MaskRCNN, check_name, coco_names, load_mask_rcnn

NAMES = ("__background__", "bear", "dog", "N/A")
PICTURE = torch.rand(3, 4, 6)


class Fake:
    """Two bears, a doubtful third one that covers everything, and a dog."""

    def __call__(self, pictures):
        masks = torch.zeros(4, 1, 4, 6)
        masks[0, 0, :2], masks[1, 0, :, 0], masks[2, 0, 3], masks[3] = 0.9, 0.7, 0.8, 1.0
        return [
            {
                "labels": torch.tensor([1, 1, 2, 1]),
                "scores": torch.tensor([0.95, 0.8, 0.7, 0.2]),
                "masks": masks,
            }
        ]


def test_it_takes_all_sure_objects_of_the_name() -> None:
    mask = MaskRCNN(Fake(), NAMES)(PICTURE, "bear")
    expected = torch.zeros(4, 6)
    expected[:, 0], expected[:2] = 0.7, 0.9
    torch.testing.assert_close(mask, expected)


def test_what_it_does_not_find_it_says_with_what_it_does() -> None:
    with pytest.raises(ValueError, match="finds none in the picture, it finds bear, dog; give --mask FILE"):
        MaskRCNN(Fake(), (*NAMES, "cat"))(PICTURE, "cat")
    with pytest.raises(ValueError, match="--mask-object swan is none.*bear, dog; or"):
        check_name("swan", NAMES)


def test_a_local_file_of_weights_is_the_network(tmp_path: Path) -> None:
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    torch.manual_seed(0)
    network = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    loaded = load_mask_rcnn(tmp_path / "weights.pth")
    assert loaded.names == coco_names() and "bear" in loaded.names and len(loaded.names) == 91
    assert isinstance(loaded.detector, torch.nn.Module) and not loaded.detector.training
    for name, weight in loaded.detector.state_dict().items():
        assert torch.equal(weight, network.state_dict()[name])


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--mask-weights .*no.pth does not exist"):
        load_mask_rcnn(tmp_path / "no.pth")
    (tmp_path / "text.pth").write_text("nothing")
    with pytest.raises(ValueError, match="cannot be read as weights"):
        load_mask_rcnn(tmp_path / "text.pth")
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="does not hold Mask R-CNN's weights"):
        load_mask_rcnn(tmp_path / "other.pth")


def test_without_a_network_the_error_names_the_ways_out(monkeypatch) -> None:
    class Unreachable:
        url = "https://example.org/weights.pth"

        def get_state_dict(self, **_):
            raise OSError("no route")

    with pytest.raises(ValueError, match="cannot be had from https.*no route.*--mask-weights FILE.*--mask FILE"):
        mask_rcnn._downloaded(Unreachable())
