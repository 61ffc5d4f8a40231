"""CSD-Edit of pictures: sizes, groups, conditions, progress, stopping, numbers out of range."""

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


class Counting(FormulaPrior):
    """Counts what passes the codec."""

    def __init__(self) -> None:
        super().__init__()
        self.encoded = self.decoded = 0

    def encode(self, images: Tensor) -> Tensor:
        self.encoded += len(images)
        return super().encode(images)

    def decode(self, latents: Tensor) -> Tensor:
        self.decoded += len(latents)
        return super().decode(latents)


@pytest.mark.parametrize("asked", [1, 2])
def test_a_stop_before_the_first_step_leaves_the_pictures_as_they_are(asked: int) -> None:
    """Asked the first time nothing is encoded yet; the second time it is, but a round trip would only blur."""
    prior, sources, initial = Counting(), pictures((8, 8), (4, 16)), [1 - x for x in pictures((8, 8), (4, 16))]
    questions: list[int] = []

    def should_stop() -> bool:
        questions.append(1)
        return len(questions) >= asked

    result = edit_images(
        prior, sources, "snow", settings=FEW, generator=seeded(), initial=initial, should_stop=should_stop
    )
    assert not result.complete and result.network_samples == prior.samples == prior.decoded == 0
    assert (prior.encoded == 0) == (asked == 1)
    for image, start, latents in zip(result.images, initial, result.latents, strict=True):
        assert torch.equal(image, start) and latents.numel() == 0


def test_pictures_that_the_decoder_breaks_do_not_come_back() -> None:
    class Breaking(FormulaPrior):
        def decode(self, latents: Tensor) -> Tensor:
            images = super().decode(latents)
            if tuple(images.shape[-2:]) == (4, 16):
                images[1, 2, 3, 4] = float("nan")
            return images

    sources = pictures((8, 8), (4, 16), (4, 16), (16, 4))
    with pytest.raises(NonFiniteError, match="the decoded picture is not finite at step 3, particle 2") as caught:
        edit_images(Breaking(), sources, "snow", settings=FEW, generator=seeded())
    partial = caught.value.partial
    good = edit_images(FormulaPrior(), sources, "snow", settings=FEW, generator=seeded())
    assert not partial.complete and partial.network_samples == 3 * 5 * 3
    for index, expected in enumerate((good.images[0], good.images[1], sources[2], sources[3])):
        assert torch.equal(partial.images[index], expected)


def test_pictures_whose_last_step_overflows_do_not_come_back() -> None:
    """The last update is seen by no further score."""

    class Huge(FormulaPrior):
        def predict_noise(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
            eps = super().predict_noise(x_t, t, condition)
            return eps if self.calls < 3 else eps + 1e37 * condition.text.mean(dim=(1, 2))[:, None, None, None]

    settings, sources = replace(FEW, lr=100.0, lr_decay=1.0), pictures((8, 8), (8, 8))
    with pytest.raises(NonFiniteError, match=r"the latent is not finite at step 2, t = \d+, particle 0") as caught:
        edit_images(Huge(), sources, "snow", settings=settings, generator=seeded())
    two_steps = edit_images(FormulaPrior(), sources, "snow", settings=replace(settings, steps=2), generator=seeded())
    for ours, expected in zip(caught.value.partial.images, two_steps.images, strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize("image_condition", ["mode", "scaled-sample"])
def test_the_network_sees_the_sources_as_its_condition(image_condition) -> None:
    """Not the initial pictures, and not their latents: mode and sample are encoded each in their own way."""
    seen: list[Condition] = []

    class Listening(FormulaPrior):
        def predict_noise(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
            seen.append(condition)
            return super().predict_noise(x_t, t, condition)

    sources, initial = pictures((8, 8), (8, 8), (8, 8)), [torch.rand(3, 8, 8, generator=seeded(50))] * 3
    settings = replace(FEW, image_condition=image_condition)
    edit_images(Listening(), sources, "snow", settings=settings, generator=seeded(), initial=initial)
    sample = seeded() if image_condition == "scaled-sample" else None
    condition = FormulaPrior().encode_condition(torch.stack(sources), scaled_sample=sample)
    text, null = FormulaPrior().encode_text(["snow", ""])
    nothing = torch.zeros_like(condition)
    # e(0, 0), e(src, 0), e(src, y) of the edited side, then e(0, 0), e(src, 0) of the source's.
    for call in seen:
        assert call.image is not None and torch.equal(
            call.image, torch.cat([nothing, condition, condition, nothing, condition])
        )
        assert torch.equal(call.text, torch.stack([null] * 6 + [text] * 3 + [null] * 6))
    assert len(seen) == 3


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


def test_empty_prompt_and_prior_without_image_input() -> None:
    with pytest.raises(ValueError, match="prompt is empty"):
        edit_images(FormulaPrior(), pictures((8, 8)), "  ", settings=FEW, generator=seeded())
    blind = FormulaPrior()
    blind.takes_image = False
    with pytest.raises(ValueError, match="no image input"):
        edit_images(blind, pictures((8, 8)), "snow", settings=FEW, generator=seeded())
