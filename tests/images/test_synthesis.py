"""Free latents: the paper's optimiser, an ablation from one noise, resuming, and what cannot work."""

from dataclasses import replace

import pytest
import torch

from csd_nerf.distill import (
    Condition,
    LatentLosses,
    LossWeights,
    NonFiniteError,
    Target,
    UniformTimesteps,
    latent_score_distiller,
)
from csd_nerf.images.synthesis import SynthesisSettings, ablation_of, synthesize
from csd_nerf.images.synthesis_run import prepare_synthesis, with_kernel
from csd_nerf.priors import decoder_features, decoder_of, load_prior
from tests.distill.analytic import FormulaPrior
from tests.tiny_prior import make_tiny_prior

LEVELS = ("up_blocks.0", "up_blocks.1", "up_blocks.2")
FAST = SynthesisSettings(losses=LossWeights(feature_matching=0.1, kl=0.5), steps=4, samples=2, levels=LEVELS)


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    return load_prior(make_tiny_prior(tmp_path_factory.mktemp("prior")), dtype="fp32")


def test_it_is_adamw_on_the_gradient_of_equation_4(prior) -> None:
    """Against a loop written by hand with torch's own AdamW."""
    result = synthesize(prior, "a red cube", FAST, seed=5)
    generator = torch.Generator().manual_seed(5)
    v = torch.randn(2, 4, 8, 8, generator=generator).requires_grad_()
    optimizer = torch.optim.AdamW([v], lr=0.1)
    text, null = (one[None].expand(2, -1, -1) for one in prior.encode_text(["a red cube", ""]))
    distiller = latent_score_distiller(prior, guidance_scale=7.5, timesteps=UniformTimesteps(0.2, 0.98))
    losses = LatentLosses(with_kernel(distiller, "rbf", "independent"), FAST.losses, decoder_of(prior, LEVELS))
    for _ in range(4):
        v.grad = losses(v, Target((text,), null, torch.zeros(2, 4, 8, 8)), generator).gradient
        optimizer.step()
    torch.testing.assert_close(result.checkpoint.latents[0], v.detach())
    torch.testing.assert_close(result.images[0], prior.decode(v.detach()))
    assert result.complete and result.images.shape == (1, 2, 3, 32, 32) and result.checkpoint.network_samples == 16


def test_without_a_kernel_samples_do_not_depend_on_each_other(prior) -> None:
    """The first sample's draws are first in the generator's stream only for one step."""
    settings = replace(FAST, steps=1, losses=LossWeights(feature_matching=0.0, kl=0.0), kernel="independent")
    moved = prepare_synthesis(prior, "a red cube", settings, seed=1)
    other = prepare_synthesis(prior, "a red cube", settings, seed=1)
    other.start[1] += 3
    other.__post_init__()
    a, b = moved.run(), other.run()
    assert torch.equal(a.images[0, 0], b.images[0, 0])
    listening = replace(settings, kernel="rbf", lr=0.05)
    alone = synthesize(prior, "a red cube", replace(settings, lr=0.05), seed=1)
    together = synthesize(prior, "a red cube", listening, seed=1)
    assert not torch.equal(alone.checkpoint.latents, together.checkpoint.latents)


def test_large_pictures_are_matched_one_by_one(prior, monkeypatch) -> None:
    """A decoder that keeps all of its features for several pictures of 512 x 512 at once fills a GPU."""
    settings, seen = replace(FAST, steps=1, samples=3), []
    hook = prior.autoencoder.vae.decoder.conv_in.register_forward_hook(
        lambda _, inputs, __: seen.append(len(inputs[0])) if torch.is_grad_enabled() else None
    )
    whole = synthesize(prior, "a red cube", settings, seed=1)
    monkeypatch.setattr(decoder_features, "MATCHED_PIXELS", 2 * 32 * 32)
    parts = synthesize(prior, "a red cube", settings, seed=1)
    hook.remove()
    assert seen == [6, 2, 2, 2] and decoder_features.matched_together(512, 512) == 1
    torch.testing.assert_close(parts.checkpoint.latents, whole.checkpoint.latents)


def test_the_regulariser_keeps_samples_apart_too(prior) -> None:
    """A sample that is far off does not change what the regulariser wants of the others."""
    settings = replace(FAST, steps=1, losses=LossWeights(feature_matching=0.0, kl=5.0), kernel="independent", lr=0.01)
    moved = prepare_synthesis(prior, "a red cube", settings, seed=1)
    other = prepare_synthesis(prior, "a red cube", settings, seed=1)
    other.start[1] *= 30
    other.__post_init__()
    a, b = moved.run(), other.run()
    first = [result.checkpoint.networks["state"][0]["exp_avg"][0] for result in (a, b)]
    torch.testing.assert_close(first[0], first[1])


def test_an_ablation_is_four_runs_from_the_same_draws(prior) -> None:
    result = synthesize(prior, "make it red", FAST, ablation=True, seed=2)
    assert result.names == ("LSD", "LSD + FM", "LSD + KL", "LSD + FM + KL") and result.checkpoint.step == 16
    for number, losses in enumerate(ablation_of(FAST.losses).values()):
        alone = synthesize(prior, "make it red", replace(FAST, losses=losses), seed=2)
        assert torch.equal(alone.images[0], result.images[number])
        record = result.losses[number]
        assert (record.feature_matching is not None, record.kl is not None) == (
            losses.feature_matching > 0,
            losses.kl > 0,
        )
    assert not torch.equal(result.images[0], result.images[3])


@pytest.mark.parametrize("stop_at", [2, 4, 7])
def test_a_stopped_run_goes_on_to_the_same_end(prior, stop_at: int) -> None:
    whole = synthesize(prior, "make it red", FAST, ablation=True, seed=2)
    made = []
    part = synthesize(
        prior,
        "make it red",
        FAST,
        ablation=True,
        seed=2,
        on_step=lambda done, total: made.append((done, total)),
        should_stop=lambda: len(made) == stop_at,
    )
    assert made[-1] == (stop_at, 16) and part.checkpoint.step == stop_at and not part.complete
    rest = synthesize(prior, "make it red", FAST, ablation=True, seed=2, resume=part.checkpoint)
    assert torch.equal(rest.images, whole.images) and rest.complete
    assert rest.checkpoint.network_samples == whole.checkpoint.network_samples
    assert rest.losses == whole.losses and None not in rest.losses


def test_kl_draws_the_latents_to_unit_variance(prior) -> None:
    far = replace(FAST, steps=40, losses=LossWeights(feature_matching=0.0, kl=0.0, lsd=1.0), guidance_scale=30.0)
    near = replace(far, losses=LossWeights(feature_matching=0.0, kl=30.0, lsd=1.0))
    spread = [synthesize(prior, "make it red", one).checkpoint.latents.std() for one in (far, near)]
    assert abs(spread[1] - 1) < 0.5 * abs(spread[0] - 1)


def test_a_failure_keeps_what_was_reached(prior, monkeypatch) -> None:
    calls = []
    original = type(prior).predict_noise

    def breaking(self, x_t, t, condition: Condition):
        calls.append(1)
        eps = original(self, x_t, t, condition)
        return eps if len(calls) < 3 else eps * float("nan")

    monkeypatch.setattr(type(prior), "predict_noise", breaking)
    with pytest.raises(NonFiniteError, match="at step 2") as caught:
        synthesize(prior, "make it red", FAST)
    assert caught.value.partial.checkpoint.step == 2 and torch.isfinite(caught.value.partial.images).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"samples": 0}, "samples=0"),
        ({"steps": 0}, "steps=0"),
        ({"lr": 0.0}, "lr=0.0"),
        ({"lr_end": 2.0}, "lr_end=2.0"),
        ({"t_min": 0.9, "t_max": 0.5}, "t_min=0.9 is above t_max=0.5"),
        ({"guidance_scale": float("nan")}, "guidance_scale=nan"),
        ({"losses": LossWeights(feature_matching=0.0, kl=1.0, lsd=0.0)}, "the prompt is not heard"),
        ({"levels": ("up_blocks.9",)}, "up_blocks.9"),
    ],
)
def test_what_cannot_work_is_said_at_once(prior, change, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("(", "\\(")):
        synthesize(prior, "make it red", replace(FAST, **change))


@pytest.mark.parametrize("name", ["kernel", "noise"])
def test_names_that_are_none_are_refused_where_types_are_not_checked(name: str) -> None:
    settings = replace(FAST)
    object.__setattr__(settings, name, "RBF")
    with pytest.raises(ValueError, match=f"{name}=RBF is unknown"):
        settings.validate()


def test_prompts_ablations_and_priors_that_cannot_work(prior) -> None:
    with pytest.raises(ValueError, match="prompt is empty"):
        synthesize(prior, "  ", FAST)
    with pytest.raises(ValueError, match="ablation"):
        synthesize(prior, "make it red", replace(FAST, losses=LossWeights(feature_matching=0.0, kl=1.0)), ablation=True)
    with pytest.raises(ValueError, match="works on pixels.*lambda_fm=0"):
        synthesize(FormulaPrior(), "make it red", FAST)
