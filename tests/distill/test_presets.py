"""Presets against the papers' and the released code's choices, and settings that are refused."""

import math
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from csd_nerf.distill import (
    Condition,
    EditSettings,
    OptimizeSettings,
    Target,
    check_groups,
    edit_images,
    make_edit_distiller,
    optimize_latents,
)
from tests.distill.analytic import Constant, FormulaPrior, random_target, seeded

COMMON = {"steps": 200, "guidance_scale": 7.5, "lr_decay": 0.9, "lr_decay_every": 20, "kernel": "rbf",
          "baseline": "source", "batch_size": None, "editor": None, "source_prompt": "", "text_t_min": None,
          "text_t_max": None}  # fmt: skip
PAPER = {"noise": "shared", "mixing": "mean", "bandwidth": "median", "repulsion": "unit", "image_condition": "mode",
         "image_guidance_scale": 1.5, "t_min": 0.2, "t_max": 0.5, "lr": 2.0, "keep_detail": 0.0}  # fmt: skip
PRESETS: dict[Any, dict[str, Any]] = {
    "paper": PAPER,
    "released": PAPER | {"noise": "independent", "bandwidth": "released", "image_condition": "scaled-sample",
                         "image_guidance_scale": 5.0, "t_min": 0.02},
    "corrected": PAPER | {"noise": "independent", "mixing": "row", "repulsion": "sigma", "lr": 0.5,
                          "keep_detail": 0.1},
}  # fmt: skip


def squares(n: int, side: int = 8) -> list[Tensor]:
    return [torch.rand((3, side, side), generator=seeded(i)) for i in range(n)]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_field_of_every_preset(preset) -> None:
    assert asdict(EditSettings(preset).resolved()) == {"preset": preset} | COMMON | PRESETS[preset]


@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_given_wins_over_the_preset(preset) -> None:
    other = {"noise": "independent", "mixing": "row", "bandwidth": "released", "repulsion": "sigma",
             "image_condition": "scaled-sample", "image_guidance_scale": 0.0, "t_min": 0.0, "t_max": 0.9,
             "lr": 0.125, "keep_detail": 0.25}  # fmt: skip
    for name, value in other.items():
        settings = EditSettings(preset, **{name: value}).resolved()
        assert asdict(settings) == {"preset": preset} | COMMON | PRESETS[preset] | {name: value}


def released_step(
    prior: FormulaPrior, x: Tensor, target: Target, t: int, eps: Tensor, *, injected: bool = False
) -> Tensor:
    """The authors' code, re-derived with loops: six samples a particle, w_y = 7.5, w_s = 5, autograd repulsion.

    With `injected` the noise is subtracted in place of the source's estimate (CSD Figure 6, random noise).
    """
    abar, n = prior.schedule.alphas_cumprod[t].to(x), len(x)
    assert target.source is not None and target.image is not None
    noisy, deltas = [], []
    for i in range(n):
        sides = []
        for particle, text in ((x[i], target.texts[0][i]), (target.source[i], target.null_text[i])):
            x_t = abar.sqrt() * particle + (1 - abar).sqrt() * eps[i]
            answers = [
                prior.predict_noise(x_t[None], torch.tensor(t), Condition(words[None], picture[None]))[0]
                for words, picture in (
                    (text, target.image[i]),
                    (target.null_text[i], target.image[i]),
                    (target.null_text[i], torch.zeros_like(target.image[i])),
                )
            ]
            sides.append(answers[2] + 7.5 * (answers[0] - answers[1]) + 5.0 * (answers[1] - answers[2]))
            if len(sides) == 1:  # the edited side
                noisy.append(x_t)
        deltas.append(sides[0] - (eps[i] if injected else sides[1]))
    squares = sorted(float((a - b).square().sum()) for a in noisy for b in noisy)
    gamma = math.log(n + 1) / squares[(n * n - 1) // 2]
    gradient = torch.zeros_like(x)
    for i in range(n):
        moving = noisy[i].clone().requires_grad_(True)
        affinity = sum(torch.exp(-gamma * (moving - other).square().sum()) for other in noisy)
        assert isinstance(affinity, Tensor)
        gradient[i] = torch.autograd.grad(affinity, moving)[0]
        for j in range(n):
            gradient[i] += math.exp(-gamma * float((noisy[i] - noisy[j]).square().sum())) * deltas[j]
    return (1 - abar) * gradient / n


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_released_preset_is_the_released_rule(dtype) -> None:
    prior, settings = FormulaPrior(), EditSettings("released", steps=7, lr_decay_every=3)
    target = random_target(4)
    assert target.source is not None
    target = Target(
        texts=(target.texts[0].to(dtype),),
        null_text=target.null_text.to(dtype),
        image=target.source.to(dtype),
        source=target.source.to(dtype),
    )
    assert target.source is not None
    result = optimize_latents(
        make_edit_distiller(prior, settings),
        target.source,
        target,
        OptimizeSettings(steps=7, lr=2.0, lr_decay=0.9, lr_decay_every=3),
        seeded(),
    )
    generator, x = seeded(), target.source.clone()
    for step in range(7):
        t = int(torch.randint(20, 501, (), generator=generator))
        eps = torch.randn(x.shape, generator=generator, dtype=dtype)
        x = x - 2.0 * 0.9 ** (step // 3) * released_step(prior, x, target, t, eps)
    error = (result.latents - x).norm() / (x - target.source).norm()
    assert error < (1e-9 if dtype == torch.float64 else 1e-5)


def released_pictures(prior: FormulaPrior, sources: list[Tensor], prompt: str, steps: int) -> list[Tensor]:
    """What the authors' code does to pictures: one posterior sample is source, start and condition at once."""
    generator = seeded()
    start = prior.encode_condition(torch.stack(sources), scaled_sample=generator)
    text, null = (words[None].expand(len(sources), 2, 3) for words in prior.encode_text([prompt, ""]))
    target = Target(texts=(text,), null_text=null, image=start, source=start)
    x = start.clone()
    for step in range(steps):
        t = int(torch.randint(20, 501, (), generator=generator))
        eps = torch.randn(x.shape, generator=generator)
        x = x - 2.0 * 0.9 ** (step // 3) * released_step(prior, x, target, t, eps)
    return list(prior.decode(x))


@pytest.mark.parametrize("n", [3, 4])
def test_pictures_under_the_released_preset_are_edited_by_the_released_rule(n: int) -> None:
    sources = squares(n)
    settings = EditSettings("released", steps=7, lr_decay_every=3)
    result = edit_images(FormulaPrior(), sources, "make it snow", settings=settings, generator=seeded())
    expected = released_pictures(FormulaPrior(), sources, "make it snow", 7)
    for ours, slow, source in zip(result.images, expected, sources, strict=True):
        torch.testing.assert_close(ours, slow, rtol=0, atol=1e-4)
        assert (slow - source).abs().mean() > 0.05


@pytest.mark.parametrize("preset", PRESETS)
def test_learning_rate_and_its_decay_reach_the_optimiser(preset) -> None:
    """One picture under a score that does not change: x moves by -w(t) s_y (e(y) - e(0)) sum of the learning rates."""
    prior, source = Constant(), squares(1)
    settings = EditSettings(preset, steps=7, guidance_scale=3.0, lr=0.03, lr_decay=0.5, lr_decay_every=3,
                            t_min=0.4, t_max=0.4)  # fmt: skip
    result = edit_images(prior, source, "snow", settings=settings, generator=seeded())
    text, null = prior.encode_text(["snow", ""])[:, 0, 0]
    rates = 0.03 * (3 + 3 * 0.5 + 0.25)
    scaled = seeded() if settings.resolved().image_condition == "scaled-sample" else None
    start = (
        prior.encode(source[0][None])
        if scaled is None
        else prior.encode_condition(source[0][None], scaled_sample=scaled)
    )
    weight = float(prior.schedule.weight(torch.tensor(400)))
    torch.testing.assert_close(result.latents[0], start[0] - rates * weight * 3.0 * (text - null))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t_min": 0.7}, "t_min=0.7 is above t_max=0.5"),
        ({"t_min": math.nan}, "t_min=nan"),
        ({"t_max": 1.5}, "t_max=1.5"),
        ({"guidance_scale": -1.0}, "guidance_scale=-1"),
        ({"guidance_scale": math.nan}, "guidance_scale=nan"),
        ({"guidance_scale": math.inf}, "guidance_scale=inf"),
        ({"image_guidance_scale": -1.0}, "image_guidance_scale=-1"),
        ({"text_t_min": 1.5}, "text_t_min=1.5: give a fraction"),
        ({"text_t_max": -0.1}, "text_t_max=-0.1: give a fraction"),
        ({"text_t_min": 0.6, "text_t_max": 0.4}, "text_t_min=0.6 is above text_t_max=0.4: swap them"),
        ({"image_guidance_scale": math.nan}, "image_guidance_scale=nan"),
        ({"lr": 0.0}, "lr=0"),
        ({"lr": math.nan}, "lr=nan"),
        ({"lr": math.inf}, "lr=inf"),
        ({"lr_decay": math.nan}, "lr_decay=nan"),
        ({"steps": 0}, "steps=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"preset": "released", "batch_size": 2}, "batch_size=2: .* not defined for 2"),
    ],
)
def test_bad_settings_are_refused_before_any_work(change, message) -> None:
    prior = FormulaPrior()
    settings = replace(EditSettings(steps=3), **change)
    with pytest.raises(ValueError, match=message):
        settings.validate()
    with pytest.raises(ValueError, match=message):
        edit_images(prior, squares(4), "snow", settings=settings, generator=seeded())
    assert prior.calls == 0


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("preset", "paper, released, corrected"),
        ("editor", "csd-edit, no-svgd, random-noise, sds, dds, ip2p, in2n"),
        ("kernel", "rbf, independent"),
        ("baseline", "source, noise"),
        ("noise", "shared, independent"),
        ("mixing", "row, mean"),
        ("bandwidth", "median, released"),
        ("repulsion", "sigma, unit"),
        ("image_condition", "mode, scaled-sample"),
    ],
)
def test_unknown_choices_name_the_field_and_the_known_ones(name: str, choices: str) -> None:
    settings = EditSettings()
    object.__setattr__(settings, name, "newest")  # what an unchecked caller would do
    for use in (settings.validate, settings.resolved, lambda: make_edit_distiller(FormulaPrior(), settings)):
        with pytest.raises(ValueError, match=f"{name}='newest' is unknown: choose {choices}"):
            use()


class Untouched(FormulaPrior):
    """Neither its codec nor its network may be asked."""

    def encode(self, images: Tensor) -> Tensor:
        raise AssertionError("encoded")

    def encode_condition(self, images: Tensor, *, scaled_sample: torch.Generator | None = None) -> Tensor:
        raise AssertionError("encoded")

    def predict_noise(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        raise AssertionError("asked")


def test_groups_of_two_are_refused_by_the_released_kernel_before_any_encoding() -> None:
    """Three squares and two strips: the strips are edited by themselves."""
    strips = [torch.rand(3, 4, 16), torch.rand(3, 5, 20)]
    sources = [*squares(3), *strips]
    sizes = [(picture.shape[1], picture.shape[2]) for picture in sources]
    for settings, message in (
        (EditSettings("released"), "preset=released"),
        (EditSettings(bandwidth="released"), "bandwidth=released"),
    ):
        with pytest.raises(ValueError, match=message + ".*2 pictures"):
            edit_images(Untouched(), sources, "snow", settings=settings, generator=seeded())
        with pytest.raises(ValueError, match=message + ".*2 pictures"):
            check_groups(Untouched(), sizes, settings)
    released = EditSettings("released")
    check_groups(Untouched(), sizes[:4], released)
    check_groups(Untouched(), sizes, replace(released, kernel="independent"))
    check_groups(Untouched(), sizes, replace(released, bandwidth="median"))
    check_groups(Untouched(), sizes, replace(released, batch_size=1))
    check_groups(Untouched(), sizes, EditSettings())


@pytest.mark.parametrize("n", [1, 2, 3])
def test_what_the_group_check_lets_through_runs(n: int) -> None:
    for settings in (EditSettings("released", steps=2), EditSettings("released", steps=2, kernel="independent")):
        try:
            check_groups(FormulaPrior(), [(8, 8)] * n, settings)
        except ValueError:
            assert n == 2 and settings.resolved().kernel == "rbf"
            continue
        assert edit_images(FormulaPrior(), squares(n), "snow", settings=settings, generator=seeded()).complete
