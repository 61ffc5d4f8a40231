"""Every editor is a choice of parts: equal where they are, nothing where nothing is asked for, at its own price."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from csd_nerf.distill import (
    EDITORS,
    Condition,
    CountingPrior,
    EditResult,
    EditSettings,
    NonFiniteError,
    edit_images,
    make_edit_distiller,
)
from tests.distill.analytic import FormulaPrior, seeded

SAMPLES = {"csd-edit": 5, "no-svgd": 5, "random-noise": 3, "sds": 3, "dds": 4}
"""Network samples for one picture and step."""
SOURCE_PROMPT = "a green cube"


def settings_of(editor: Any, **changes: Any) -> EditSettings:
    prompt = SOURCE_PROMPT if editor == "dds" else ""
    return replace(EditSettings(editor=editor, steps=3, source_prompt=prompt), **changes)


def edit(settings: EditSettings, n: int, prompt: str = "a red cube", prior: Any = None, **more: Any) -> EditResult:
    sources = [torch.rand((3, 8, 8), generator=seeded(i)) for i in range(n)]
    return edit_images(prior or FormulaPrior(), sources, prompt, settings=settings, generator=seeded(), **more)


def same(one: EditResult, other: EditResult) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.latents, other.latents, strict=True))


@pytest.mark.parametrize("noise", ["shared", "independent"])
@pytest.mark.parametrize("editor", SAMPLES)
def test_what_an_editor_costs_is_what_the_network_was_asked(editor, noise) -> None:
    prior = FormulaPrior()
    result = edit(settings_of(editor, noise=noise), 4, prior=prior)
    assert result.network_samples == prior.samples == 4 * 3 * SAMPLES[editor]


def test_the_samples_of_a_step_that_fails_are_counted_too() -> None:
    class Breaking(FormulaPrior):
        def predict_noise(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
            return super().predict_noise(x_t, t, condition) * (float("nan") if self.calls == 2 else 1)

    with pytest.raises(NonFiniteError) as caught:
        edit(settings_of("csd-edit"), 4, prior=Breaking())
    assert caught.value.partial.network_samples == 2 * 4 * 5


def test_counting_changes_nothing() -> None:
    prior = FormulaPrior()
    counted, x_t = CountingPrior(prior), torch.rand(3, 4, 4, 4)
    condition = Condition(prior.encode_text(["a", "b", "c"]))
    assert torch.equal(
        counted.predict_noise(x_t, torch.tensor(7), condition), prior.predict_noise(x_t, torch.tensor(7), condition)
    )
    assert counted.samples == 3 and counted.schedule is prior.schedule


@pytest.mark.parametrize(("one", "other"), [("csd-edit", "no-svgd"), ("random-noise", "sds")])
def test_without_company_the_kernel_is_no_matter(one, other) -> None:
    assert same(edit(settings_of(one), 1), edit(settings_of(other), 1))
    assert not same(edit(settings_of(one), 3), edit(settings_of(other), 3))


@pytest.mark.parametrize(("one", "other"), [("csd-edit", "random-noise"), ("no-svgd", "sds"), ("no-svgd", "dds")])
def test_what_is_subtracted_matters(one, other) -> None:
    assert not same(edit(settings_of(one), 1), edit(settings_of(other), 1))


@pytest.mark.parametrize("editor", ["no-svgd", "sds", "dds"])
def test_independent_pictures_are_edited_as_if_alone(editor) -> None:
    """Under one noise; of noises of their own more are drawn for more pictures."""
    settings = settings_of(editor, noise="shared")
    torch.testing.assert_close(edit(settings, 3).latents[0], edit(settings, 1).latents[0])


@pytest.mark.parametrize("kernel", ["independent", "rbf"])
def test_dds_of_equal_prompts_leaves_the_pictures_alone(kernel) -> None:
    """Its gradient is zero; what is left with the RBF kernel is the repulsion, which a single picture has not."""
    prior, source = FormulaPrior(), [torch.rand((3, 8, 8), generator=seeded(1))]
    settings = settings_of("dds", kernel=kernel)
    result = edit(settings, 1, prompt=SOURCE_PROMPT)
    start = prior.encode(torch.rand((3, 8, 8), generator=seeded(0))[None])[0]
    assert torch.equal(result.latents[0], start)
    other = edit_images(prior, source, "a red cube", settings=settings, generator=seeded())
    assert (other.latents[0] - prior.encode(source[0][None])[0]).abs().mean() > 0.01


def test_dds_shows_both_captions_the_negative_prompt_and_no_picture() -> None:
    seen: list[Condition] = []

    class Listening(FormulaPrior):
        def predict_noise(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
            seen.append(condition)
            return super().predict_noise(x_t, t, condition)

        def encode_condition(self, images: Tensor, *, scaled_sample: torch.Generator | None = None) -> Tensor:
            raise AssertionError("a prior without image input has none")

    prior = Listening()
    prior.takes_image = False
    edit(settings_of("dds", preset="released", steps=1), 1, prior=prior, negative_prompt="snow")
    null, wanted, there = prior.encode_text(["snow", "a red cube", SOURCE_PROMPT])
    assert [condition.image for condition in seen] == [None]
    assert torch.equal(seen[0].text, torch.stack([null, wanted, null, there]))


def test_dds_is_the_difference_of_two_guided_estimates() -> None:
    prior = FormulaPrior()
    settings = settings_of("dds", steps=1, lr=0.1, t_min=0.4, t_max=0.4, guidance_scale=3.0, noise="independent")
    source, start = (torch.rand((3, 8, 8), generator=seeded(i)) for i in (0, 9))
    result = edit_images(prior, [source], "a red cube", settings=settings, generator=seeded(), initial=[start])
    x, original, t = prior.encode(start[None]), prior.encode(source[None]), torch.tensor(400)
    alpha, sigma = prior.schedule.alpha(t).float(), prior.schedule.sigma(t).float()
    generator = seeded()
    torch.randint(400, 401, (), generator=generator)
    eps = torch.randn(x.shape, generator=generator)

    def guided(particle: Tensor, prompt: str) -> Tensor:
        null, text = (
            prior.predict_noise(alpha * particle + sigma * eps, t, Condition(prior.encode_text([words])))
            for words in ("", prompt)
        )
        return null + 3.0 * (text - null)

    moved = x - 0.1 * sigma**2 * (guided(x, "a red cube") - guided(original, SOURCE_PROMPT))
    torch.testing.assert_close(result.latents[0], moved[0])


@pytest.mark.parametrize(
    ("editor", "change", "message"),
    [
        ("csd-edit", {"kernel": "independent"}, "kernel=independent contradicts editor=csd-edit, whose kernel is rbf"),
        ("no-svgd", {"baseline": "noise"}, "baseline=noise contradicts editor=no-svgd, whose baseline is source"),
        ("sds", {"kernel": "rbf"}, "kernel=rbf contradicts editor=sds, whose kernel is independent: leave one"),
        ("dds", {"baseline": "noise"}, "baseline=noise contradicts editor=dds"),
        ("dds", {"image_guidance_scale": 2.0}, "image_guidance_scale=2.0 has no meaning for editor=dds"),
        ("dds", {"text_t_min": 0.3}, "text_t_min=0.3 has no meaning for editor=dds"),
        ("dds", {"source_prompt": " "}, 'editor=dds needs source_prompt="...", the caption of what is there'),
        ("csd-edit", {"source_prompt": "a cube"}, 'source_prompt="a cube" has no meaning for editor=csd-edit'),
        ("ip2p", {"kernel": "rbf"}, "kernel=rbf has no meaning for editor=ip2p: leave one of them out"),
        ("in2n", {"lr": 0.5}, "lr=0.5 has no meaning for editor=in2n"),
        ("in2n", {"steps": 21}, "steps=21: the descent of editor=in2n may begin with 20 noise levels .* larger t_min"),
        ("ip2p", {"steps": 1001}, "steps=1001: the descent of editor=ip2p may begin with 1000 noise levels above 0"),
    ],
)
def test_what_contradicts_the_editor_is_refused_before_any_work(editor, change, message) -> None:
    prior = FormulaPrior()
    with pytest.raises(ValueError, match=message):
        edit(settings_of(editor, **change), 2, prior=prior)
    assert prior.calls == 0


def test_what_says_the_same_as_the_editor_is_no_contradiction() -> None:
    for editor, parts in EDITORS.items():
        for kernel in parts.kernels:
            settings_of(editor, kernel=kernel, baseline=parts.baseline).validate()
        settings_of(editor).validate()


@pytest.mark.parametrize("editor", ["ip2p", "in2n"])
def test_an_editor_that_samples_has_no_distiller(editor) -> None:
    for use in (
        lambda: make_edit_distiller(FormulaPrior(), settings_of(editor)),
        lambda: edit(settings_of(editor), 1),
    ):
        with pytest.raises(ValueError, match=f"editor={editor} samples: give edit_images its solver"):
            use()
