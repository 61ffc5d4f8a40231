"""Tiles are a partition of unity, never larger than allowed, and leave no border: with exact codecs and a real one."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, interpolate

from csd_nerf.distill.types import ImagePrior
from csd_nerf.images.tiles import decode_tiled, default_tile, encode_both_tiled, encode_tiled
from csd_nerf.priors import load_prior
from tests.distill.analytic import FormulaPrior, seeded


class Linear(FormulaPrior):
    """A codec that works cell by cell: its tiles are exact wherever they are cut."""

    factor, size = 4, 16

    def encode(self, images: Tensor) -> Tensor:
        return avg_pool2d(images, self.factor) * 2 - 1

    def decode(self, latents: Tensor) -> Tensor:
        return interpolate((latents + 1) / 2, scale_factor=self.factor)


class Blurring(Linear):
    """Sees one latent pixel around each, zeros outside: exact only if the borders of tiles are not used."""

    kernel = torch.tensor([[1.0, 2, 1], [2, 5, 3], [1, 2, 1]]).expand(3, 1, 3, 3) / 18

    def encode(self, images: Tensor) -> Tensor:
        return conv2d(super().encode(images), self.kernel, padding=1, groups=3)

    def decode(self, latents: Tensor) -> Tensor:
        return super().decode(conv2d(latents, self.kernel, padding=1, groups=3))


class Watched(Linear):
    """Notes the pixels of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.pixels: list[int] = []

    def encode(self, images: Tensor) -> Tensor:
        self.pixels.append(images[:, 0].numel())
        return super().encode(images)

    def decode(self, latents: Tensor) -> Tensor:
        self.pixels.append(latents[:, 0].numel() * self.factor**2)
        return super().decode(latents)


class Numbered(Linear):
    """Answers with the number of the call."""

    def decode(self, latents: Tensor) -> Tensor:
        self.calls += 1
        return torch.full_like(super().decode(latents), float(self.calls))


@cache
def toy() -> ImagePrior:
    return load_prior("toy")


@cache
def circle() -> Tensor:
    """A picture of 200 x 512 pixels with detail of many sizes, whose right edge continues on the left."""
    picture = torch.zeros(3, 200, 256)
    for cell in (4, 16, 64):
        noise = torch.rand(1, 3, 200 // cell + 1, 256 // cell, generator=seeded(cell))
        picture += interpolate(noise, size=(200, 256), mode="bilinear")[0] / 3
    return torch.cat([picture, picture.flip(-1)], dim=-1)


SIZES = [(40, 92), (16, 16), (4, 200), (64, 4), (24, 68)]


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize(("tile", "overlap"), [(None, None), (32, 0), (32, 4), (32, 16), (4, 0), (20, 8)])
@pytest.mark.parametrize("size", SIZES)
def test_shares_sum_to_one(size, tile, overlap, wrap) -> None:
    prior, picture = Linear(), torch.rand(3, *size, generator=seeded())
    latents = prior.encode(picture[None])[0]
    cut = {"tile": tile, "overlap": overlap, "wrap": wrap}
    torch.testing.assert_close(encode_tiled(prior, picture, **cut), latents, atol=2e-6, rtol=0)
    torch.testing.assert_close(decode_tiled(prior, latents, **cut), prior.decode(latents[None])[0], atol=2e-6, rtol=0)


@pytest.mark.parametrize("size", [(40, 92), (24, 68), (160, 28)])
def test_context_beyond_a_tile_is_discarded_and_the_picture_borders_are_kept(size) -> None:
    prior, picture = Blurring(), torch.rand(3, *size, generator=seeded())
    latents = prior.encode(picture[None])[0]
    torch.testing.assert_close(encode_tiled(prior, picture, tile=32, overlap=16), latents, atol=2e-6, rtol=0)
    decoded = prior.decode(latents[None])[0]
    torch.testing.assert_close(decode_tiled(prior, latents, tile=32, overlap=16), decoded, atol=2e-6, rtol=0)
    assert (decode_tiled(prior, latents, tile=32, overlap=0) - decoded).abs().max() > 0.01


def around(rows: Tensor, by: int) -> Tensor:
    return torch.cat([rows[..., -by:], rows, rows[..., :by]], dim=-1)[None]


@pytest.mark.parametrize("width", [92, 20, 8])
def test_tiles_continue_around_a_circle(width) -> None:
    prior, picture = Blurring(), torch.rand(3, 40, width, generator=seeded())
    latents = prior.encode(around(picture, 4))[0, :, :, 1:-1]
    cut = {"tile": 32, "overlap": 16, "wrap": True}
    torch.testing.assert_close(encode_tiled(prior, picture, **cut), latents, atol=2e-6, rtol=0)
    decoded = prior.decode(around(latents, 1))[0, :, :, 4:-4]
    torch.testing.assert_close(decode_tiled(prior, latents, **cut), decoded, atol=2e-6, rtol=0)


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_no_call_sees_more_than_a_tile_nor_many_times_the_picture(size, wrap) -> None:
    prior = Watched()
    latents = encode_tiled(prior, torch.rand(3, *size, generator=seeded()), tile=32, overlap=8, wrap=wrap)
    encoded = len(prior.pixels)
    decode_tiled(prior, latents, tile=32, overlap=8, wrap=wrap)
    assert max(prior.pixels) <= 32 * 32
    assert len(prior.pixels) == 2 * encoded
    if not wrap and max(size) <= 32:
        assert prior.pixels == [size[0] * size[1]] * 2
    if min(size) > 8:
        assert sum(prior.pixels[:encoded]) <= 2.2 * size[0] * size[1]


def test_a_real_decoder_shows_no_borders() -> None:
    """Its group normalisation makes tiles differ from the whole, but hardly more where tiles meet than elsewhere."""
    latents = toy().encode(circle()[None])[0]
    whole = toy().decode(latents[None])[0]

    def steps(away: Tensor) -> Tensor:
        return away.diff(dim=-1).abs().mean(dim=(0, 1))

    away = decode_tiled(toy(), latents) - whole
    assert away.abs().max() < 0.03 and away.abs().mean() < 0.005
    # There is one row of tiles, so that columns tell where they meet.
    meet = decode_tiled(Numbered(), latents[:3], tile=default_tile(toy()))[0, 0].diff().abs() > 1e-6
    assert 0 < meet.sum() < len(meet) / 2
    assert steps(away)[meet].mean() < 1.5 * steps(away)[~meet].mean()
    assert steps(away)[meet].max() < 1.2 * steps(away)[~meet].max()
    sharp = decode_tiled(toy(), latents, overlap=0) - whole
    assert steps(sharp).max() > 10 * steps(away).max()  # what a border looks like


def test_a_circle_has_no_seam_for_a_real_codec() -> None:
    def through(picture: Tensor, wrap: bool) -> Tensor:
        return decode_tiled(toy(), encode_tiled(toy(), picture, wrap=wrap), wrap=wrap)

    def seam(picture: Tensor) -> tuple[float, Tensor]:
        steps = (picture.roll(-1, dims=-1) - picture).abs().mean(dim=(0, 1))
        return float(steps[-1]), steps[:-1]

    # Mirrored content meets itself with no step at all at the seam, so that any step there comes from the codec.
    shown = through(circle(), wrap=True)
    jump, elsewhere = seam(shown)
    assert jump < elsewhere.mean()
    assert seam(through(circle(), wrap=False))[0] > 2 * jump
    turned = through(circle().roll(148, dims=-1), wrap=True).roll(-148, dims=-1)
    assert (turned - shown).abs().max() < 0.05 and (turned - shown).abs().mean() < 0.005


def test_condition_precision_and_progress() -> None:
    prior, seen = FormulaPrior(), []
    picture = torch.rand(3, 20, 40, generator=seeded())
    condition = encode_tiled(prior, picture, tile=16, condition=True, on_tile=lambda *done: seen.append(done))
    torch.testing.assert_close(condition, prior.encode_condition(picture[None])[0], atol=1e-5, rtol=0)
    assert condition.dtype == torch.float32
    assert seen == [(i + 1, 6) for i in range(6)]


def test_latents_and_condition_of_a_large_picture_cost_one_pass(monkeypatch) -> None:
    monkeypatch.setattr("csd_nerf.priors.autoencoder.REMEMBERED_BYTES", 0)  # as if the picture were too large for it
    prior: Any = load_prior("toy")
    seen: list[tuple[int, int]] = []
    latents, condition = encode_both_tiled(prior, circle(), on_tile=lambda *how_far: seen.append(how_far))
    assert seen == [(1, 3), (2, 3), (3, 3)] and prior.autoencoder.encoded == 3
    assert torch.equal(latents, encode_tiled(prior, circle()))
    assert torch.equal(condition, encode_tiled(prior, circle(), condition=True))


def test_the_default_tile_is_bounded() -> None:
    prior = Linear()
    sizes = {}
    for size in (16, 64, 512, 1024):
        prior.size = size
        sizes[size] = default_tile(prior)
    assert sizes == {16: 64, 64: 256, 512: 1024, 1024: 1024}


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda prior: encode_tiled(prior, torch.zeros(3, 16, 18)), "18 x 16"),
        (lambda prior: encode_tiled(prior, torch.zeros(3, 16, 16), tile=30), "tile=30"),
        (lambda prior: decode_tiled(prior, torch.zeros(4, 16, 16), tile=0), "tile=0"),
        (lambda prior: decode_tiled(prior, torch.zeros(4, 16, 16), tile=32, overlap=20), "overlap=20"),
        (lambda prior: decode_tiled(prior, torch.zeros(4, 16, 16), tile=32, overlap=6), "overlap=6"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(call: Callable[[ImagePrior], Tensor], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call(Linear())
