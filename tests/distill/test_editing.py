"""CSD-Edit of pictures: sizes, groups, progress, stopping, settings."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from csd_nerf.distill import Condition, EditSettings, NonFiniteError, edit_images, edit_size
from tests.distill.analytic import FormulaPrior, seeded

FEW = EditSettings(steps=3)


def pictures(*sizes: tuple[int, int]) -> list[Tensor]:
    return [torch.rand((3, *size), generator=seeded(i)) for i, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ((64, 64), (64, 64)),
        ((480, 270), (84, 48)),
        ((270, 480), (48, 84)),
        ((33, 65), (44, 88)),
        ((9, 4000), (8, 1348)),
    ],
)
def test_edit_size_keeps_area_and_aspect(source, expected) -> None:
    assert edit_size(source[0], source[1], 64, 4) == expected


def test_edited_pictures_have_their_sources_sizes_and_order() -> None:
    sources = pictures((24, 24), (31, 17), (24, 24), (17, 31))
    result = edit_images(FormulaPrior(), sources, "make it snow", settings=FEW, generator=seeded())
    assert [tuple(image.shape) for image in result.images] == [tuple(source.shape) for source in sources]
    assert result.complete and result.network_samples == 4 * 3 * 5
    for image in result.images:
        assert image.dtype == torch.float32 and 0 <= float(image.min()) and float(image.max()) <= 1
    assert tuple(result.latents[0].shape) == (4, 4, 4)


def test_groups_do_not_influence_each_other() -> None:
    square, wide = pictures((24, 24), (24, 24)), pictures((12, 48), (12, 48))
    alone = edit_images(FormulaPrior(), square, "make it snow", settings=FEW, generator=seeded())
    mixed = edit_images(FormulaPrior(), [*square, *wide], "make it snow", settings=FEW, generator=seeded())
    for ours, expected in zip(mixed.latents, alone.latents, strict=False):
        assert torch.equal(ours, expected)


def test_initial_pictures_are_the_start_and_sources_the_condition() -> None:
    sources, initial = pictures((8, 8)), [torch.zeros(3, 8, 8)]
    still = replace(FEW, lr=1e-12)
    result = edit_images(FormulaPrior(), sources, "snow", settings=still, generator=seeded(), initial=initial)
    torch.testing.assert_close(result.images[0], initial[0], atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="sizes of their sources"):
        edit_images(FormulaPrior(), sources, "snow", settings=FEW, generator=seeded(), initial=pictures((4, 8)))


def test_progress_counts_all_groups_and_stop_keeps_what_is_there() -> None:
    steps: list[tuple[int, int]] = []
    sources = pictures((8, 8), (4, 16))
    edit_images(
        FormulaPrior(),
        sources,
        "snow",
        settings=FEW,
        generator=seeded(),
        on_step=lambda done, total: steps.append((done, total)),
    )
    assert steps == [(i + 1, 6) for i in range(6)]
    steps.clear()
    result = edit_images(
        FormulaPrior(),
        sources,
        "snow",
        settings=FEW,
        generator=seeded(),
        on_step=lambda done, total: steps.append((done, total)),
        should_stop=lambda: len(steps) == 2,
    )
    assert not result.complete and len(steps) == 2
    assert torch.equal(result.images[1], sources[1])


def test_non_finite_error_names_the_view_and_carries_pictures() -> None:
    class Breaking(FormulaPrior):
        def predict_noise(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
            return super().predict_noise(x_t, t, condition) * (float("inf") if self.calls == 6 else 1)

    sources = pictures((8, 8), (4, 16), (4, 16))
    with pytest.raises(NonFiniteError, match="step 2, .* particle 1") as caught:
        edit_images(Breaking(), sources, "snow", settings=FEW, generator=seeded())
    partial = caught.value.partial
    assert len(partial.images) == 3 and not partial.complete
    assert all(torch.isfinite(image).all() for image in partial.images)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t_min": 0.7}, "t_min=0.7 is above t_max=0.5"),
        ({"guidance_scale": -1.0}, "guidance_scale=-1"),
        ({"image_guidance_scale": -1.0}, "image_guidance_scale=-1"),
        ({"lr": 0.0}, "lr=0"),
        ({"steps": 0}, "steps=0"),
        ({"t_max": 1.5}, "t_max=1.5"),
    ],
)
def test_bad_settings_are_refused_before_any_work(change, message) -> None:
    prior = FormulaPrior()
    with pytest.raises(ValueError, match=message):
        edit_images(prior, pictures((8, 8)), "snow", settings=replace(FEW, **change), generator=seeded())
    assert prior.calls == 0


def test_unknown_preset_names_the_known_ones() -> None:
    settings = EditSettings()
    object.__setattr__(settings, "preset", "newest")  # what an unchecked caller would do
    with pytest.raises(ValueError, match="paper, released, corrected"):
        settings.validate()


def test_empty_prompt_and_prior_without_image_input() -> None:
    with pytest.raises(ValueError, match="prompt is empty"):
        edit_images(FormulaPrior(), pictures((8, 8)), "  ", settings=FEW, generator=seeded())
    blind = FormulaPrior()
    blind.takes_image = False
    with pytest.raises(ValueError, match="no image input"):
        edit_images(blind, pictures((8, 8)), "snow", settings=FEW, generator=seeded())


def test_presets_differ_where_the_table_says() -> None:
    results = {}
    for preset in ("paper", "released", "corrected"):
        sources = pictures((8, 8), (8, 8), (8, 8))
        settings = EditSettings(preset, steps=2)
        results[preset] = edit_images(FormulaPrior(), sources, "snow", settings=settings, generator=seeded()).latents[0]
    assert not torch.equal(results["paper"], results["corrected"])
    assert not torch.equal(results["paper"], results["released"])
    explicit = EditSettings("released", image_guidance_scale=2.0).resolved()
    assert (explicit.image_guidance_scale, explicit.t_min, explicit.noise) == (2.0, 0.02, "independent")
