"""What the autoencoder loses of a picture comes back where an edit has changed nothing, and nowhere else."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from csd_nerf.distill import EditSettings, detail, edit_images
from csd_nerf.distill.detail import give_back, unchanged
from csd_nerf.distill.sizes import resize
from tests.distill.analytic import FormulaPrior, seeded

THRESHOLD = 0.1


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=seeded(seed))


def test_unedited_pictures_are_their_photos_at_the_photos_resolution() -> None:
    photo = noise(2, 3, 48, 40)
    rebuilt = resize(photo, (24, 20))
    assert (resize(rebuilt, (48, 40)) - photo).abs().mean() > 0.1  # much is lost
    torch.testing.assert_close(give_back(photo, rebuilt, rebuilt, THRESHOLD, 4), photo)


def test_what_is_changed_altogether_stays_as_it_was_decoded() -> None:
    photo, edited = noise(1, 3, 32, 32) * 0.3, 0.7 + 0.3 * noise(1, 3, 16, 16, seed=1)
    made = give_back(photo, resize(photo, (16, 16)), edited, THRESHOLD, 4)
    torch.testing.assert_close(made, resize(edited, (32, 32)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("change", [0.0, 0.03, 0.1, 0.2])
def test_even_pictures_follow_the_formula(change: float) -> None:
    photo, rebuilt, edited = (torch.full((1, 3, 12, 12), value) for value in (0.5, 0.42, 0.42 + change))
    expected = 0.42 + change + math.exp(-((change / THRESHOLD) ** 2)) * (0.5 - 0.42)
    torch.testing.assert_close(give_back(photo, rebuilt, edited, THRESHOLD, 4), torch.full_like(photo, expected))


def test_the_share_counts_the_pixels_around_and_all_colours_as_a_slow_loop_does() -> None:
    rebuilt, edited, factor = noise(1, 3, 9, 7), noise(1, 3, 9, 7, seed=1), 2
    expected = torch.empty(1, 1, 9, 7)
    for y in range(9):
        for x in range(7):
            rows, columns = slice(max(0, y - factor), y + factor + 1), slice(max(0, x - factor), x + factor + 1)
            distance = (edited - rebuilt)[0, :, rows, columns].square().mean().sqrt()
            expected[0, 0, y, x] = torch.exp(-((distance / 0.5) ** 2))
    torch.testing.assert_close(unchanged(rebuilt, edited, 0.5, factor), expected)


def test_a_whole_turn_may_begin_anywhere() -> None:
    photo, rebuilt, edited = (noise(1, 3, 9, 20, seed=seed) for seed in range(3))
    made = give_back(photo, rebuilt, edited, 0.5, 2, wrap=True)
    photo_turned, rebuilt_turned, edited_turned = (picture.roll(7, dims=-1) for picture in (photo, rebuilt, edited))
    turned = give_back(photo_turned, rebuilt_turned, edited_turned, 0.5, 2, wrap=True)
    torch.testing.assert_close(turned, made.roll(7, dims=-1))
    cut = give_back(photo, rebuilt, edited, 0.5, 2)
    torch.testing.assert_close(made[..., 2:-2], cut[..., 2:-2])  # only what lies at the cut sees the other side
    assert (made - cut)[..., :2].abs().max() > 1e-3
    photo, rebuilt, edited = (picture[..., :1] for picture in (photo, rebuilt, edited))  # narrower than the window
    torch.testing.assert_close(
        give_back(photo, rebuilt, edited, 0.5, 2, wrap=True), give_back(photo, rebuilt, edited, 0.5, 2)
    )


def test_an_edited_corner_leaves_the_rest_sharp() -> None:
    photo = noise(1, 3, 64, 64)
    rebuilt = resize(photo, (32, 32))
    edited = rebuilt.clone()
    edited[..., :8, :8] = (edited[..., :8, :8] + 0.5) % 1
    made = give_back(photo, rebuilt, edited, THRESHOLD, 2)
    torch.testing.assert_close(made[..., 24:, 24:], photo[..., 24:, 24:])
    torch.testing.assert_close(made[..., :8, :8], resize(edited, (64, 64))[..., :8, :8], atol=1e-3, rtol=0)


@pytest.mark.parametrize("pixels", [1, 7 * 3, 7 * 20])
def test_it_does_not_matter_how_many_rows_are_worked_on_at_a_time(pixels: int, monkeypatch) -> None:
    photo, rebuilt, edited = (noise(2, 3, 11, 7, seed=seed) for seed in range(3))
    whole = give_back(photo, rebuilt, edited, 0.5, 2)
    share = unchanged(rebuilt, edited, 0.5, 2)
    torch.testing.assert_close(whole, (edited + share * (photo - rebuilt)).clamp(0, 1))
    monkeypatch.setattr(detail, "PIXELS_AT_ONCE", pixels)
    torch.testing.assert_close(give_back(photo, rebuilt, edited, 0.5, 2), whole)


def test_edit_images_gives_back_what_its_autoencoder_loses() -> None:
    sources = [noise(3, 24, 24), noise(3, 40, 20, seed=1)]
    still = EditSettings(steps=1, lr=1e-12)  # moves nothing: only the autoencoder makes a difference

    def made(**changes: Any) -> list[Tensor]:
        settings = replace(still, **changes)
        return edit_images(FormulaPrior(), sources, "snow", settings=settings, generator=seeded()).images

    for source, without, having in zip(sources, made(keep_detail=0.0), made(), strict=True):
        assert (without - source).abs().mean() > 0.05
        torch.testing.assert_close(having, source, atol=1e-4, rtol=0)


@pytest.mark.parametrize("threshold", [-0.1, math.nan, math.inf])
def test_a_threshold_that_cannot_work_is_named(threshold: float) -> None:
    with pytest.raises(ValueError, match="keep_detail=.*colours in"):
        EditSettings(keep_detail=threshold).validate()
