"""Layers: the pipeline of LDP Figure 9 against one written by hand, the opacity's losses, files for a compositor."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from csd_nerf.distill import LatentLosses, LossWeights, NonFiniteError, Target, UniformTimesteps, latent_score_distiller
from csd_nerf.images.checkpoint import Checkpoint
from csd_nerf.images.layers import LayerResult, LayerSettings, edit_layers, write_layers
from csd_nerf.images.layers_edit import LayeredPicture, prepare_layers
from csd_nerf.images.layers_network import SkipNetwork
from csd_nerf.images.picture_files import Picture, read_picture, write_picture
from csd_nerf.priors import decoder_features, load_prior
from tests.distill.analytic import FormulaPrior
from tests.tiny_prior import make_tiny_prior

ONLY_LSD = LossWeights(feature_matching=0.0, kl=0.0)
FAST = LayerSettings(losses=ONLY_LSD, steps=4, width=8, scales=3)


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    return load_prior(make_tiny_prior(tmp_path_factory.mktemp("prior")), dtype="fp32")


def picture(height: int = 32, width: int = 32) -> torch.Tensor:
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.stack([x, y, 0.5 + 0.3 * torch.sin(9 * x * y)])


def half(height: int = 32, width: int = 32) -> torch.Tensor:
    mask = torch.zeros(height, width)
    mask[:, : width // 2] = 1
    return mask


class TestNetwork:
    @pytest.mark.parametrize("size", [(32, 32), (33, 21), (8, 8), (2, 3), (100, 9)])
    def test_any_size_gives_a_layer_of_that_size(self, size) -> None:
        torch.manual_seed(0)
        layer = SkipNetwork(8, 4, 5)(torch.rand(1, 3, *size))
        assert layer.shape == (1, 4, *size) and (layer > 0).all() and (layer < 1).all()

    def test_text2live_has_seven_scales_of_128_channels(self) -> None:
        network = SkipNetwork()
        convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
        assert len(convolutions) == 7 * 5 + 1
        assert sum(one.stride == (2, 2) for one in convolutions) == 7
        # Down: 3x3 of 3 or 128 channels and 3x3 of 128; across: 1x1 to 4; up: 3x3 of 132 and 1x1 of 128.
        weights = sum(one.weight.numel() for one in convolutions)
        by_hand = (3 + 13 * 128) * 128 * 9 + 3 * 4 + 6 * 128 * 4 + 7 * (132 * 128 * 9 + 128 * 128) + 4 * 128
        assert weights == by_hand

    def test_every_weight_is_reached(self) -> None:
        torch.manual_seed(0)
        network = SkipNetwork(8, 4, 3)
        (network(picture()[None]) * torch.rand(1, 4, 32, 32)).sum().backward()
        assert all(weight.grad is not None and weight.grad.any() for weight in network.parameters() if weight.ndim > 1)

    def test_a_layer_can_cover_all_of_a_picture(self) -> None:
        """Were its last features normalised, it could not: 0.85 on the average, and next to nothing in one place."""
        torch.manual_seed(0)
        network = SkipNetwork(32, 4, 4)
        shown = nn.functional.interpolate(torch.rand(1, 3, 9, 27), size=(36, 108), mode="bilinear")
        optimizer = torch.optim.Adam(network.parameters(), lr=0.0025)
        for _ in range(40):
            optimizer.zero_grad()
            (1 - network(shown)[:, 3]).sum().backward()
            optimizer.step()
        assert network(shown)[:, 3].min() > 0.9

    def test_sizes_below_one_are_refused(self) -> None:
        with pytest.raises(ValueError, match="scales=0"):
            SkipNetwork(8, 4, 0)


def test_composite_encode_add_decode_composite(prior) -> None:
    """The particles are v and E(I''), as LDP Section 5.3 says, and the result is D(v) over the picture."""
    work = prepare_layers(prior, picture(), "make it red", FAST)
    with torch.no_grad():
        work.shown.residual.normal_(generator=torch.Generator().manual_seed(1))
    rendering = work.shown(torch.Generator())
    vae, image, scale = prior.autoencoder.vae, picture()[None], prior.autoencoder.scaling_factor
    layer, alpha = work.shown.network(image).split([3, 1], dim=1)

    def encode(x):
        return vae.encode(2 * x - 1).latent_dist.mode() * scale

    v = encode(alpha * layer + (1 - alpha) * image) + work.shown.residual
    decoded = vae.decode(v / scale).sample / 2 + 0.5
    final = alpha * decoded + (1 - alpha) * image
    torch.testing.assert_close(rendering.latents, torch.cat([v, encode(final)]), rtol=1e-4, atol=1e-5)
    assert rendering.extra is None
    result = work.run()
    expected = result.alpha * result.layer + (1 - result.alpha) * picture()
    torch.testing.assert_close(result.composite, expected)
    assert result.complete and result.checkpoint.network_samples == 4 * 2 * 2


def test_the_first_step_is_adams_on_the_chain_rule(prior) -> None:
    """Both parameter sets get the gradient of LSD and of the mask's loss, by plain autograd of a stand-in loss."""
    mask, settings = half(), replace(FAST, steps=1, lambda_mask=7.0)
    work = prepare_layers(prior, picture(), "make it red", settings, mask, seed=3)
    by_hand = prepare_layers(prior, picture(), "make it red", settings, mask, seed=3)
    rendering = by_hand.shown(torch.Generator())
    text, null = (one[None].expand(2, -1, -1) for one in prior.encode_text(["make it red", ""]))
    distiller = latent_score_distiller(prior, guidance_scale=7.5, timesteps=UniformTimesteps(0.2, 0.98))
    target = Target((text,), null, torch.zeros_like(rendering.latents.detach()))
    step = LatentLosses(distiller, ONLY_LSD)(rendering.latents, target, torch.Generator().manual_seed(3))
    _, alpha = by_hand.shown.first_layer()
    ((rendering.latents * step.gradient).sum() + 7.0 * (alpha[0, 0] - mask).abs().mean()).backward()
    work.run()
    for ours, theirs in zip(work.shown.parameters(), by_hand.shown.parameters(), strict=True):
        # What comes before a normalisation has a gradient of 0 but for rounding: the bound is that of all together.
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-4)
    moved = by_hand.shown.residual
    torch.optim.Adam([moved], lr=0.02).step()
    torch.testing.assert_close(work.shown.residual, moved)
    pairs = zip(work.shown.network.parameters(), by_hand.shown.network.parameters(), strict=True)
    change = [float((a - b).detach().abs().max()) for a, b in pairs]
    assert max(change) == pytest.approx(0.0025, rel=1e-3)  # Adam's first step is the rate, whatever the gradient


def test_a_strong_mask_is_what_the_opacity_becomes(prior) -> None:
    settings = replace(FAST, steps=120, lambda_mask=1e5, lr=0.01, guide="latent")
    result = edit_layers(prior, picture(), "make it red", settings, mask=half())
    assert result.alpha[:, :14].min() > 0.8 and result.alpha[:, 18:].max() < 0.2
    torch.testing.assert_close(result.composite[:, :, 20:], picture()[:, :, 20:], rtol=0, atol=0.25)


def test_sparsity_is_text2lives(prior) -> None:
    settings = replace(FAST, lambda_sparsity=3.0)
    shown = prepare_layers(prior, picture(), "make it red", settings).shown
    _, alpha = shown.first_layer()
    expected = 3.0 * (alpha.mean() + (2 / (1 + torch.exp(-5 * alpha)) - 1).mean())
    torch.testing.assert_close(shown(torch.Generator()).extra, expected)
    masked = prepare_layers(prior, picture(), "make it red", settings, half()).shown
    torch.testing.assert_close(masked(torch.Generator()).extra, (masked.first_layer()[1][0, 0] - half()).abs().mean())


def test_without_a_rate_there_is_no_residual(prior) -> None:
    result = edit_layers(prior, picture(), "make it red", replace(FAST, latent_lr=0.0))
    assert not result.checkpoint.latents.any()
    assert edit_layers(prior, picture(), "make it red", FAST).checkpoint.latents.any()


@pytest.mark.parametrize("editor", ["csd", "csd-edit", "no-svgd", "dds"])
def test_all_losses_with_every_editor(prior, editor: str) -> None:
    source = "a cube" if editor == "dds" else ""
    losses = LossWeights(feature_matching=0.1, kl=0.5)
    settings = replace(FAST, editor=editor, source_prompt=source, losses=losses)
    result = edit_layers(prior, picture(40, 60), "make it red", settings)
    assert result.composite.shape == (3, 40, 60) and result.alpha.shape == (40, 60)
    record = result.losses
    assert record is not None and record.lsd and record.kl and record.feature_matching
    samples = 2 * {"csd": 2, "csd-edit": 5, "no-svgd": 5, "dds": 4}[editor]
    assert result.checkpoint.network_samples == 4 * samples


def test_large_pictures_are_matched_one_by_one(prior, monkeypatch) -> None:
    settings, seen = replace(FAST, steps=1, losses=LossWeights(feature_matching=0.1, kl=0.0)), []
    features = decoder_features.DecoderFeatures.__call__
    monkeypatch.setattr(
        decoder_features.DecoderFeatures, "__call__", lambda self, v: seen.append(len(v)) or features(self, v)
    )
    edit_layers(prior, picture(), "make it red", settings)
    monkeypatch.setattr(decoder_features, "MATCHED_PIXELS", 2 * 32 * 32)
    edit_layers(prior, picture(), "make it red", settings)
    assert seen == [4, 2, 2]


def test_a_stopped_edit_goes_on_to_the_same_layer(prior) -> None:
    settings, made = replace(FAST, steps=20), []
    whole = edit_layers(prior, picture(), "make it red", settings, mask=half(), seed=2)
    part = edit_layers(
        prior,
        picture(),
        "make it red",
        settings,
        mask=half(),
        seed=2,
        on_step=lambda done, total: made.append((done, total)),
        should_stop=lambda: len(made) == 19,
    )
    assert made[-1] == (19, 20) and not part.complete and part.losses is not None
    rest = edit_layers(prior, picture(), "make it red", settings, mask=half(), seed=2, resume=part.checkpoint)
    assert rest.losses == whole.losses != part.losses
    assert torch.equal(rest.layer, whole.layer) and torch.equal(rest.alpha, whole.alpha) and rest.complete


def test_a_failure_keeps_what_was_reached(prior, monkeypatch) -> None:
    calls, original = [], type(prior).predict_noise

    def breaking(self, x_t, t, condition):
        calls.append(1)
        return original(self, x_t, t, condition) * (1 if len(calls) < 3 else float("inf"))

    monkeypatch.setattr(type(prior), "predict_noise", breaking)
    with pytest.raises(NonFiniteError, match="at step 2") as caught:
        edit_layers(prior, picture(), "make it red", FAST)
    assert isinstance(caught.value.partial, LayerResult) and torch.isfinite(caught.value.partial.composite).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": 0}, "steps=0"),
        ({"lr": 0.0}, "lr=0.0"),
        ({"latent_lr": -1.0}, "latent_lr=-1.0"),
        ({"lambda_mask": -1.0}, "lambda_mask=-1.0"),
        ({"lambda_sparsity": -1.0}, "lambda_sparsity=-1.0"),
        ({"t_min": 0.9, "t_max": 0.1}, "t_min=0.9 is above"),
        ({"editor": "dds"}, "source_prompt"),
        ({"editor": "csd", "guide": "latent"}, "editor=csd has nothing to mix"),
        ({"width": 0}, "width=0"),
        ({"source_prompt": "a cube"}, "has no meaning for editor=lsd"),
        ({"losses": LossWeights(feature_matching=0.0, kl=1.0, lsd=0.0)}, "the prompt is not heard"),
    ],
)
def test_settings_that_cannot_work(prior, change, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        edit_layers(prior, picture(), "make it red", replace(FAST, **change))


@pytest.mark.parametrize("name", ["editor", "guide"])
def test_names_that_are_none_are_refused_where_types_are_not_checked(name: str) -> None:
    settings = replace(FAST)
    object.__setattr__(settings, name, "best")
    with pytest.raises(ValueError, match=f"{name}=best is unknown"):
        settings.validate()


def test_pictures_masks_and_priors_that_cannot_work(prior, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="prompt is empty"):
        edit_layers(prior, picture(), " ", FAST)
    with pytest.raises(ValueError, match="30 x 30 pixels, less than the 32 x 32"):
        edit_layers(prior, picture(30, 30), "make it red", FAST)
    with pytest.raises(ValueError, match="mask has 16 x 32 pixels, but the picture has 32 x 32"):
        edit_layers(prior, picture(), "make it red", FAST, mask=torch.ones(32, 16))
    with pytest.raises(ValueError, match="mask is empty"):
        edit_layers(prior, picture(), "make it red", FAST, mask=torch.zeros(32, 32))
    with pytest.raises(ValueError, match=r"has values outside \[0, 1\]"):
        edit_layers(prior, picture(), "make it red", FAST, mask=torch.full((32, 32), 2.0))
    with pytest.raises(ValueError, match="works on pixels .* take a latent diffusion model$"):
        edit_layers(FormulaPrior(), picture(), "make it red", FAST)
    plain = load_prior(make_tiny_prior(tmp_path / "plain", in_channels=4), dtype="fp32")
    with pytest.raises(ValueError, match="has no image input"):
        edit_layers(plain, picture(), "make it red", replace(FAST, editor="csd-edit"))


class TestFiles:
    def result(self) -> LayerResult:
        generator = torch.Generator().manual_seed(0)
        layer, alpha = torch.rand(3, 9, 7, generator=generator), torch.rand(9, 7, generator=generator)
        alpha[:3] = 0
        state = Checkpoint(1, torch.zeros(1, 4, 2, 2), generator.get_state())
        return LayerResult(layer, alpha, alpha * layer + (1 - alpha) * picture(9, 7), None, state)

    @pytest.mark.parametrize(("bits", "level"), [(8, 1 / 255), (16, 1 / 65535)])
    def test_the_layer_over_the_picture_is_the_composite(self, tmp_path: Path, bits: int, level: float) -> None:
        result = self.result()
        write_layers(tmp_path, result, Picture(picture(9, 7), bits=bits))
        layer, composite = read_picture(tmp_path / "layer.png"), read_picture(tmp_path / "composite.png")
        assert layer.alpha is not None and composite.alpha is None and layer.bits == composite.bits == bits
        again = layer.alpha * layer.image + (1 - layer.alpha) * picture(9, 7)
        assert (again - composite.image).abs().max() < 1.6 * level
        torch.testing.assert_close(layer.image, result.layer, rtol=0, atol=level)  # straight: colours as they are
        alpha = read_picture(tmp_path / "alpha.png").image
        torch.testing.assert_close(alpha[0], layer.alpha, rtol=0, atol=1e-6)

    def test_sixteen_bits_are_written_as_png_only(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="as .png only"):
            write_picture(tmp_path / "a.jpg", picture(9, 7), bits=16)

    def test_over_a_transparent_picture_it_is_porter_and_duffs_over(self, tmp_path: Path) -> None:
        result, below = self.result(), torch.linspace(0, 1, 7).expand(9, 7)
        write_layers(tmp_path, result, Picture(picture(9, 7), below))
        composite = read_picture(tmp_path / "composite.png")
        top = Image.open(tmp_path / "layer.png")
        stacked = np.dstack([picture(9, 7).permute(1, 2, 0).numpy(), below.numpy()])
        bottom = Image.fromarray((stacked * 255).round().astype(np.uint8), "RGBA")
        expected = np.asarray(Image.alpha_composite(bottom, top)) / 255
        opacity = composite.alpha.numpy()
        assert np.abs(opacity - expected[..., 3]).max() < 2 / 255
        visible = opacity > 0.1
        assert np.abs(composite.image.permute(1, 2, 0).numpy() - expected[..., :3])[visible].max() < 8 / 255


def test_the_parameters_are_those_of_network_and_residual(prior) -> None:
    shown = prepare_layers(prior, picture(), "make it red", FAST).shown
    assert isinstance(shown, LayeredPicture)
    assert len(list(shown.parameters())) == len(list(shown.network.parameters())) + 1
