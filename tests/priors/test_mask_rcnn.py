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


def test_a_large_picture_is_searched_at_the_networks_own_size() -> None:
    """Up to a hundred masks of a photo's full size would fill the memory."""
    seen = []

    class Corner:
        def __call__(self, pictures):
            (picture,) = pictures
            seen.append(picture)
            masks = torch.zeros(1, 1, *picture.shape[-2:])
            masks[..., : picture.shape[-2] // 2, : picture.shape[-1] // 4] = 1
            return [{"labels": torch.tensor([1]), "scores": torch.tensor([0.9]), "masks": masks}]

    picture = torch.zeros(3, 1000, 4000)
    picture[0, :, 2000:] = 1
    mask = MaskRCNN(Corner(), NAMES)(picture, "bear")
    assert seen[0].shape == (3, 333, 1333) and mask.shape == (1000, 4000)
    assert seen[0][0, :, 680:].min() > 0.99 and seen[0][0, :, :650].max() < 0.01
    assert mask[:490, :990].min() == 1 and not mask[510:].any() and not mask[:, 1010:].any()
    MaskRCNN(Corner(), NAMES)(picture[:, :300, :300], "bear")
    assert seen[1].shape == (3, 300, 300)


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
    with pytest.raises(ValueError, match="is a folder"):
        load_mask_rcnn(tmp_path)
    torch.save({"roi_heads.mask_predictor.mask_fcn_logits.weight": torch.zeros(91, 256, 1, 1)}, tmp_path / "v2.pth")
    with pytest.raises(ValueError, match="v2.pth: these are no weights of maskrcnn_resnet50_fpn") as caught:
        load_mask_rcnn(tmp_path / "v2.pth")
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


@pytest.mark.parametrize(
    "content", [b"", b"x", b"\x80\x02", b"\x89PNG\r\n\x1a\n" + bytes(50), b"PK\x03\x04" + bytes(60)]
)
def test_whatever_is_in_the_file_the_flag_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(ValueError, match="--mask-weights .*w.pth cannot be read as weights"):
        load_mask_rcnn(tmp_path / "w.pth")


def test_without_a_network_the_error_names_the_ways_out(monkeypatch) -> None:
    class Unreachable:
        url = "https://example.org/weights.pth"

        def get_state_dict(self, **_):
            raise OSError("no route")

    with pytest.raises(ValueError, match="cannot be had from https.*no route.*--mask-weights FILE.*--mask FILE"):
        mask_rcnn._downloaded(Unreachable())
