"""The editors that sample: InstructPix2Pix from noise, and Instruct-NeRF2NeRF's update of what is there."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from csd_nerf.distill import (
    Condition,
    EditResult,
    EditSettings,
    ImageTextGuidance,
    IndependentNoise,
    NonFiniteError,
    SharedNoise,
    Target,
    edit_images,
)
from csd_nerf.priors import LatentDiffusionPrior, sample, solver_of
from csd_nerf.priors.sampling import timesteps_from
from tests.distill.analytic import FormulaPrior, seeded

IP2P = EditSettings(editor="ip2p", steps=7, guidance_scale=5.0, image_guidance_scale=1.7)
IN2N = EditSettings(editor="in2n", steps=5)


def pictures(n: int, size: int = 32) -> list[Tensor]:
    return [torch.rand((3, size, size), generator=seeded(i)) for i in range(n)]


def edit(prior: Any, settings: EditSettings, sources: list[Tensor], **more: Any) -> EditResult:
    assert settings.editor is not None
    solve = solver_of(settings.editor)
    return edit_images(prior, sources, "make it red", settings=settings, generator=seeded(), solve=solve, **more)


@pytest.mark.parametrize(("noise", "source"), [("independent", IndependentNoise()), ("shared", SharedNoise())])
def test_ip2p_is_plain_sampling_bit_by_bit(edit_prior: LatentDiffusionPrior, noise: Any, source: Any) -> None:
    sources = pictures(2)
    before = edit_prior.samples
    result = edit(edit_prior, replace(IP2P, noise=noise, keep_detail=0.0), sources, initial=pictures(2)[::-1])
    assert result.network_samples == edit_prior.samples - before == 2 * 7 * 3
    texts = edit_prior.encode_text(["make it red", ""])
    target = Target(
        texts=(texts[:1].expand(2, -1, -1),),
        null_text=texts[1:].expand(2, -1, -1),
        image=edit_prior.encode_condition(torch.stack(sources)),
    )
    expected = sample(edit_prior, ImageTextGuidance(5.0, 1.7), target, 7, seeded(), noise=source)
    assert torch.equal(torch.stack(result.latents), expected)
    assert torch.equal(torch.stack(result.images), edit_prior.decode(expected))


class Ideal(FormulaPrior):
    """Knows one picture, that of its condition; counts the noise levels that it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def encode_condition(self, images: Tensor, *, scaled_sample: torch.Generator | None = None) -> Tensor:
        return self.encode(images)

    def predict_noise(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        self.asked.append(int(t))
        self.samples += len(x_t)
        assert condition.image is not None
        known = condition.image.view(3, -1, *condition.image.shape[1:])[-1].repeat(3, 1, 1, 1)
        return (x_t - self.schedule.alpha(t).float() * known) / self.schedule.sigma(t).float()


@pytest.mark.parametrize("noise", ["shared", "independent"])
def test_in2n_keeps_a_picture_that_an_ideal_prior_knows(noise: Any) -> None:
    prior, sources = Ideal(), pictures(3, 8)
    low = replace(IN2N, t_min=0.02, t_max=0.05, noise=noise)
    result = edit(prior, low, sources)
    kept = prior.encode(torch.stack(sources))
    # abar_0 is not quite 1: the last state has a noise of sigma_0 = 0.03 left, the estimate at the lowest timestep.
    assert (torch.stack(result.latents) - kept).abs().mean() < 0.05
    assert result.network_samples == prior.samples == 3 * 5 * 3


def test_in2n_starts_from_what_is_there_and_ends_at_what_the_prior_knows() -> None:
    """DDIM keeps the noise that an ideal prior sees, (x_t - alpha_t known) / sigma_t, from first to last."""
    prior, sources, now = Ideal(), pictures(1, 8), [torch.zeros(3, 8, 8)]
    result = edit(prior, replace(IN2N, t_min=0.4, t_max=0.4), sources, initial=now)
    start, known = prior.encode(torch.stack(now)), prior.encode(torch.stack(sources))
    generator = seeded()
    torch.randint(400, 401, (), generator=generator)
    eps = torch.randn(start.shape, generator=generator)
    alpha, sigma = (f(torch.tensor([400, 0])).float() for f in (prior.schedule.alpha, prior.schedule.sigma))
    seen = (alpha[0] * start + sigma[0] * eps - alpha[0] * known) / sigma[0]
    torch.testing.assert_close(result.latents[0], (alpha[1] * known + sigma[1] * seen)[0], rtol=1e-4, atol=1e-4)


def test_in2n_draws_its_level_between_the_bounds_and_comes_down_evenly() -> None:
    firsts = set()
    for seed in range(30):
        prior = Ideal()
        settings = replace(IN2N, steps=20)
        edit_images(prior, pictures(1, 8), "x", settings=settings, generator=seeded(seed), solve=solver_of("in2n"))
        assert prior.asked == timesteps_from(prior.asked[0], 20).tolist()
        firsts.add(prior.asked[0])
    assert len(firsts) > 20 and min(firsts) >= 20 and max(firsts) <= 980
    assert min(firsts) < 200 and max(firsts) > 800


@pytest.mark.parametrize(("first", "steps"), [(980, 20), (20, 20), (1, 1), (37, 20), (999, 1)])
def test_timesteps_from_a_level(first: int, steps: int) -> None:
    timesteps = timesteps_from(first, steps).tolist()
    assert timesteps[0] == first and len(set(timesteps)) == len(timesteps) == steps and timesteps[-1] >= 1
    gaps = [a - b for a, b in zip(timesteps, [*timesteps[1:], 0], strict=True)]
    assert max(gaps) - min(gaps) <= 1
    with pytest.raises(ValueError, match=f"steps={first + 1}: give 1 to {first}"):
        timesteps_from(first, first + 1)


@pytest.mark.parametrize("settings", [IP2P, IN2N])
def test_each_picture_is_sampled_as_if_alone(settings: EditSettings) -> None:
    together = edit(FormulaPrior(), settings, pictures(3, 8))
    alone = edit(FormulaPrior(), settings, pictures(1, 8))
    torch.testing.assert_close(together.latents[0], alone.latents[0])


@pytest.mark.parametrize("settings", [IP2P, IN2N])
def test_a_descent_that_is_stopped_or_fails_leaves_the_pictures_as_they_are(settings: EditSettings) -> None:
    sources, steps = pictures(2, 8), []
    result = edit(FormulaPrior(), settings, sources, on_step=lambda done, total: steps.append((done, total)),
                  should_stop=lambda: len(steps) == 2)  # fmt: skip
    assert not result.complete and steps == [(1, settings.steps), (2, settings.steps)]
    assert result.network_samples == 2 * 2 * 3
    assert all(torch.equal(image, source) for image, source in zip(result.images, sources, strict=True))

    class Breaking(FormulaPrior):
        def predict_noise(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
            eps = super().predict_noise(x_t, t, condition)
            if self.calls == 3:
                eps[1::2] = float("nan")
            return eps

    with pytest.raises(NonFiniteError, match="the sample is not finite at step 2, .* particle 1") as caught:
        edit(Breaking(), settings, sources)
    partial = caught.value.partial
    assert partial.network_samples == 3 * 2 * 3
    assert all(torch.equal(image, source) for image, source in zip(partial.images, sources, strict=True))


def test_the_solver_of_another_editor_is_refused() -> None:
    settings = EditSettings(editor="sds", steps=3)
    with pytest.raises(ValueError, match="editor=sds distils"):
        edit_images(FormulaPrior(), pictures(1, 8), "x", settings=settings, generator=seeded(), solve=solver_of("ip2p"))
