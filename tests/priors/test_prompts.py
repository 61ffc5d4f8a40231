import pytest
import torch

from csd_nerf.priors import DIRECTIONS, mix_encodings, nearest_view, view_prompts, view_weights


def weights(azimuth: float, elevation: float = 0.0, **options) -> list[float]:
    return view_weights(torch.tensor([float(azimuth)]), torch.tensor([float(elevation)]), **options)[:, 0].tolist()


def test_prompts_name_the_view():
    assert DIRECTIONS == ("front", "side", "back", "overhead")
    assert view_prompts("a fox.") == (
        "a fox, front view",
        "a fox, side view",
        "a fox, back view",
        "a fox, overhead view",
    )
    assert view_prompts("")[2] == "back view"


@pytest.mark.parametrize(
    ("azimuth", "expected"),
    [(0, [1, 0, 0, 0]), (90, [0, 1, 0, 0]), (-90, [0, 1, 0, 0]), (180, [0, 0, 1, 0]), (-180, [0, 0, 1, 0]),
     (45, [0.5, 0.5, 0, 0]), (225, [0, 0.5, 0.5, 0]), (360, [1, 0, 0, 0]), (720 + 30, [2 / 3, 1 / 3, 0, 0])],
)  # fmt: skip
def test_weights_around_the_object(azimuth: float, expected: list[float]):
    assert weights(azimuth) == pytest.approx(expected, abs=1e-6)


def test_weights_are_shares_symmetric_and_periodic():
    azimuth = torch.linspace(-400, 400, 161, dtype=torch.float64)
    elevation = torch.linspace(-90, 90, 161, dtype=torch.float64)
    shares = view_weights(azimuth, elevation, ramp=30.0)
    assert (shares >= 0).all()
    torch.testing.assert_close(shares.sum(dim=0), torch.ones_like(azimuth))
    torch.testing.assert_close(view_weights(-azimuth, elevation, ramp=30.0), shares)
    torch.testing.assert_close(view_weights(azimuth + 360, elevation, ramp=30.0), shares)


def test_overhead_takes_over():
    assert weights(45, 60) == pytest.approx([0.5, 0.5, 0, 0])
    assert weights(45, 61) == [0, 0, 0, 1]
    assert weights(0, 60, ramp=20.0) == pytest.approx([0.5, 0, 0, 0.5])
    assert weights(0, 75, ramp=20.0) == [0, 0, 0, 1]
    assert weights(0, 30, overhead=20.0) == [0, 0, 0, 1]


def test_nearest_view_and_blended_encodings():
    shares = view_weights(torch.tensor([10.0, 100.0, 45.0]), torch.zeros(3))
    nearest = nearest_view(shares)
    assert nearest.argmax(dim=0).tolist() == [0, 1, 0]
    assert nearest.sum(dim=0).tolist() == [1, 1, 1]
    encodings = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mix_encodings(encodings, nearest), encodings[[0, 1, 0]])
    torch.testing.assert_close(mix_encodings(encodings, shares)[2], (encodings[0] + encodings[1]) / 2)


def test_bad_values_are_refused():
    with pytest.raises(ValueError, match="ramp=-1"):
        weights(0, 0, ramp=-1.0)
    with pytest.raises(ValueError, match="-90 to 90"):
        weights(0, 100)
