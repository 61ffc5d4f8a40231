"""Schedule, timesteps, noise sources, guidance, composed prompts."""

from dataclasses import replace

import pytest
import torch

from csd_nerf.distill import (
    CanvasNoise,
    GuidanceInterval,
    ImageGuidance,
    ImageTextGuidance,
    IndependentNoise,
    JointGuidance,
    NoiseSchedule,
    SharedNoise,
    Target,
    TextGuidance,
    UniformTimesteps,
    evaluate,
)
from tests.distill.analytic import FormulaPrior, random_particles, random_target, seeded


def test_schedule_is_stable_diffusions() -> None:
    schedule = NoiseSchedule.scaled_linear()
    abar = 1.0
    for step in range(1000):
        beta = (0.00085**0.5 + step / 999 * (0.012**0.5 - 0.00085**0.5)) ** 2
        abar *= 1 - beta
        assert float(schedule.alphas_cumprod[step]) == pytest.approx(abar, rel=1e-9)
    t = torch.tensor([0, 500, 999])
    torch.testing.assert_close(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(schedule.weight(t), schedule.sigma(t) ** 2)


def test_timesteps_fill_their_range_with_both_ends() -> None:
    schedule, generator = NoiseSchedule.scaled_linear(steps=50), seeded()
    drawn = {int(UniformTimesteps(0.2, 0.5)(schedule, generator)) for _ in range(2000)}
    assert drawn == set(range(10, 26))
    assert {int(UniformTimesteps(0.9, 1.0)(schedule, generator)) for _ in range(500)} == set(range(45, 50))


@pytest.mark.parametrize("bounds", [(0.5, 0.2), (-0.1, 0.5), (0.2, 1.5)])
def test_bad_timestep_ranges_are_refused(bounds) -> None:
    with pytest.raises(ValueError, match="t_min"):
        UniformTimesteps(*bounds)


def test_noise_sources_are_unit_normal_and_depend_as_they_say() -> None:
    x = torch.zeros(400, 4, 6, 6)
    independent, shared = IndependentNoise()(x, seeded()), SharedNoise()(x, seeded())
    assert float(independent.std()) == pytest.approx(1, abs=0.02)
    assert float((independent[0] * independent[1]).mean()) == pytest.approx(0, abs=0.35)
    assert (shared == shared[0]).all()
    assert float(shared[0].std()) == pytest.approx(1, abs=0.25)


def test_canvas_noise_agrees_where_patches_overlap_and_wraps() -> None:
    corners = torch.tensor([[0, 0], [2, 3], [0, 8]])
    eps = CanvasNoise(height=8, width=10, corners=corners)(torch.zeros(3, 4, 5, 5), seeded())
    assert torch.equal(eps[0, :, 2:, 3:], eps[1, :, :3, :2])
    assert torch.equal(eps[2, :, :, 2:5], eps[0, :, :, 0:3])  # columns 8, 9 and then 0, 1, 2
    many = CanvasNoise(60, 60, torch.zeros(1, 2, dtype=torch.long))(torch.zeros(1, 4, 60, 60), seeded())
    assert float(many.std()) == pytest.approx(1, abs=0.03)


def test_guidance_formulas() -> None:
    prior, t = FormulaPrior(), torch.tensor(300)
    x, target = random_particles(2), random_target(2)
    from csd_nerf.distill import Condition

    assert target.image is not None
    blank = torch.zeros_like(target.image)
    e00 = prior.predict_noise(x, t, Condition(target.null_text, blank))
    e10 = prior.predict_noise(x, t, Condition(target.null_text, target.image))
    e11 = prior.predict_noise(x, t, Condition(target.texts[0], target.image))
    e01 = prior.predict_noise(x, t, Condition(target.texts[0], blank))
    guided, image_only, text_only = evaluate(
        prior,
        t,
        [g.estimate(x, t, target) for g in (ImageTextGuidance(7.0, 1.5), ImageGuidance(1.5), TextGuidance(4.0))],
    )
    torch.testing.assert_close(guided, e00 + 1.5 * (e10 - e00) + 7.0 * (e11 - e10))
    torch.testing.assert_close(image_only, e00 + 1.5 * (e10 - e00))
    torch.testing.assert_close(text_only, e00 + 4.0 * (e01 - e00))


def test_composed_prompts_are_the_weighted_sum_and_skip_zero_weights() -> None:
    prior, t = FormulaPrior(), torch.tensor(300)
    x, target = random_particles(3), random_target(3)
    texts = tuple(random_target(3, seed=seed).texts[0] for seed in (5, 6, 8))
    weights = torch.tensor([[1.0, 0.25, 0.0], [0.0, 0.75, 1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    composed = replace(target, texts=texts, weights=weights)
    guidance = ImageTextGuidance(7.0, 1.5)
    (ours,) = evaluate(prior, t, [guidance.estimate(x, t, composed)])
    assert prior.samples == 3 + 3 + 2 + 2
    expected = torch.zeros_like(x)
    for text, weight in zip(texts, weights, strict=True):
        (single,) = evaluate(prior, t, [guidance.estimate(x, t, replace(target, texts=(text,)))])
        expected += weight[:, None, None, None] * single
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("guidance", [ImageTextGuidance(7.0, 1.5), TextGuidance(4.0)])
def test_a_prompt_that_says_nothing_new_is_not_asked_again(guidance) -> None:
    """The rest of a picture without a prompt: its estimate is that of the empty prompt, which is evaluated anyway."""
    prior, t = FormulaPrior(), torch.tensor(300)
    x, target = random_particles(3), random_target(3)
    words = random_target(3, seed=5).texts[0]
    weights = torch.tensor([[1.0, 0.25, 0.0], [0.0, 0.75, 1.0]], dtype=torch.float64)
    composed = replace(target, texts=(words, target.null_text), weights=weights)
    (ours,) = evaluate(prior, t, [guidance.estimate(x, t, composed)])
    branches = 2 if isinstance(guidance, ImageTextGuidance) else 1
    assert prior.samples == 3 * branches + 2, "the empty prompt's share costs nothing"
    expected = torch.zeros_like(x)
    for text, weight in zip(composed.texts, weights, strict=True):
        (single,) = evaluate(prior, t, [guidance.estimate(x, t, replace(target, texts=(text,)))])
        expected += weight[:, None, None, None] * single
    torch.testing.assert_close(ours, expected)


def test_picture_and_text_as_one_condition_is_eq_6_with_equal_scales() -> None:
    """Also for several prompts with shares, one of which says nothing; with two samples instead of three."""
    t, x, target = torch.tensor(300), random_particles(3), random_target(3)
    weights = torch.tensor([[1.0, 0.25, 0.0], [0.0, 0.75, 1.0]], dtype=torch.float64)
    composed = replace(target, texts=(target.texts[0], target.null_text), weights=weights)
    for wanted, samples in ((target, 6), (composed, 3 + 2 + 2)):
        prior = FormulaPrior()
        (ours,) = evaluate(prior, t, [JointGuidance(1.7).estimate(x, t, wanted)])
        assert prior.samples == samples
        (expected,) = evaluate(prior, t, [ImageTextGuidance(1.7, 1.7).estimate(x, t, wanted)])
        torch.testing.assert_close(ours, expected)


def test_an_interval_takes_each_guidance_at_its_own_levels() -> None:
    inside, outside = ImageTextGuidance(7.0, 1.5), JointGuidance(1.5)
    x, target = random_particles(2), random_target(2)
    for t, chosen in ((199, outside), (200, inside), (310, inside), (400, inside), (401, outside)):
        at = torch.tensor(t)
        guided, expected = evaluate(
            FormulaPrior(),
            at,
            [g.estimate(x, at, target) for g in (GuidanceInterval(inside, outside, 200, 400), chosen)],
        )
        torch.testing.assert_close(guided, expected)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([[0.5, 1.0, 0.0], [0.5, 0.0, 0.0]], r"particle 2 are \[0.0, 0.0\].* sum to 1"),
        ([[1.5, 1.0, 0.0], [-0.5, 0.0, 1.0]], r"particle 0 are \[1.5, -0.5\].* at least 0"),
        ([[0.5, 1.0, 2.0], [0.5, 0.0, 1.0]], "particle 2"),
        ([[0.5, float("nan"), 0.5], [0.5, 0.0, 0.5]], "particle 1"),
        ([[1.0, 1.0, 1.0]], r"shape \(1, 3\) for 2 prompts and 3 particles"),
    ],
)
def test_weights_that_are_no_shares_are_refused(weights, message) -> None:
    target = random_target(3)
    with pytest.raises(ValueError, match=message):
        replace(target, texts=target.texts * 2, weights=torch.tensor(weights))


def test_missing_inputs_are_named() -> None:
    x, target = random_particles(2), random_target(2, image=False)
    with pytest.raises(ValueError, match="image condition"):
        ImageTextGuidance().estimate(x, torch.tensor(300), target)
    two = Target(texts=target.texts * 2, null_text=target.null_text)
    with pytest.raises(ValueError, match="weights"):
        TextGuidance().estimate(x, torch.tensor(300), two)
