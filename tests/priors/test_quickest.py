"""Which form of a network is called, with a clock that the test turns."""

import gc
import weakref

import pytest
import torch

from csd_nerf.priors.quickest import QuickestForm


class Form:
    """Answers with a multiple of its input, and takes its time."""

    def __init__(self, clock: list[float], seconds: float, factor: float = 2.0) -> None:
        self.clock, self.seconds, self.factor, self.calls = clock, seconds, factor, 0

    def __call__(self, inputs: torch.Tensor, timestep: torch.Tensor, **_: object) -> tuple[torch.Tensor]:
        self.calls += 1
        self.clock[0] += self.seconds
        return (self.factor * inputs,)


def call(form: QuickestForm, rows: int, times: int) -> None:
    for _ in range(times):
        (answer,) = form(torch.ones(rows, 3), torch.tensor(5), encoder_hidden_states=torch.ones(rows, 2))
        assert torch.equal(answer, torch.full((rows, 3), 2.0))


@pytest.mark.parametrize(("seconds", "used"), [(0.5, True), (0.99, False), (2.0, False)])
def test_the_quicker_form_is_used_after_some_calls(seconds: float, used: bool):
    clock = [0.0]
    plain, other = Form(clock, 1.0), Form(clock, seconds)
    form = QuickestForm(plain, lambda: other, lambda: clock[0])
    call(form, 2, 4)
    assert (plain.calls, other.calls) == (4, 0)
    call(form, 2, 1)
    assert (plain.calls, other.calls) == (5, 3)
    call(form, 2, 10)
    assert (plain.calls, other.calls) == ((5, 13) if used else (15, 3))


def test_shapes_that_are_called_rarely_are_never_captured():
    clock, made = [0.0], []
    plain = Form(clock, 1.0)
    form = QuickestForm(plain, lambda: made.append(1) or Form(clock, 0.1), lambda: clock[0])
    for rows in range(1, 30):
        call(form, rows, 4)
    assert not made and plain.calls == 29 * 4


def test_every_shape_is_judged_by_itself():
    clock = [0.0]

    class Launches(Form):
        """As quick for many rows as the network is."""

        def __call__(self, inputs: torch.Tensor, timestep: torch.Tensor, **_: object) -> tuple[torch.Tensor]:
            self.seconds = 0.1 if len(inputs) < 10 else 1.0
            return super().__call__(inputs, timestep)

    plain, other = Form(clock, 1.0), Launches(clock, 0.0)
    form = QuickestForm(plain, lambda: other, lambda: clock[0])
    call(form, 2, 10)
    call(form, 50, 10)
    assert plain.calls == 5 + 10 and other.calls == (3 + 5) + 3


def test_forms_that_are_not_used_are_let_go_with_their_memory():
    clock, made = [0.0], []

    def make() -> Form:
        form = Form(clock, 0.1 if len(made) < 3 else 2.0)
        made.append(weakref.ref(form))
        return form

    plain = Form(clock, 1.0)
    form = QuickestForm(plain, make, lambda: clock[0], kept=2)
    for rows in (1, 2, 3, 4):
        call(form, rows, 5)
        call(form, 2, 1)  # the one that is used most stays
    gc.collect()
    assert [one() is not None for one in made] == [False, True, True, False]
    before, calls = plain.calls, [one().calls for one in made if one() is not None]
    for rows in (1, 2, 3, 4):
        call(form, rows, 10)
    assert len(made) == 4  # what was driven out is not made again, over and over
    assert plain.calls == before + 2 * 10
    assert [one().calls for one in made if one() is not None] == [count + 10 for count in calls]


def test_a_form_that_cannot_be_made_or_answers_otherwise_is_told_and_not_used(caplog: pytest.LogCaptureFixture):
    def broken() -> Form:
        raise RuntimeError("out of memory")

    clock = [0.0]
    for make, said in ((broken, "RuntimeError: out of memory"), (lambda: Form(clock, 0.1, 3.0), "answers otherwise")):
        plain = Form(clock, 1.0)
        call(QuickestForm(plain, make, lambda: clock[0]), 2, 12)
        assert plain.calls == 12 and caplog.text.count(said) == 1


def test_a_prior_on_a_cpu_calls_its_network(edit_prior) -> None:
    assert edit_prior._network is edit_prior.unet


def test_a_shape_that_gets_a_third_form_lets_its_second_go():
    clock, held = [0.0], []
    plain, compiled = Form(clock, 1.0), Form(clock, 0.1)

    def captured() -> Form:
        form = Form(clock, 0.5)
        held.append(weakref.ref(form))
        return form

    inner = QuickestForm(plain, captured, lambda: clock[0])
    form = QuickestForm(inner, lambda: compiled, lambda: clock[0], patience=lambda inputs: 10 * len(inputs))
    call(form, 2, 20)
    gc.collect()
    assert len(held) == 1 and held[0]() is not None and compiled.calls == 0
    call(form, 2, 11)
    gc.collect()
    assert held[0]() is None and compiled.calls == 3 + 10
