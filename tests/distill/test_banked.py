"""Kept answers change nothing but what a step costs, and are never taken for those of another question."""

from dataclasses import replace

import pytest
import torch

from csd_nerf.distill import (
    CountingPrior,
    EditSettings,
    MemoryBank,
    OptimizeSettings,
    look_ahead,
    make_edit_distiller,
    optimize_latents,
)
from csd_nerf.distill.banked import question
from csd_nerf.distill.types import Condition, Query, Target
from tests.distill.analytic import FormulaPrior, random_particles, random_target, seeded

STEPS = 4
SETTINGS = EditSettings(steps=STEPS, lr=0.1)
N = 3


def edit(
    bank: MemoryBank | None = None, *, target: Target | None = None, settings: EditSettings = SETTINGS, seed: int = 7
) -> tuple[torch.Tensor, int]:
    """Latents after some steps, and the network samples of a particle and step."""
    prior = CountingPrior(FormulaPrior())
    options = OptimizeSettings(lr=0.1, steps=STEPS, batch_size=settings.batch_size)
    distiller = make_edit_distiller(prior, settings, bank)
    target = target or random_target(N)
    reached = optimize_latents(distiller, random_particles(N), target, options, seeded(seed))
    assert reached.network_samples == prior.samples
    return reached.latents, prior.samples


def test_a_second_edit_of_the_same_pictures_asks_three_samples_instead_of_five():
    bank, (without, all_of_them) = MemoryBank(b"network"), edit()
    first, spent = edit(bank)
    assert torch.equal(first, without) and spent == all_of_them == 5 * N * STEPS
    again, spent = edit(bank)
    assert torch.equal(again, without) and spent == 3 * N * STEPS


@pytest.mark.parametrize("noise", ["shared", "independent"])
def test_another_instruction_and_other_scales_find_the_answers(noise):
    bank, settings = MemoryBank(b"network"), replace(SETTINGS, noise=noise)
    edit(bank, settings=settings)
    target = random_target(N)
    told = replace(target, texts=(target.texts[0] + 1,))
    other = replace(settings, guidance_scale=3.0, image_guidance_scale=4.0)
    expected, _ = edit(target=told, settings=other)
    found, spent = edit(bank, target=told, settings=other)
    assert torch.equal(found, expected) and spent == 3 * N * STEPS


def test_delta_denoising_asks_two_samples_instead_of_four():
    bank = MemoryBank(b"network")
    settings = replace(SETTINGS, editor="dds", source_prompt="a cube")
    target = replace(random_target(N), source_text=random_target(N, seed=3).null_text)
    without, _ = edit(target=target, settings=settings)
    assert edit(bank, target=target, settings=settings)[1] == 4 * N * STEPS
    again, spent = edit(bank, target=target, settings=settings)
    assert torch.equal(again, without) and spent == 2 * N * STEPS


def test_particles_that_are_drawn_find_their_answers_too():
    bank, settings = MemoryBank(b"network"), replace(SETTINGS, batch_size=2)
    edit(bank, settings=settings)
    found, spent = edit(bank, settings=settings)
    assert torch.equal(found, edit(settings=settings)[0]) and spent == 3 * 2 * STEPS


def changed(name: str) -> dict:
    target = random_target(N)
    nudged = {field: getattr(target, field).clone() for field in ("source", "image", "null_text")}
    for values in nudged.values():
        values[1, 0, 0] = torch.nextafter(values[1, 0, 0], torch.tensor(9.0, dtype=values.dtype))
    return {
        "source": {"target": replace(target, source=nudged["source"])},
        "image": {"target": replace(target, image=nudged["image"])},
        "null text": {"target": replace(target, null_text=nudged["null_text"])},
        "noise level": {"settings": replace(SETTINGS, t_max=0.51)},
        "seed": {"seed": 8},
        "noise": {"settings": replace(SETTINGS, noise="shared")},
        "order": {"target": target[torch.tensor([1, 0, 2])]},
    }[name]


@pytest.mark.parametrize("name", ["source", "image", "null text", "noise level", "seed", "noise", "order"])
def test_the_smallest_change_of_what_an_answer_depends_on_is_another_question(name: str):
    """The last bit of one number included."""
    bank = MemoryBank(b"network")
    edit(bank)
    different = changed(name)
    found, spent = edit(bank, **different)
    assert torch.equal(found, edit(**different)[0]) and spent == 5 * N * STEPS


@pytest.mark.parametrize("field", ["image", "null_text", "source"])
def test_what_is_changed_in_place_is_another_question(field: str):
    """Digests of conditions are remembered, for as long as these are what they were."""
    bank, target = MemoryBank(b"network"), random_target(N)
    edit(bank, target=target)
    getattr(target, field)[1, 0, 0] += 1
    found, spent = edit(bank, target=target)
    assert torch.equal(found, edit(target=target)[0]) and spent == 5 * N * STEPS
    assert edit(bank, target=target)[1] == 3 * N * STEPS


def test_one_row_that_stands_for_all_is_as_good_as_all_and_told_from_others():
    x, row = torch.ones(N, 1, 2, 2), torch.rand(1, 4, 3, generator=seeded())

    def key(text: torch.Tensor) -> str:
        return question(b"network", torch.tensor(3), [Query(x, Condition(text))])

    expanded = row.expand(N, -1, -1)
    assert expanded.stride(0) == 0 and key(expanded) == key(expanded.contiguous()) == key(row.repeat(N, 1, 1))
    others = [(row + 1).expand_as(expanded), torch.cat([expanded[1:], row + 1])]
    assert len({key(text) for text in (expanded, *others)}) == 3


def test_another_network_is_another_question():
    one, other = MemoryBank(b"one"), MemoryBank(b"other")
    edit(one)
    other._answers = one._answers
    assert edit(other)[1] == 5 * N * STEPS


def test_a_full_bank_keeps_what_it_has_and_the_result_stays():
    step = 2 * N * 4 * 3 * 5 * 8
    bank = MemoryBank(b"network", limit=step)
    expected, _ = edit(bank)
    found, spent = edit(bank)
    assert torch.equal(found, expected) and spent == (5 * STEPS - 2) * N
    bank.clear()
    assert edit(bank)[1] == 5 * N * STEPS


@pytest.mark.parametrize("noise", ["shared", "independent"])
def test_looking_ahead_asks_exactly_what_the_steps_will_ask(noise):
    settings = replace(SETTINGS, noise=noise)
    bank, prior, ahead = MemoryBank(b"network"), CountingPrior(FormulaPrior()), seeded()
    distiller = make_edit_distiller(prior, settings, bank)
    spent = look_ahead(distiller, torch.zeros_like(random_particles(N)), random_target(N), STEPS, ahead)
    assert spent == prior.samples == 2 * N * STEPS
    assert look_ahead(distiller, random_particles(N), random_target(N), STEPS, seeded()) == 0
    options, made = OptimizeSettings(lr=0.1, steps=STEPS), seeded()
    optimize_latents(distiller, random_particles(N), random_target(N), options, made)
    assert torch.equal(ahead.get_state(), made.get_state())
    found, spent = edit(bank, settings=settings)
    assert torch.equal(found, edit(settings=settings)[0]) and spent == 3 * N * STEPS


def test_looking_ahead_ends_when_it_is_told_to():
    bank, prior = MemoryBank(b"network"), FormulaPrior()
    distiller = make_edit_distiller(prior, SETTINGS, bank)
    spent = look_ahead(
        distiller, random_particles(N), random_target(N), STEPS, seeded(), should_stop=lambda: prior.calls == 2
    )
    assert spent == 2 * 2 * N
    found, spent = edit(bank)
    assert torch.equal(found, edit()[0]) and spent == (5 * STEPS - 2 * 2) * N


def test_looking_ahead_ends_where_the_bank_is_full():
    """What is not kept would be asked twice."""
    bank, prior = MemoryBank(b"network", limit=2 * N * 4 * 3 * 5 * 8), CountingPrior(FormulaPrior())
    distiller = make_edit_distiller(prior, SETTINGS, bank)
    spent = look_ahead(distiller, random_particles(N), random_target(N), STEPS, seeded())
    assert spent == prior.samples == 2 * 2 * N  # one step is kept, the next one finds no room


def test_without_a_bank_there_is_nowhere_to_look_ahead_to():
    distiller = make_edit_distiller(FormulaPrior(), SETTINGS)
    with pytest.raises(ValueError, match="needs a bank"):
        look_ahead(distiller, random_particles(N), random_target(N), 1, seeded())


def test_what_is_injected_is_not_asked_for():
    bank, settings = MemoryBank(b"network"), replace(SETTINGS, editor="random-noise")
    assert edit(bank, settings=settings)[1] == edit(bank, settings=settings)[1] == 3 * N * STEPS
    assert not bank._answers
