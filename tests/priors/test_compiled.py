"""When a network is compiled."""

import pytest
import torch

from csd_nerf.priors.compiled import BREAK_EVEN, SWITCH, calls_that_pay, compiled_where_worth
from csd_nerf.priors.quickest import QuickestForm


@pytest.mark.parametrize(
    ("device", "asked", "tried"), [("cuda", "", True), ("cuda", "1", True), ("cuda", "0", False), ("cpu", "1", False)]
)
def test_it_is_for_gpus_and_can_be_switched_off(device: str, asked: str, tried: bool, monkeypatch):
    monkeypatch.setenv(SWITCH, asked)
    network = torch.nn.Identity()
    form = compiled_where_worth(network, network, torch.device(device))
    assert isinstance(form, QuickestForm) if tried else form is network


def test_another_value_of_the_switch_is_refused(monkeypatch):
    monkeypatch.setenv(SWITCH, "yes")
    with pytest.raises(ValueError, match="CSD_COMPILE=yes: set it to 0"):
        compiled_where_worth(torch.nn.Identity(), torch.nn.Identity(), torch.device("cuda"))


def test_the_larger_the_work_of_a_call_the_sooner_it_pays():
    of_16, of_80 = (calls_that_pay(859_500_000, torch.empty(rows, 8, 64, 64)) for rows in (16, 80))
    assert (of_16, of_80) == (-(-BREAK_EVEN // 16), -(-BREAK_EVEN // 80))
    assert calls_that_pay(859_500_000, torch.empty(16, 8, 32, 32)) == -(-4 * BREAK_EVEN // 16)
    assert calls_that_pay(6_200_000, torch.empty(80, 8, 16, 16)) > 1_000_000


class _Counts(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(2.0))
        self.calls = 0

    def forward(self, inputs: torch.Tensor, timestep: torch.Tensor, **_: object) -> tuple[torch.Tensor]:
        self.calls += 1
        return (self.scale * inputs,)


@pytest.mark.parametrize("asked", ["", "1"])
def test_a_shape_is_compiled_when_it_has_paid_or_at_once(asked: str, monkeypatch):
    compiled: list[_Counts] = []
    monkeypatch.setattr(torch, "compile", lambda network, **_: compiled.append(_Counts()) or compiled[-1])
    monkeypatch.setattr("csd_nerf.priors.compiled._MEASURED", 1.0)
    monkeypatch.setattr("csd_nerf.priors.compiled.BREAK_EVEN", 2 * 3 * 50)
    monkeypatch.setenv(SWITCH, asked)
    network = _Counts()
    form = compiled_where_worth(network, network, torch.device("cuda"))
    before = 50 if asked == "" else 4
    for number in range(60):
        (answer,) = form(torch.ones(1, 1, 2, 3), torch.tensor(5))
        assert torch.equal(answer, torch.full((1, 1, 2, 3), 2.0))
        assert bool(compiled) == (number >= before), number
