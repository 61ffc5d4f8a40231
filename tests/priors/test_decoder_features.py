"""Features against forward hooks on the real decoders."""

# pyright: reportPrivateImportUsage=false
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor

from csd_nerf.distill import FeatureDecoder, feature_matching
from csd_nerf.priors.autoencoder import Autoencoder
from csd_nerf.priors.decoder_features import DecoderFeatures

CPU = torch.device("cpu")
TAESD = Path(__file__).resolve().parents[3] / "shared/data/taesd"


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def kl_codec(dtype: torch.dtype = torch.float32, **changes: Any) -> Autoencoder:
    options: dict[str, Any] = {"block_out_channels": (8, 8, 8, 16), "down_block_types": ("DownEncoderBlock2D",) * 4,
               "up_block_types": ("UpDecoderBlock2D",) * 4, "norm_num_groups": 4, "scaling_factor": 0.4,
               "shift_factor": 0.3, "force_upcast": False, **changes}  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Autoencoder(AutoencoderKL(**options), device=CPU, dtype=dtype)


def tiny_codec() -> Autoencoder:
    options: dict[str, Any] = {"encoder_block_out_channels": (4,) * 4, "decoder_block_out_channels": (4,) * 4,
               "num_encoder_blocks": (1, 1, 1, 1), "num_decoder_blocks": (2, 1, 2, 1)}  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Autoencoder(AutoencoderTiny(**options), device=CPU, dtype=torch.float32)


def layers_of(codec: Autoencoder) -> dict[str, torch.nn.Module]:
    """Where each level ends in the network itself; for the tiny one counted by hand from the options above."""
    decoder = codec.vae.decoder
    if codec.has_posterior:
        names = {"conv_in": decoder.conv_in, "mid_block": decoder.mid_block}
        return names | {f"up_blocks.{i}": block for i, block in enumerate(decoder.up_blocks)}
    # conv, act | block, block, up, conv | block, up, conv | block, block, up, conv | block | conv
    places = {"conv_in": 1, "up_blocks.0": 5, "up_blocks.1": 8, "up_blocks.2": 12, "up_blocks.3": 13}
    return {name: decoder.layers[place] for name, place in places.items()}


def decode_with_hooks(codec: Autoencoder, latents: Tensor) -> dict[str, Tensor]:
    """Run the whole decoder as diffusers does, and keep what leaves each level."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _, __, output: found.update({name: output})

    handles = [layer.register_forward_hook(keep(name)) for name, layer in layers_of(codec).items()]
    codec.vae.decode(latents / codec.scaling_factor + codec.shift_factor)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("make", [kl_codec, tiny_codec, lambda: kl_codec(use_post_quant_conv=False)])
def test_every_level_is_what_passes_there_when_diffusers_decodes(make):
    codec, latents = make(), draw(2, 4, 3, 5)
    expected = decode_with_hooks(codec, latents)
    names = tuple(reversed(expected))
    features = DecoderFeatures(codec, names)(latents)
    for name, found in zip(names, features, strict=True):
        torch.testing.assert_close(found, expected[name], msg=lambda text, name=name: f"{name}: {text}")
    assert expected["up_blocks.2"].shape[-2:] == (24, 40)


@pytest.mark.parametrize("make", [kl_codec, tiny_codec])
@pytest.mark.parametrize("deepest", [0, 1, 2])
def test_nothing_deeper_than_the_deepest_level_runs(make, deepest: int):
    codec = make()
    features = DecoderFeatures(codec, [f"up_blocks.{i}" for i in range(deepest + 1)])
    ran: list[str] = []
    for name, layer in layers_of(codec).items():
        layer.register_forward_hook(lambda _, __, ___, name=name: ran.append(name))
    features(draw(1, 4, 2, 2))
    wanted = [name for name in layers_of(codec) if name <= f"up_blocks.{deepest}"]
    assert ran == wanted and f"up_blocks.{deepest}" in ran


def test_three_levels_are_the_default_and_stop_before_the_last_block():
    features = DecoderFeatures(kl_codec())
    assert isinstance(features, FeatureDecoder)
    assert [tuple(level.shape) for level in features(draw(1, 4, 2, 2))] == [(1, 16, 4, 4), (1, 8, 8, 8), (1, 8, 16, 16)]


@pytest.mark.parametrize("make", [kl_codec, tiny_codec])
def test_the_gradient_into_the_latents_is_that_of_the_decoder_itself(make):
    codec, latents = make(), draw(2, 4, 3, 5)
    ours, theirs = latents.clone().requires_grad_(), latents.clone().requires_grad_()
    for level in DecoderFeatures(codec)(ours):
        level.square().mean().backward(retain_graph=True)
    hooked = decode_with_hooks(codec, theirs)
    torch.stack([hooked[f"up_blocks.{i}"].square().mean() for i in range(3)]).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert ours.grad.abs().min() > 0
    assert all(parameter.grad is None for parameter in codec.vae.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_ends_at_the_edge_and_keeps_the_gradient(dtype: torch.dtype):
    v, d = draw(1, 4, 4, 4), draw(1, 4, 4, 4, seed=1)
    alpha = torch.tensor(0.8)
    exact = feature_matching(DecoderFeatures(kl_codec()), v, d, alpha).gradient
    features = DecoderFeatures(kl_codec(dtype))
    assert all(level.dtype == torch.float32 for level in features(v))
    half = feature_matching(features, v, d, alpha).gradient
    assert half.dtype == torch.float32
    assert (half - exact).norm() < 0.1 * exact.norm()


def test_somebody_elses_autocast_changes_nothing():
    features, latents = DecoderFeatures(kl_codec()), draw(1, 4, 2, 2)
    expected = features(latents)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(features(latents), expected, rtol=0, atol=0)


@pytest.mark.parametrize("levels", [(), ("up_blocks.4",), ("mid", "up_blocks.0"), ("up_blocks.0", "up_blocks.0")])
def test_levels_that_are_not_there_are_refused(levels: tuple[str, ...]):
    with pytest.raises(
        ValueError, match="AutoencoderKL decoder: choose from conv_in, mid_block, up_blocks.0, .*blocks.3"
    ):
        DecoderFeatures(kl_codec(), levels)
    with pytest.raises(ValueError, match="AutoencoderTiny decoder: choose from conv_in, up_blocks.0"):
        DecoderFeatures(tiny_codec(), ("mid_block",))


@pytest.mark.skipif(not TAESD.is_dir(), reason="no TAESD weights here")
def test_feature_matching_with_a_trained_decoder_points_as_the_residual_does():
    """The control is what naive autograd gives: with v' detached it ascends, with the residual detached it is weak."""
    codec = Autoencoder(AutoencoderTiny.from_pretrained(TAESD), device=CPU, dtype=torch.float32)
    features = DecoderFeatures(codec)
    smooth = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0)),
                                             size=(64, 64), mode="bicubic").clamp(0, 1)  # fmt: skip
    v, d = codec.encode(smooth), 0.5 * draw(1, 4, 8, 8)
    assert [level.shape[-1] for level in features(v)] == [16, 32, 64]

    def cosine(gradient: Tensor) -> float:
        return float(torch.nn.functional.cosine_similarity(gradient.flatten(), d.flatten(), dim=0))

    # At alpha = 0 the sum of both sides is left, at alpha = -1 the one with v' detached.
    eq_2, both, one = (feature_matching(features, v, d, torch.tensor(a)).gradient for a in (0.9, 0.0, -1.0))
    assert cosine(eq_2) > 0.3 and cosine(one) < -0.2
    assert both.norm() < 0.7 * eq_2.norm()
