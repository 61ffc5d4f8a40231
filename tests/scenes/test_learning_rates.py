"""Learning rates of a run that goes on."""

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from csd_nerf.scenes.learning_rates import take_learning_rates


def made(rate: float) -> tuple[torch.optim.Adam, LambdaLR]:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))], lr=rate)
    return optimizer, LambdaLR(optimizer, lambda step: 1 / (1 + step))


def stepped(optimizer: torch.optim.Adam, scheduler: LambdaLR, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_a_schedule_goes_on_from_where_it_is_with_the_new_rate():
    before = made(1e-2)
    stepped(*before, 3)
    optimizer, scheduler = made(1e-3)
    optimizer.load_state_dict(before[0].state_dict())
    scheduler.load_state_dict(before[1].state_dict())
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-2 / 4), "what a checkpoint brings"
    changed = take_learning_rates({"fields": optimizer}, {"fields": scheduler}, {"fields": 1e-3})
    assert changed == {"fields": (1e-2, 1e-3)}
    assert stepped(optimizer, scheduler, 3) == pytest.approx([1e-3 / 4, 1e-3 / 5, 1e-3 / 6])


def test_without_a_schedule_and_without_a_change():
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))], lr=0.5)
    assert take_learning_rates({"fields": optimizer}, {}, {"fields": 0.5}) == {}
    assert take_learning_rates({"fields": optimizer}, {}, {"fields": 0.25}) == {"fields": (0.5, 0.25)}
    assert optimizer.param_groups[0]["lr"] == 0.25
