"""Exponential moving average of weights: a <- a + (1 - d) (w - a), d = min(decay, (1 + n) / (10 + n)) at step n."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class WeightAverage:
    """The running average of a module's parameters."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        """Start at the module's present weights."""
        self.decay = decay
        self.steps = 0
        self._parameters = list(module.parameters())
        self._average = [parameter.detach().clone() for parameter in self._parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the present weights; the decay starts low so that early averages are of use."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for average, parameter in zip(self._average, self._parameters, strict=True):
            average.lerp_(parameter.detach(), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average in the module for the duration of a `with` block."""
        present = [parameter.detach().clone() for parameter in self._parameters]
        self._copy(self._average)
        try:
            yield
        finally:
            self._copy(present)

    @torch.no_grad()
    def _copy(self, values: list[torch.Tensor]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.copy_(value)

    def state_dict(self) -> dict[str, object]:
        """Average and step count."""
        return {"steps": self.steps, "average": self._average}

    def load_state_dict(self, state: dict) -> None:
        """Continue from a stored state."""
        self.steps = state["steps"]
        for average, stored in zip(self._average, state["average"], strict=True):
            average.copy_(stored)
