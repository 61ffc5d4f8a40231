from pathlib import Path

import pytest
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from csd_nerf import perceptual_networks as module
from csd_nerf.metrics import PerceptualDistance, load_perceptual_distance


@pytest.fixture(scope="module")
def st_lpips() -> PerceptualDistance:
    return load_perceptual_distance("st-lpips")


@pytest.fixture
def no_alexnet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has no AlexNet and no connection."""

    def fail(*_: object, **__: object) -> None:
        raise OSError("no network\nat all")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)


def smooth(count: int = 2, size: int = 65) -> Float[Tensor, "n 3 h w"]:
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1)


def test_equal_pictures_have_no_distance(st_lpips: PerceptualDistance):
    score = st_lpips(smooth(), smooth())
    assert score.values == [0, 0] and score.name == "ST-LPIPS" and score.better == "lower"


def test_a_shift_by_a_pixel_counts_for_less_than_noise_of_its_size(st_lpips: PerceptualDistance):
    pictures = smooth()
    here, there = pictures[..., :64, :64], pictures[..., :64, 1:]
    shuffled = torch.randperm(64 * 64, generator=torch.Generator().manual_seed(0))
    noise = (there - here).flatten(2)[..., shuffled].reshape(here.shape)  # the same differences, elsewhere
    shift, noisy = st_lpips(here, there), st_lpips(here, here + noise)
    assert 0 < shift.mean < noisy.mean / 2
    assert shift.mean < (here - there).abs().mean() < st_lpips(here, 1 - here).mean


def test_its_weights_are_all_in_its_package(st_lpips: PerceptualDistance):
    """Nothing is left at its random initial value."""
    torch.manual_seed(5)
    again = load_perceptual_distance("st-lpips")
    assert again(smooth(), 1 - smooth()).values == st_lpips(smooth(), 1 - smooth()).values


def test_batches_do_not_matter(st_lpips: PerceptualDistance):
    pictures = smooth(3, 40)
    whole, parts = st_lpips(pictures, pictures.flip(0)), st_lpips(pictures, pictures.flip(0), batch=2)
    assert whole.values == pytest.approx(parts.values, rel=1e-4)


def test_smallest_pictures(st_lpips: PerceptualDistance):
    assert st_lpips(torch.rand(1, 3, 32, 40), torch.rand(1, 3, 32, 40)).mean > 0
    with pytest.raises(ValueError, match="at least 32 pixels a side, these have 40 x 31"):
        st_lpips(torch.rand(1, 3, 31, 40), torch.rand(1, 3, 31, 40))
    with pytest.raises(ValueError, match="of one size"):
        st_lpips(torch.rand(1, 3, 32, 40), torch.rand(1, 3, 40, 32))


def test_what_stands_in_for_lpips_says_so(no_alexnet: None):
    score = load_perceptual_distance("auto")(smooth(), smooth())
    assert score.name == "ST-LPIPS"
    assert "stands in for LPIPS, whose AlexNet cannot be had (no network)" in score.note


def test_lpips_itself_is_never_replaced(no_alexnet: None):
    with pytest.raises(OSError, match=r"alexnet-owt-7be5be79.pth into .*/checkpoints, or take --lpips st-lpips"):
        load_perceptual_distance("lpips")


def test_lpips_where_alexnet_can_be_had(monkeypatch: pytest.MonkeyPatch):
    """The formula with a network of random weights, computed a second time by hand."""
    import lpips

    torch.manual_seed(0)
    network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    monkeypatch.setattr(module, "load_lpips", lambda: network)
    distance = load_perceptual_distance("auto")
    a, b = smooth(1), 1 - smooth(1)
    features = [network.net(network.scaling_layer(2 * x - 1)) for x in (a, b)]
    expected = 0.0
    for first, second, linear in zip(*features, network.lins, strict=True):
        f, g = (x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10) for x in (first, second))
        expected += float((linear.model[-1].weight * (f - g).square()).sum(1).mean())
    score = distance(a, b)
    assert score.name == "LPIPS" and score.note == "AlexNet"
    assert score.values == pytest.approx([expected], rel=1e-4)


def test_unknown_kind_names_the_known():
    with pytest.raises(ValueError, match="choose auto, lpips or st-lpips"):
        load_perceptual_distance("vgg")


def test_package_carries_the_weights():
    import stlpips_pytorch

    assert (Path(stlpips_pytorch.__path__[0]) / "weights/vST0.0/alex_shift_tolerant.pth").is_file()


@pytest.mark.parametrize("kind", ["st-lpips", "lpips"])
def test_the_distance_is_that_of_features(kind: str, monkeypatch: pytest.MonkeyPatch):
    """Also of LPIPS itself, whose weights for AlexNet's levels are in its package; AlexNet is random here."""
    import lpips

    monkeypatch.setattr(module, "load_lpips", lambda: lpips.LPIPS(net="alex", pnet_rand=True, verbose=False))
    network = module.load_perceptual_network(kind)
    pictures = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    features = network.embed(pictures)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        expected = network.distance(pictures[i : i + 1], pictures[j : j + 1])[0]
        torch.testing.assert_close((features[i] - features[j]).square().sum(), expected, rtol=1e-4, atol=1e-7)
        assert expected > 0.01
