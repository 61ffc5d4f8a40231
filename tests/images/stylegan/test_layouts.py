"""Both published layouts: written from their definitions, read, and compared with what their authors' code computes."""

import pytest
import torch

from csd_nerf.images.stylegan.layouts import CheckpointError, layout_of, read_generator, write_generator
from tests.images.stylegan import formats

MADE = {"rosinality": formats.rosinality, "nvidia": formats.nvidia}
COMPUTED = {"rosinality": formats.pictures_of_rosinality, "nvidia": formats.pictures_of_nvidia}


def latents(n: int = 2) -> torch.Tensor:
    return torch.randn(n, formats.STYLE, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("layout", MADE)
def test_a_checkpoint_makes_the_pictures_of_its_authors_code(layout: str) -> None:
    weights = MADE[layout]()
    assert layout_of(weights, "a") == layout
    generator = read_generator(weights, "a").double()
    assert generator.shape.channels == formats.CHANNELS and generator.shape.size == 16
    assert (generator.shape.style, generator.shape.mapping_layers) == (formats.STYLE, formats.MAPPING)
    torch.testing.assert_close(
        generator(latents().double()), COMPUTED[layout](weights, latents()), rtol=1e-6, atol=1e-6
    )


def test_truncation_draws_towards_the_stored_mean() -> None:
    weights = formats.rosinality()
    found = read_generator(weights, "a").double()(latents().double(), truncation=0.6)
    torch.testing.assert_close(found, formats.pictures_of_rosinality(weights, latents(), 0.6), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("layout", MADE)
def test_what_is_written_is_what_was_read(layout) -> None:
    weights = MADE[layout](3)
    again = write_generator(read_generator(weights, "a"), layout)
    assert set(again) == set(weights)
    for name, value in weights.items():
        assert again[name].shape == value.shape, name
        torch.testing.assert_close(again[name], value, msg=name)


def test_a_generator_goes_from_one_layout_to_the_other_and_back() -> None:
    generator = read_generator(formats.nvidia(4), "a")
    other = read_generator(write_generator(generator, "rosinality"), "b")
    assert torch.equal(other(latents()), generator(latents()))
    back = write_generator(other, "nvidia")
    assert all(torch.equal(back[name], value) for name, value in formats.nvidia(4).items() if "filter" not in name)


@pytest.mark.parametrize("layout", MADE)
def test_a_missing_mean_is_measured_and_missing_noise_drawn(layout: str) -> None:
    weights = MADE[layout]()
    some = {name: value for name, value in weights.items() if "noise_const" not in name and "noises." not in name}
    some = {name: value for name, value in some.items() if name not in ("latent_avg", "mapping.w_avg")}
    generator = read_generator(some, "a")
    z = torch.randn(20_000, formats.STYLE, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(generator.mean_w, generator.mapping(z).mean(dim=0), rtol=0, atol=0.05)
    # The same whenever it is read: a state to --resume from knows its generator by its weights.
    state = torch.get_rng_state()
    again = read_generator(some, "a").state_dict()
    assert all(torch.equal(value, again[name]) for name, value in generator.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state), "the caller's random numbers are left alone"


def without(layout: str, drop: str) -> dict[str, torch.Tensor]:
    return {name: value for name, value in MADE[layout]().items() if name != drop}


def without_colours(*sides: int) -> dict[str, torch.Tensor]:
    dropped = tuple(f"synthesis.b{side}.torgb." for side in sides)
    return {name: value for name, value in formats.nvidia().items() if not name.startswith(dropped)}


def changed(layout: str, name: str, value: torch.Tensor) -> dict[str, torch.Tensor]:
    return {**MADE[layout](), name: value}


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (
            without("rosinality", "convs.1.activate.bias"),
            "rosinality layout, 16 x 16 pixels. lacks convs.1.activate.bias",
        ),
        (without("nvidia", "synthesis.b8.conv0.affine.bias"), "lacks synthesis.b8.conv0.affine.bias"),
        (without("nvidia", "mapping.fc0.weight"), "nvidia layout. lacks 'mapping.fc0.weight'"),
        (changed("nvidia", "synthesis.b8.other.weight", torch.ones(1)), "has synthesis.b8.other.weight, which this"),
        (
            {**without_colours(4, 8), "synthesis.b8.skip.weight": torch.ones(1)},
            r"a\.pt .nvidia layout. has synthesis\.b8\.skip: .*'resnet'; only 'skip'",
        ),
        (without_colours(4, 8), r"lacks synthesis\.b4\.torgb, synthesis\.b8\.torgb: .*'orig', .*only 'skip'"),
        (without_colours(16), r"lacks synthesis\.b16\.torgb: .*'orig', or a part of one"),
        (
            changed("nvidia", "mapping.embed.weight", torch.ones(7, 3)),
            "has mapping.embed.weight: generators of classes",
        ),
        (
            changed("rosinality", "convs.1.activate.bias", torch.ones(9)),
            r"convs.1.activate.bias has the shape \(9,\), the other weights need \(5,\)",
        ),
        (changed("rosinality", "to_rgb1.bias", torch.full((1, 3, 1, 1), torch.nan)), "to_rgb1.bias.*not finite"),
        (changed("rosinality", "convs.0.conv.blur.kernel", torch.ones(4, 4)), "blur.kernel is another filter"),
        (changed("nvidia", "mapping.fc0.weight", torch.ones(7, 12)), "takes 12 numbers and gives 7"),
        (changed("nvidia", "mapping.fc0.weight", torch.ones(7)), r"mapping.fc0.weight has the shape \(7,\), where 2"),
        (changed("nvidia", "synthesis.b4.const", torch.ones(())), r"b4.const has the shape \(\), where 3 dimensions"),
        (changed("rosinality", "input.input", torch.ones(3)), r"input.input has the shape \(3,\), where 4 dimensions"),
        (changed("rosinality", "input.input", torch.ones(1, 0, 4, 4)), r"input.input has the shape \(1, 0, 4, 4\)"),
        (
            changed("rosinality", "convs.1.conv.weight", torch.ones(())),
            r"convs.1.conv.weight has the shape \(\), where",
        ),
        (
            {"synthesis.L0_36_512.weight": torch.ones(1)},
            "no layout that is known.*synthesis.L0_36_512.weight.*StyleGAN3",
        ),
        ({"b64.conv0.weight": torch.ones(1), "b4.out.weight": torch.ones(1)}, "b4.out.weight, b64.*discriminator"),
        ({f"layer{i}": torch.ones(1) for i in range(7)}, "layer0, layer1, layer2, layer3 and 3 more"),
        ({}, "It has no keys"),
    ],
)
def test_what_is_wrong_is_said_by_key(weights: dict[str, torch.Tensor], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        read_generator(weights, "a.pt")
