import math
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn

from csd_nerf.metrics import fid, frechet_distance, load_inception
from csd_nerf.metrics.frechet import WIDTH, Features, as_tensorflow_did
from tests.metrics.tiny_inception import MeanColours, save_mean_colours


def with_moments(mean: Tensor, covariance: Tensor, count: int = 50) -> Tensor:
    """Features whose sample mean and covariance are exactly these."""
    rows = torch.randn(count, len(mean), dtype=torch.float64, generator=torch.Generator().manual_seed(count))
    rows = rows - rows.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(rows.T)), rows.T, upper=False)
    return (torch.linalg.cholesky(covariance) @ white).T + mean


def test_gaussians_in_closed_form():
    """Commuting covariances: |m_1 - m_2|^2 + sum (s_1 - s_2)^2."""
    mean, other = torch.tensor([0.0, 1, 2]).double(), torch.tensor([2.0, 1, 0]).double()
    s_1, s_2 = torch.tensor([1.0, 2, 3]).double(), torch.tensor([2.0, 2, 0.5]).double()
    distance = frechet_distance(with_moments(mean, s_1.square().diag(), 40), with_moments(other, s_2.square().diag()))
    assert distance == pytest.approx(8 + 1 + 0 + 6.25, abs=1e-6)


def test_correlated_gaussians_in_closed_form():
    """Two dimensions: tr (C_1 C_2)^(1/2) = sqrt(tr C_1 C_2 + 2 sqrt(det C_1 C_2))."""
    c_1, c_2 = torch.tensor([[2.0, 0.9], [0.9, 1.0]]).double(), torch.tensor([[1.0, -0.6], [-0.6, 3.0]]).double()
    product = c_1 @ c_2
    cross = math.sqrt(product.trace() + 2 * math.sqrt(product.det()))
    zero = torch.zeros(2).double()
    distance = frechet_distance(with_moments(zero, c_1, 30), with_moments(zero, c_2))
    assert distance == pytest.approx(3 + 4 - 2 * cross, abs=1e-6)


def test_against_scipys_matrix_square_root():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(60, 8, generator=generator) @ torch.randn(8, 8, generator=generator)
    b = torch.randn(40, 8, generator=generator) + 0.5
    x, y = a.double().numpy(), b.double().numpy()
    root = np.real(np.asarray(scipy.linalg.sqrtm(np.cov(x.T) @ np.cov(y.T))))
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(np.cov(x.T) + np.cov(y.T) - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-6)


def test_fewer_rows_than_features_and_one_feature():
    few = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-4)
    assert frechet_distance(few, few + 1) == pytest.approx(64, abs=1e-3)
    others = 1 + 2 * torch.randn(7, 64, generator=torch.Generator().manual_seed(1))
    c_1, c_2 = (np.cov(rows.double().numpy().T) for rows in (few, others))
    cross = np.sqrt(np.linalg.eigvals(c_1 @ c_2).real.clip(min=0)).sum()
    expected = float((few.mean(0) - others.mean(0)).square().sum()) + np.trace(c_1 + c_2) - 2 * cross
    assert frechet_distance(few, others) == pytest.approx(expected, rel=1e-4)
    assert frechet_distance(torch.tensor([[0.0], [2]]), torch.tensor([[1.0], [5]])) == pytest.approx(4 + 2, abs=1e-6)
    with pytest.raises(ValueError, match="at least two"):
        frechet_distance(few[:1], few)


class LikeNvidias(nn.Module):
    def forward(self, pictures: Tensor, return_features: bool = False) -> Tensor:
        if return_features:
            return torch.cat([pictures.float().mean(dim=[2, 3]) / 255, torch.zeros(len(pictures), 2045)], dim=1)
        return torch.zeros(len(pictures), 1008)


@pytest.mark.parametrize("network", [MeanColours(), LikeNvidias()])
def test_fid_through_a_torchscript(tmp_path: Path, network: nn.Module):
    torch.jit.script(network).save(str(tmp_path / "inception.pt"))
    features = load_inception(tmp_path / "inception.pt")
    images = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert fid(images, images, features).mean == pytest.approx(0, abs=1e-6)
    moved = fid(images * 0.5, images * 0.5 + 0.2, features, batch=7)
    assert moved.mean == pytest.approx(3 * 0.2**2, abs=1e-3)
    assert moved.note == "TorchScript inception.pt, 20 against 20 pictures" and moved.better == "lower"


@pytest.mark.parametrize("width", [3, 1008, 2049])
def test_a_network_of_other_features_is_no_fid(tmp_path: Path, width: int):
    file = save_mean_colours(tmp_path / "inception.pt", width)
    with pytest.raises(
        OSError, match=f"--inception .*inception.pt gives {width} features a picture, .* on the 2048 of"
    ):
        load_inception(file)


class Bare(nn.Module):
    """Takes what Inception-v3 itself takes, and shows where and how bright it is."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 1, bias=False)
        nn.init.dirac_(self.first.weight)

    def forward(self, pictures: Tensor) -> Tensor:
        if pictures.shape[2] != 299 or pictures.shape[3] != 299:
            raise ValueError("299 x 299 pictures are expected")
        seen = self.first(pictures)
        return torch.cat([seen[:, :, 0, 0], seen[:, :, 150, 298], torch.zeros(len(seen), 2042)], dim=1)


def test_a_bare_network_gets_what_it_was_trained_on(tmp_path: Path):
    torch.jit.script(Bare()).save(str(tmp_path / "inception.pt"))
    pictures = torch.arange(8, dtype=torch.uint8).expand(1, 3, 5, 8)
    first, last = load_inception(tmp_path / "inception.pt")(pictures)[0, :6].split(3)
    assert first.tolist() == [-1, -1, -1]
    # Column 298 of 299 lies at 298 * 8 / 299, beyond the last pixel, whose value it takes.
    assert last.tolist() == pytest.approx([(7 - 128) / 128] * 3)
    half = as_tensorflow_did(pictures)[0, 0, 0, 100]
    assert half == pytest.approx((100 * 8 / 299 - 128) / 128, abs=1e-6), "the ramp is read at i w / side"


def test_a_network_of_another_kind_is_named(tmp_path: Path):
    torch.jit.script(nn.Conv2d(4, 2, 1)).save(str(tmp_path / "inception.pt"))
    with pytest.raises(OSError, match=r"--inception .*inception.pt takes neither 8-bit pictures"):
        load_inception(tmp_path / "inception.pt")


def test_values_outside_of_the_range_do_not_wrap_around():
    bright = torch.full((2, 3, 8, 8), 1.01)
    features = Features("tiny", MeanColours(3))
    assert fid(bright, torch.ones_like(bright), features).mean == pytest.approx(0, abs=1e-9)


def test_a_file_that_is_no_network_is_named(tmp_path: Path):
    (tmp_path / "inception.pt").write_text("nothing")
    with pytest.raises(OSError, match=r"--inception .*inception.pt is no TorchScript"):
        load_inception(tmp_path / "inception.pt")


def test_inception_that_cannot_be_downloaded_names_its_flag(monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", fail)
    with pytest.raises(OSError, match=r"\(no network\): give a TorchScript file of it with --inception"):
        load_inception()


def test_torch_fidelitys_network(monkeypatch: pytest.MonkeyPatch):
    """Its features of 8-bit pictures have 2048 numbers; random weights stand in for the downloaded ones."""
    monkeypatch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *_, **__: {})
    monkeypatch.setattr(
        "torch_fidelity.feature_extractor_inceptionv3.FeatureExtractorInceptionV3.load_state_dict",
        lambda *_, **__: None,
    )
    pictures = (255 * torch.rand(1, 3, 20, 20)).byte()
    features = load_inception()(pictures)
    assert features.shape == (1, WIDTH) and not features.requires_grad
    assert load_inception().name == "torch-fidelity's Inception-v3"
