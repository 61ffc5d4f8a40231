# pyright: reportPrivateImportUsage=false
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionInstructPix2PixPipeline

from csd_nerf.distill import (
    Condition,
    Estimate,
    ImageTextGuidance,
    NoiseSchedule,
    NoiseSource,
    Query,
    SharedNoise,
    Target,
)
from csd_nerf.priors import GaussianPrior, LatentDiffusionPrior, MixturePrior, sample
from csd_nerf.priors.sampling import INDEPENDENT, ddim_timesteps

SCHEDULE = NoiseSchedule.scaled_linear()


class Unguided:
    """The estimate for the target's first prompt as it is."""

    def estimate(self, x_t: torch.Tensor, t: torch.Tensor, target: Target) -> Estimate:
        return Estimate((Query(x_t, Condition(target.texts[0])),), lambda answers: answers[0])


def empty_target(n: int) -> Target:
    text = torch.zeros(n, 1, 3, dtype=torch.float64)
    return Target(texts=(text,), null_text=text)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_it_is_diffusers_instruct_pix2pix_pipeline(edit_folder: Path, edit_prior: LatentDiffusionPrior):
    images = torch.rand(2, 3, 24, 32, generator=seeded(3))
    prompts = ["make it red", "give it a hat"]
    pipeline: Any = StableDiffusionInstructPix2PixPipeline.from_pretrained(edit_folder)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    first = torch.randn(2, 4, 6, 8, generator=seeded())
    reference = pipeline(
        prompts, image=images, latents=first, num_inference_steps=7, guidance_scale=5.0, image_guidance_scale=1.7,
        negative_prompt=["snow", "snow"], eta=0.0, output_type="latent",
    ).images  # fmt: skip

    texts = edit_prior.encode_text([*prompts, "snow"])
    target = Target(
        texts=(texts[:2],), null_text=texts[2:].expand(2, -1, -1), image=edit_prior.encode_condition(images)
    )
    ours = sample(edit_prior, ImageTextGuidance(5.0, 1.7), target, 7, seeded())
    torch.testing.assert_close(ours, reference, rtol=1e-3, atol=1e-3)
    assert edit_prior.calls == 7 and edit_prior.samples == 7 * 3 * 2


@pytest.mark.parametrize(("total", "steps"), [(1000, 1), (1000, 7), (1000, 20), (1000, 50), (1000, 500), (1000, 999),
                                              (1000, 1000), (4, 2), (4, 3), (4, 4)])  # fmt: skip
def test_timesteps_are_those_of_diffusers(total: int, steps: int):
    """All of them at once leave no room for its offset of 1: there diffusers indexes past the schedule's end."""
    scheduler = DDIMScheduler(num_train_timesteps=total, steps_offset=0 if steps == total else 1)
    scheduler.set_timesteps(steps)
    timesteps = ddim_timesteps(total, steps)
    assert timesteps.tolist() == scheduler.timesteps.tolist()
    assert len(set(timesteps.tolist())) == steps and 0 <= int(timesteps.min()) and int(timesteps.max()) < total


def test_a_gaussian_prior_is_sampled_with_its_mean_and_spread():
    """The probability flow of a Gaussian is linear: (x_t - alpha mu) / sqrt(alpha^2 s^2 + sigma^2) stays constant."""
    mean = torch.tensor([1.5, -0.5], dtype=torch.float64)[:, None, None].expand(2, 2, 2)
    prior = GaussianPrior(mean, 0.3, SCHEDULE)
    x = sample(prior, Unguided(), empty_target(4000), 100, seeded(), shape=(2, 2, 2))
    top = ddim_timesteps(1000, 100)[0]
    alpha, sigma = SCHEDULE.alpha(top), SCHEDULE.sigma(top)
    # Sampling starts from N(0, 1) instead of the prior's own noisy distribution, which is known to shift the result.
    shrink = 0.3 / math.sqrt(alpha**2 * 0.3**2 + sigma**2)
    torch.testing.assert_close(x.mean(dim=0), mean - shrink * alpha * mean, rtol=0, atol=0.03)
    torch.testing.assert_close(x.std(dim=0), torch.full_like(mean, shrink), rtol=0.1, atol=0)
    torch.testing.assert_close(x.mean(dim=0), mean, rtol=0, atol=0.06)


def test_more_steps_come_closer_to_the_flow():
    mean = torch.full((1, 2, 2), 0.8, dtype=torch.float64)
    prior = GaussianPrior(mean, 0.5, SCHEDULE)

    def error(steps: int) -> float:
        first = torch.randn(64, 1, 2, 2, generator=seeded(), dtype=torch.float64)
        x = sample(prior, Unguided(), empty_target(64), steps, seeded(), shape=(1, 2, 2))
        top = ddim_timesteps(1000, steps)[0]
        alpha, sigma = SCHEDULE.alpha(top), SCHEDULE.sigma(top)
        exact = mean + 0.5 * (first - alpha * mean) / (alpha**2 * 0.25 + sigma**2).sqrt()
        return float((x - exact).abs().mean())

    assert error(200) < error(50) < error(10)
    assert error(200) < 0.02


def test_samples_fall_into_the_modes_that_the_text_names():
    means = torch.tensor([-2.0, 0.0, 2.0], dtype=torch.float64)[:, None, None, None].expand(3, 1, 2, 2)
    prior = MixturePrior(means, 0.1, torch.ones(3, dtype=torch.float64), SCHEDULE)
    target = Target(texts=(prior.text([2], 200),), null_text=prior.text([], 200))
    x = sample(prior, Unguided(), target, 50, seeded(), shape=(1, 2, 2))
    assert (x - 2).abs().max() < 0.7
    everything = Target(texts=(prior.text([], 200),), null_text=prior.text([], 200))
    x = sample(prior, Unguided(), everything, 50, seeded(), shape=(1, 2, 2))
    assert {round(float(value)) for value in x.mean(dim=(1, 2, 3)) / 2} == {-1, 0, 1}


def test_start_and_strength_keep_what_is_there():
    prior = GaussianPrior(torch.zeros(1, 2, 2, dtype=torch.float64), 1.0, SCHEDULE)
    start = torch.full((50, 1, 2, 2), 3.0, dtype=torch.float64)
    calls: list[tuple[int, int]] = []

    def run(strength: float) -> torch.Tensor:
        calls.clear()
        return sample(prior, Unguided(), empty_target(50), 20, seeded(), start=start, strength=strength,
                      on_step=lambda done, total: calls.append((done, total)))  # fmt: skip

    weak, strong = run(0.1), run(0.8)
    assert calls == [(i, 16) for i in range(1, 17)]
    assert (weak - 3).abs().mean() < 0.5 < (strong - 3).abs().mean()


def test_one_seed_one_result_and_shared_noise_one_sample():
    prior = GaussianPrior(torch.zeros(1, 2, 2, dtype=torch.float64), 1.0, SCHEDULE)

    def run(seed: int, noise: NoiseSource = INDEPENDENT) -> torch.Tensor:
        return sample(prior, Unguided(), empty_target(3), 5, seeded(seed), shape=(1, 2, 2), noise=noise)

    torch.testing.assert_close(run(1), run(1), rtol=0, atol=0)
    assert not torch.allclose(run(1), run(2))
    shared = run(1, SharedNoise())
    torch.testing.assert_close(shared, shared[:1].expand_as(shared))


def test_bad_values_are_refused():
    prior = GaussianPrior(torch.zeros(1, 2, 2, dtype=torch.float64), 1.0, SCHEDULE)
    start = torch.zeros(3, 1, 2, 2, dtype=torch.float64)
    for steps in (0, 1001):
        with pytest.raises(ValueError, match=f"steps={steps}: give 1 to 1000"):
            sample(prior, Unguided(), empty_target(3), steps, seeded(), start=start)
    for strength in (0.0, 1.5):
        with pytest.raises(ValueError, match="strength="):
            sample(prior, Unguided(), empty_target(3), 5, seeded(), start=start, strength=strength)
    with pytest.raises(ValueError, match="together with start"):
        sample(prior, Unguided(), empty_target(3), 5, seeded(), shape=(1, 2, 2), strength=0.5)
    with pytest.raises(ValueError, match="shape of the samples is unknown"):
        sample(prior, Unguided(), empty_target(3), 5, seeded())
