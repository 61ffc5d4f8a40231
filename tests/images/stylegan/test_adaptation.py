"""Adaptation to a prompt: which weights train, how gradients are bounded, what the regulariser pulls towards."""

import copy
from pathlib import Path

import pytest
import torch

from csd_nerf.distill import (
    Condition,
    LatentLosses,
    LossWeights,
    SourceScore,
    Target,
    TextGuidance,
    UniformTimesteps,
    latent_score_distiller,
)
from csd_nerf.images.running import Hooks
from csd_nerf.images.stylegan import adaptation
from csd_nerf.images.stylegan.adaptation import adapt
from csd_nerf.images.stylegan.bounds import GuidedLosses, clip_at_percentile
from csd_nerf.images.stylegan.generated import GeneratedLatents, trained_parameters
from csd_nerf.images.stylegan.generator import Generator, GeneratorShape
from csd_nerf.images.stylegan.settings import AdaptSettings
from csd_nerf.priors import LatentDiffusionPrior, decoder_features, load_prior
from csd_nerf.priors.decoder_features import decoder_of
from tests.tiny_prior import make_tiny_prior

PROMPT = "make the cube blue"


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> LatentDiffusionPrior:
    found = load_prior(make_tiny_prior(tmp_path_factory.mktemp("prior"), 4, 4), device="cpu")
    assert isinstance(found, LatentDiffusionPrior)
    return found


def generator(levels: int = 3) -> Generator:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made = Generator(GeneratorShape((6, 5, 4, 3)[:levels], style=5, mapping_layers=1)).requires_grad_(False)
    for index in range(len(made.convs)):
        made.get_parameter(f"convs.{index}.noise_strength").fill_(0.1)
    return made


def settings(**changes) -> AdaptSettings:
    losses = LossWeights(feature_matching=changes.pop("fm", 0.0), kl=changes.pop("kl", 0.0))
    return AdaptSettings(**{"losses": losses, "steps": 4, "samples": 2, "guidance_scale": 3.0, **changes})


def test_fusion_trains_convolutions_from_8_pixels_up_and_no_bias(prior: LatentDiffusionPrior) -> None:
    source = generator()
    kept = copy.deepcopy(source.state_dict())
    adapted = adapt(source, prior, PROMPT, settings(fm=1.0, kl=0.1)).generator
    assert all(torch.equal(value, kept[name]) for name, value in source.state_dict().items())
    moved = {name for name, value in adapted.state_dict().items() if not torch.equal(value, kept[name])}
    parts = ("conv.weight", "conv.affine.weight", "noise_strength")
    assert moved == {f"convs.{i}.{part}" for i in (1, 2, 3, 4) for part in parts}


def test_the_other_choices_train_more() -> None:
    made = generator()
    sizes = {which: len(list(trained_parameters(made, which))) for which in ("fusion", "synthesis", "all")}
    assert sizes["synthesis"] == 1 + 5 * 5 and sizes["all"] == len(list(made.parameters())) > sizes["synthesis"]


def test_a_stopped_adaptation_goes_on_to_the_same_generator(prior: LatentDiffusionPrior) -> None:
    options = settings(fm=0.5, kl=0.1, directional=0.5)
    whole = adapt(generator(), prior, PROMPT, options, seed=3)
    states: list = []
    hooks = Hooks(on_state=lambda done, state: states.append(state()) if done == 2 else None)
    adapt(generator(), prior, PROMPT, options, seed=3, hooks=hooks)
    stopped = adapt(generator(), prior, PROMPT, options, seed=3, hooks=Hooks(should_stop=_after(2)))
    assert stopped.outcome.checkpoint.step == 2 and not stopped.outcome.complete
    for before in (stopped.outcome.checkpoint, states[0]):
        resumed = adapt(generator(), prior, PROMPT, options, seed=3, before=before)
        assert resumed.outcome.complete
        expected = whole.generator.state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in resumed.generator.state_dict().items())
    # 2 samples x (2 branches + 4 of the regulariser) x 4 steps
    assert whole.outcome.checkpoint.network_samples == 2 * 6 * 4


def _after(steps: int):
    asked = iter(range(100))
    return lambda: next(asked) >= steps


def test_particles_listen_to_each_other_under_the_rbf_kernel(prior: LatentDiffusionPrior) -> None:
    alone, together = (adapt(generator(), prior, PROMPT, settings(kernel=k)) for k in ("independent", "rbf"))
    one = adapt(generator(), prior, PROMPT, settings(kernel="rbf", samples=1))
    same = adapt(generator(), prior, PROMPT, settings(kernel="independent", samples=1))
    name = "convs.1.conv.weight"
    assert not torch.equal(alone.generator.state_dict()[name], together.generator.state_dict()[name])
    torch.testing.assert_close(one.generator.state_dict()[name], same.generator.state_dict()[name])


def test_features_of_large_pictures_are_matched_one_by_one(prior: LatentDiffusionPrior, monkeypatch) -> None:
    """Activations of a decoder at 512 pixels, of each picture twice, would fill a GPU."""
    seen: list[int] = []

    def counted(prior: LatentDiffusionPrior):
        decoder = decoder_of(prior)
        return lambda latents: seen.append(len(latents)) or decoder(latents)

    monkeypatch.setattr(adaptation, "decoder_of", counted)
    options = settings(fm=1.0, steps=1, samples=3)
    whole = adapt(generator(), prior, PROMPT, options).steps[0].losses
    monkeypatch.setattr(decoder_features, "MATCHED_PIXELS", 2 * prior.size**2)
    parts = adapt(generator(), prior, PROMPT, options).steps[0].losses
    assert seen == [6, 2, 2, 2]
    assert whole.feature_matching is not None and parts.feature_matching is not None
    for name, value in vars(whole.feature_matching).items():
        assert getattr(parts.feature_matching, name) == pytest.approx(value, rel=1e-4)


def test_each_pictures_gradient_is_clipped_at_its_own_percentile() -> None:
    gradient = (
        torch.randn(3, 3, 5, 7, generator=torch.Generator().manual_seed(0))
        * torch.tensor([1.0, 10, 0.1])[:, None, None, None]
    )
    found = clip_at_percentile(gradient, 0.95)
    for before, after in zip(gradient, found, strict=True):
        limit = before.abs().flatten().sort().values[99]  # the 100th of 105
        torch.testing.assert_close(after, before.clamp(-limit, limit))
        assert int((before.abs() > limit).sum()) == 5
    assert torch.equal(clip_at_percentile(gradient, 1.0), gradient)


def test_the_gradient_into_a_picture_is_clipped_on_its_way(prior: LatentDiffusionPrior) -> None:
    """The same gradient into the latents reaches the weights as that of the clipped picture gradient."""
    source = generator(4)
    shown = GeneratedLatents(source, prior, settings(percentile=80.0))
    latents = shown(torch.Generator().manual_seed(0)).latents
    weights = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    latents.backward(weights)
    found = [p.grad for p in shown.parameters()]

    random = torch.Generator().manual_seed(0)
    z = torch.randn(2, 5, generator=random)
    noise = shown.adapted.noise("random", 2, random)
    images = shown.adapted.synthesise(shown.adapted.styles(z), noise).clamp(-1, 1)
    detached = images.detach().requires_grad_()
    prior.autoencoder.encode_attached(detached / 2 + 0.5).backward(weights)
    captured = torch.stack(
        [
            g.clamp(-(limit := g.abs().flatten().sort().values[-(-8 * g.numel() // 10) - 1]), limit)
            for g in detached.grad
        ]
    )
    expected = torch.autograd.grad(images, list(shown.parameters()), captured)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


class Caught:
    """Keeps the regulariser's gradient."""

    def __init__(self, before: torch.Tensor) -> None:
        self.before: torch.Tensor | None = before
        self.gradient = torch.empty(0)

    def pull(self, gradient: torch.Tensor) -> None:
        self.gradient = gradient


def test_the_regulariser_is_the_difference_of_scores_at_the_timestep_of_the_step(prior: LatentDiffusionPrior) -> None:
    random = torch.Generator().manual_seed(4)
    now, before = torch.randn(2, 4, 8, 8, generator=random), torch.randn(2, 4, 8, 8, generator=random)
    text, null = (prior.encode_text([words]).expand(2, -1, -1) for words in (PROMPT, ""))
    target = Target((text,), null)
    lsd = latent_score_distiller(prior, guidance_scale=3.0, timesteps=UniformTimesteps(0.02, 0.98))
    pull = type(lsd)(**{**vars(lsd), "baseline": SourceScore(TextGuidance(3.0))})
    base = LatentLosses(lsd, LossWeights(feature_matching=0.0, kl=0.0))

    def guided(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        a, b = (prior.predict_noise(x, t, Condition(words)) for words in (null, text))
        return a + 3.0 * (b - a)

    drawn = set()
    for seed in range(5):
        caught = Caught(before)
        found = GuidedLosses(base, None, 0.7, pull, caught)(now, target, torch.Generator().manual_seed(seed))
        random = torch.Generator().manual_seed(seed)
        t = torch.randint(20, 981, (), generator=random)
        alpha, sigma = prior.schedule.alpha(t), prior.schedule.sigma(t)
        eps = torch.randn(now.shape, generator=random)
        torch.testing.assert_close(
            found.gradient, (sigma**2 * (guided(alpha * now + sigma * eps, t) - eps)).float(), rtol=1e-4, atol=1e-5
        )
        torch.randint(0, 1, (), generator=random)
        other = torch.randn(now.shape, generator=random)
        noised = (alpha * v + sigma * other for v in (now, before))
        one, two = (guided(x_t, t) for x_t in noised)
        torch.testing.assert_close(caught.gradient, (0.7 * sigma**2 * (one - two)).float(), rtol=1e-4, atol=1e-5)
        assert found.network_samples == 4 + 8 and found.t == int(t)
        drawn.add(int(t))
    assert len(drawn) == 5
    at_home, bounded = Caught(now), Caught(before)
    GuidedLosses(base, None, 0.7, pull, at_home)(now, target, torch.Generator().manual_seed(5))
    assert float(at_home.gradient.abs().max()) == 0
    step = GuidedLosses(base, 0.01, 0.7, pull, bounded)(now, target, torch.Generator().manual_seed(5))
    for gradient in (step.gradient, bounded.gradient):
        assert float(gradient.abs().max()) == pytest.approx(0.01, rel=1e-4), "the weight is inside of the bound"


def test_the_regularisers_gradient_is_not_clipped_in_the_pictures(prior: LatentDiffusionPrior) -> None:
    """Weights get J^T (clip(E^T base) + E^T pull), with J of the pictures and E of the encoder."""
    source = generator(4)
    shown = GeneratedLatents(source, prior, settings(percentile=80.0, directional=0.5))
    latents = shown(torch.Generator().manual_seed(0)).latents
    assert shown.before is not None and not shown.before.requires_grad
    torch.testing.assert_close(shown.before, latents)
    base, pull = (torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    shown.pull(pull)
    latents.backward(base)
    found = [p.grad for p in shown.parameters()]

    random = torch.Generator().manual_seed(0)
    z = torch.randn(2, 5, generator=random)
    noise = shown.adapted.noise("random", 2, random)
    images = shown.adapted.synthesise(shown.adapted.styles(z), noise).clamp(-1, 1)
    detached = images.detach().requires_grad_()
    encoded = prior.autoencoder.encode_attached(detached / 2 + 0.5)
    by_base, by_pull = (torch.autograd.grad(encoded, detached, g, retain_graph=True)[0] for g in (base, pull))
    whole = clip_at_percentile(by_base, 0.8) + by_pull
    expected = torch.autograd.grad(images, list(shown.parameters()), whole)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(whole, clip_at_percentile(by_base + by_pull, 0.8), atol=1e-4)


@pytest.mark.parametrize("levels", [2, 4, 5])
def test_pictures_are_brought_to_the_priors_size(prior: LatentDiffusionPrior, levels: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        source = Generator(GeneratorShape((4,) * levels, style=5, mapping_layers=1))
    latents = GeneratedLatents(source, prior, settings())(torch.Generator().manual_seed(0)).latents
    assert latents.shape == (2, 4, 8, 8) and latents.requires_grad


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "steps=0"),
        ({"samples": 0}, "samples=0"),
        ({"lr": 0.0}, "lr=0.0"),
        ({"t_min": 0.6}, "t_min=0.6, t_max=0.5"),
        ({"clamp": 0.0}, "clamp=0.0"),
        ({"percentile": 101.0}, "percentile=101.0"),
        ({"directional": -1.0}, "directional=-1.0"),
        ({"losses": LossWeights(feature_matching=0.0, kl=1.0, lsd=0.0)}, "lsd=0.0, feature_matching=0.0: give one"),
    ],
)
def test_settings_that_cannot_work_are_named(changes: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        AdaptSettings(**changes)


def test_an_empty_prompt_is_refused(prior: LatentDiffusionPrior, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the prompt is empty"):
        adapt(generator(), prior, "  ", settings())
