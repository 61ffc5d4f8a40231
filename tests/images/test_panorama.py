"""Pictures of any size: the update rule, what a picture keeps, baselines, and how an edit is stopped and resumed."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from csd_nerf.distill import Condition, EditSettings, NonFiniteError, Target
from csd_nerf.images.layout import panorama_layout
from csd_nerf.images.panorama import PanoramaEditor, edit_panorama
from csd_nerf.images.patches import scatter
from csd_nerf.images.regions import Region
from tests.distill.analytic import FormulaPrior, seeded
from tests.distill.test_presets import released_step

SETTINGS = EditSettings(steps=6, batch_size=4, lr_decay_every=2)


def picture(height: int, width: int, seed: int = 3) -> Tensor:
    return torch.rand((3, height, width), generator=seeded(seed))


@pytest.mark.parametrize(("editor", "samples"), [("csd-edit", 5), ("random-noise", 3)])
def test_released_preset_is_the_released_rule_on_a_canvas(editor: PanoramaEditor, samples: int) -> None:
    """Patches of 4 x 4 latents every 2 of them, one posterior sample of the whole, gradients over counts."""
    prior, source, steps = FormulaPrior(), picture(12, 20), 5
    settings = EditSettings("released", steps=steps, batch_size=4, lr_decay_every=2)
    result = edit_panorama(prior, source, "make it red", editor=editor, settings=settings, stride=2, seed=7)
    generator = seeded(7)
    start = prior.encode_condition(source[None], scaled_sample=generator)[0]
    text, null = prior.encode_text(["make it red", ""])
    corners = [(top, left) for top in (0, 2) for left in (0, 2, 4, 6)]
    canvas = start.clone()
    for step in range(steps):
        chosen = [corners[i] for i in torch.randperm(len(corners), generator=generator)[:4]]
        t = int(torch.randint(20, 501, (), generator=generator))
        eps = torch.randn((4, 4, 4, 4), generator=generator)
        here, there = (torch.stack([whole[:, y : y + 4, x : x + 4] for y, x in chosen]) for whole in (canvas, start))
        rows = Target(texts=(text[None].expand(4, 2, 3),), null_text=null[None].expand(4, 2, 3), image=there,
                      source=there)  # fmt: skip
        gradients = released_step(prior, here, rows, t, eps, injected=editor == "random-noise")
        total, count = torch.zeros_like(canvas), torch.zeros(6, 10)
        for (y, x), gradient in zip(chosen, gradients, strict=True):
            total[:, y : y + 4, x : x + 4] += gradient
            count[y : y + 4, x : x + 4] += 1
        canvas = canvas - 2.0 * 0.9 ** (step // 2) * total / count.clamp(min=1)
    error = (result.checkpoint.latents - canvas).norm() / (canvas - start).norm()
    assert error < 1e-5
    assert result.checkpoint.network_samples == steps * 4 * samples and result.patches == 8


@pytest.mark.parametrize("size", [(8, 8), (13, 31), (31, 13), (5, 40), (3, 3)])
@pytest.mark.parametrize("wrap", [False, True])
def test_any_size_comes_back(size: tuple[int, int], wrap: bool) -> None:
    source = picture(*size)
    result = edit_panorama(FormulaPrior(), source, "make it red", settings=SETTINGS, wrap=wrap)
    assert result.image.shape == source.shape and result.complete
    assert 0 <= result.image.min() and result.image.max() <= 1
    assert torch.isfinite(result.image).all()


def test_around_the_circle_it_does_not_matter_where_the_picture_was_cut() -> None:
    """All patches in each step and one noise for all: only the neighbourhoods count."""
    settings = EditSettings(steps=4, batch_size=1000, noise="shared")
    source, shift = picture(16, 32), 4  # pixels: two strides of a latent, with which patches are everywhere
    here = edit_panorama(FormulaPrior(), source, "make it red", settings=settings, stride=1, wrap=True)
    there = edit_panorama(
        FormulaPrior(), source.roll(shift, dims=2), "make it red", settings=settings, stride=1, wrap=True
    )
    torch.testing.assert_close(there.image, here.image.roll(shift, dims=2), rtol=1e-4, atol=1e-5)
    flat = edit_panorama(
        FormulaPrior(), source.roll(shift, dims=2), "make it red", settings=settings, stride=1, wrap=False
    )
    assert (flat.image - here.image.roll(shift, dims=2)).abs().max() > 1e-3


@pytest.mark.parametrize("keep", [0.0, 0.1])
def test_what_no_region_concerns_is_not_touched_and_not_paid_for(keep: float) -> None:
    """It is the source itself, or what the autoencoder makes of it."""
    prior, source, settings = FormulaPrior(), picture(16, 64), replace(SETTINGS, keep_detail=keep)
    region = Region("make it snow", box=(0, 0, 12, 16))
    result = edit_panorama(prior, source, regions=[region], settings=settings, stride=2)
    rebuilt = prior.decode(prior.encode(source[None]))[0]
    assert (rebuilt - source).abs().mean() > 0.05
    untouched = source if keep else rebuilt
    change = (result.image - untouched).abs().amax(dim=(0, 1))
    # Patches are 8 pixels wide: those that begin at 12 or later do not see the region.
    assert change[24 if keep else 20 :].max() < 1e-6 and change[:12].min() > 1e-4
    whole = edit_panorama(prior, source, "make it snow", settings=settings, stride=2)
    assert result.patches < whole.patches


@pytest.mark.parametrize(
    ("editor", "settings", "prompt"),
    [
        ("dds", replace(SETTINGS, source_prompt="a red cube"), "a red cube"),
        ("no-svgd", SETTINGS, "all but grey"),
    ],
)
def test_an_instruction_that_says_what_the_baseline_says_changes_nothing(editor, settings, prompt: str) -> None:
    """The rest of a patch that a region touches is edited by that instruction."""
    prior, source = FormulaPrior(), picture(8, 24)

    def changed(words: str) -> float:
        result = edit_panorama(
            prior, source, regions=[Region(words, box=(0, 0, 4, 8))], negative_prompt="all but grey",
            editor=editor, settings=settings, stride=2,
        )  # fmt: skip
        return float((result.checkpoint.latents - prior.encode(source[None])[0]).abs().max())

    assert changed(prompt) < 1e-5 and changed("a blue cube") > 1e-3


def test_two_regions_and_the_rest_get_their_own_instructions() -> None:
    """Without the kernel, what only patches inside a region show is as if its instruction were the only one."""
    source = picture(16, 64)
    regions = [Region("make it snow", box=(0, 0, 24, 16)), Region("make it night", box=(40, 0, 64, 16))]

    def run(prompt: str, *parts: Region) -> Tensor:
        settings = replace(SETTINGS, batch_size=1000)
        return edit_panorama(
            FormulaPrior(), source, prompt, regions=parts, editor="no-svgd", settings=settings, stride=1
        ).image

    both = run("make it red", *regions)
    for columns, prompt in (
        (slice(0, 18), "make it snow"),
        (slice(46, 64), "make it night"),
        (slice(30, 34), "make it red"),
    ):
        own = run(prompt)
        torch.testing.assert_close(both[..., columns], own[..., columns], rtol=1e-4, atol=1e-5)
    between = both[..., 20:28]
    for prompt in ("make it snow", "make it red"):
        assert (between - run(prompt)[..., 20:28]).abs().max() > 1e-3


def test_overlapping_patches_see_one_canvas_noise() -> None:
    seen: list[Tensor] = []

    class Watching(FormulaPrior):
        def predict_noise(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
            seen.append(x_t)
            return super().predict_noise(x_t, t, condition)

    def distance(noise: str) -> float:
        seen.clear()
        settings = EditSettings(steps=1, batch_size=1000, noise=noise)  # type: ignore[arg-type]
        edit_panorama(Watching(), picture(8, 12), "make it red", settings=settings, stride=2, seed=1)
        first, second = seen[0][0], seen[0][1]  # lefts 0 and 2, of the noisy source or particle alike
        return float((first[:, :, 2:] - second[:, :, :2]).abs().max())

    assert distance("canvas") < 1e-6
    assert distance("independent") > 0.1 and distance("shared") > 0.1


@pytest.mark.parametrize("noise", ["shared", "canvas"])
def test_a_stopped_edit_goes_on_exactly_where_it_was(noise) -> None:
    settings, source = replace(SETTINGS, noise=noise), picture(16, 24)

    def run(**more: object):
        return edit_panorama(FormulaPrior(), source, "make it red", settings=settings, seed=5, **more)  # type: ignore[arg-type]

    whole, done = run(), []
    part = run(on_step=lambda step, total: done.append((step, total)), should_stop=lambda: len(done) == 2)
    assert not part.complete and part.checkpoint.step == 2 and done == [(1, 6), (2, 6)]
    assert not torch.equal(part.image, whole.image) and torch.isfinite(part.image).all()
    rest = run(resume=part.checkpoint)
    assert rest.complete and torch.equal(rest.image, whole.image)
    assert rest.checkpoint.network_samples == whole.checkpoint.network_samples


@pytest.mark.parametrize("every", [3, 4, 5])
def test_pictures_on_the_way_and_the_result(every: int) -> None:
    seen = []
    result = edit_panorama(
        FormulaPrior(),
        picture(16, 24),
        "make it red",
        settings=SETTINGS,
        on_picture=lambda step, image: seen.append((step, image)),
        picture_every=every,
    )
    assert [step for step, _ in seen] == [*range(every, 6, every), 6]
    assert torch.equal(seen[-1][1], result.image) and not torch.equal(seen[0][1], result.image)


def test_a_network_that_breaks_leaves_what_was_reached() -> None:
    class Breaking(FormulaPrior):
        def predict_noise(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
            return super().predict_noise(x_t, t, condition) * (float("nan") if self.calls == 4 else 1.0)

    with pytest.raises(NonFiniteError, match="step 3") as caught:
        edit_panorama(Breaking(), picture(16, 24), "make it red", settings=SETTINGS)
    reached = caught.value.partial
    assert reached.checkpoint.step == 3 and not reached.complete and torch.isfinite(reached.image).all()


def test_the_border_is_seen_about_as_often_as_the_middle() -> None:
    prior = FormulaPrior()  # patches of 4 x 4 latents
    layout = panorama_layout(prior, 32, 64, stride=1)
    plain = panorama_layout(prior, 32, 64, stride=1, even=False)
    assert layout.patches == plain.patches == len(plain.corners)

    def sights(corners: Tensor) -> Tensor:
        count = torch.zeros(16, 32)
        for top, left in corners.tolist():
            count[top : top + 4, left : left + 4] += 1
        return count

    assert sights(plain.corners).max() / sights(plain.corners).min() == 16
    even = sights(layout.corners)
    assert even[0, 10] / even[8, 10] == 3 / 4 and even.max() / even[8, 10] <= 36 / 16
    # What is left is made up for by weights, which no place takes far above those of one visit.
    assert layout.fading is not None and plain.fading is None
    weights = layout.fading.weights(layout.corners, (4, 4))
    total, _ = scatter(weights, layout.corners, 16, 32)
    torch.testing.assert_close(total, torch.full_like(total, len(layout.corners) * 16 / (16 * 32)))
    assert weights.max() < 4
    # On average a pixel is optimised as often as asked for.
    steps = layout.steps(4, sights=100)
    assert steps * 4 * 16 / (16 * 32) == pytest.approx(100, rel=0.01)
    assert panorama_layout(prior, 8, 8).steps(4, sights=100) == 100


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"prompt": " "}, "prompt is empty"),
        ({"stride": 5}, "stride=5"),
        ({"stride": 0}, "stride=0"),
        ({"settings": EditSettings(steps=0)}, "steps=0"),
        ({"settings": EditSettings("released", batch_size=2)}, "batch_size=2"),
        ({"editor": "dds"}, "source_prompt"),
    ],
)
def test_what_cannot_work_is_said_at_once(arguments, said: str) -> None:
    prior = FormulaPrior()
    with pytest.raises(ValueError, match=said):
        edit_panorama(prior, picture(16, 24), **{"prompt": "make it red", **arguments})
    assert prior.calls == 0


@pytest.mark.parametrize("editor", ["no-svgd", "random-noise", "sds"])
def test_every_ablation_runs_and_differs(editor: PanoramaEditor) -> None:
    ours, theirs = (
        edit_panorama(FormulaPrior(), picture(16, 24), "make it red", editor=one, settings=SETTINGS).image
        for one in ("csd-edit", editor)
    )
    assert not torch.equal(ours, theirs)
