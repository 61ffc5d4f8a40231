"""Pictures, grids and walks of a generator; its noise and truncation."""

import itertools

import pytest
import torch

from csd_nerf.images.stylegan import showing
from csd_nerf.images.stylegan.generator import Generator, GeneratorShape, pictures
from csd_nerf.images.stylegan.showing import before_and_after, latents_of, sample, sampled, walk


def generator(seed: int = 0) -> Generator:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = Generator(GeneratorShape((6, 5, 4), style=5, mapping_layers=2)).requires_grad_(False)
    for index in range(len(made.convs)):
        made.get_parameter(f"convs.{index}.noise_strength").fill_(0.3)
    made.measure_mean_w(torch.Generator().manual_seed(0))
    return made


def test_samples_depend_on_their_own_latent_alone() -> None:
    made = generator()
    many, few = sample(made, 20, seed=3), sample(made, 2, seed=3)
    torch.testing.assert_close(many[:2], few)
    assert not torch.allclose(many[0], many[1]) and float(many.min()) >= 0 and float(many.max()) <= 1
    one = sample(made, 2, seed=3, truncation=0.0)
    torch.testing.assert_close(one[0], one[1])


def test_noise_is_fixed_random_or_none() -> None:
    made, z = generator(), latents_of(generator(), 1, 0)
    fixed, none = made(z), made(z, noise="none")
    assert torch.equal(made(z), fixed) and not torch.allclose(fixed, none)
    first, again, other = (made(z, noise="random", generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.allclose(first, other)


def test_a_style_reaches_only_its_layer_and_those_after() -> None:
    """Colours of a resolution take the style after its last convolution's; the next resolution begins with the same."""
    made = generator()
    styles = made.styles(latents_of(made, 1, 0)).clone()
    base = made.synthesise(styles, made.noise("none", 1))
    changed = styles.clone()
    changed[:, -1] += 1
    last = made.synthesise(changed, made.noise("none", 1)) - base
    assert float(last.abs().max()) > 0
    assert made.shape.styles == 6 and made.shape.size == 16


def test_a_grid_has_a_row_for_each_generator() -> None:
    sheet = before_and_after([("before", generator()), ("after", generator(1))], 3, side=32)
    one = before_and_after([("before", generator())], 3, side=32)
    assert sheet.height == one.height * 2 - 6 and sheet.width >= 3 * 32


def test_a_walk_comes_back_to_where_it_began() -> None:
    made = [generator(), generator(1)]
    frames = list(walk(made, stops=3, frames=4, seed=2))
    assert len(frames) == 12 and frames[0].shape == (3, 16, 32)
    expected = torch.cat([pictures(g(latents_of(g, 3, 2))) for g in made], dim=3)
    for stop in range(3):
        torch.testing.assert_close(frames[4 * stop], expected[stop], rtol=1e-4, atol=1e-5)
    near, far = (frames[11] - frames[0]).abs().mean(), (frames[6] - frames[0]).abs().mean()
    assert float(near) < float(far)


def test_pictures_and_frames_are_made_as_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large generator makes few at once; what it shows does not depend on how many."""
    made = generator()
    whole, frames = sample(made, 40, seed=3), list(walk([made, made], stops=3, frames=9))
    assert [len(part) for part in sampled(made, 40)] == [16, 16, 8]
    calls: list[int] = []
    made.to_rgb[0].register_forward_pre_hook(lambda network, inputs: calls.append(len(inputs[0])))
    monkeypatch.setattr(showing, "_PIXELS_PER_CALL", 3 * 16 * 16)
    parts = sampled(made, 40, seed=3)
    assert calls == []
    first = next(parts)
    assert calls == [3] and not first.requires_grad
    torch.testing.assert_close(torch.cat([first, *parts]), whole)
    assert calls == [3] * 13 + [1]
    calls.clear()
    asked = walk([made, made], stops=3, frames=9)
    some = list(itertools.islice(asked, 4))
    assert calls == [3] * 2 * 2, "two calls of three frames, each of both generators"
    torch.testing.assert_close(torch.stack([*some, *asked]), torch.stack(frames))


def test_progress_of_a_walk_counts_all_that_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """An estimate from a part that was made and only begun to be taken would be many times too long."""
    made, computed, heard = generator(), [], []
    made.to_rgb[0].register_forward_pre_hook(lambda network, inputs: computed.append(len(inputs[0])))
    monkeypatch.setattr(showing, "_PIXELS_PER_CALL", 4 * 16 * 16)
    frames = walk([made], stops=2, frames=5, on_part=lambda *counts: heard.append((*counts, sum(computed))))
    assert len(list(frames)) == 10 and heard == [(4, 10, 4), (8, 10, 8), (10, 10, 10)]
