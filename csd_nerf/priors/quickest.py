"""A network in whichever of two forms is quicker, found out while it is used.

A captured form (`cuda_graphs`) saves the launches of a thousand kernels. For a small network or few rows that is most
of the time; for a large one nothing, while every shape costs a capture and memory. So for each shape the network is
called as it is until that has taken as many calls as a capture is worth, then captured and compared: the answer with
the network's, its time with the network's. From then on the quicker one is called. A shape that is called once never
pays for a capture, and none takes more than about twice what knowing the quicker form beforehand would have taken.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger("csd_nerf.priors")
_PATIENCE = 4
"""Calls of a shape before its other form is made: a capture takes about as many."""
_GAIN = 0.98
"""Share of the network's time that the other form may take to be used."""
Network = Callable[..., Any]


class QuickestForm:
    """Calls a network as `UNet2DConditionModel` is called, or its other form."""

    def __init__(
        self, network: Network, make_other: Callable[[], Network], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """`make_other` makes the other form when the first shape asks for it. `clock` gives seconds."""
        self._network, self._make_other, self._clock = network, make_other, clock
        self._other: Network | None = None
        self._times: dict[Any, list[float]] = {}
        self._chosen: dict[Any, Network] = {}

    def __call__(self, inputs: Tensor, timestep: Tensor, **options: Any) -> Any:
        """The network's answer."""
        text = options.get("encoder_hidden_states")
        key = (inputs.shape, inputs.dtype, timestep.shape, None if text is None else text.shape)
        if key in self._chosen:
            return self._chosen[key](inputs, timestep, **options)
        times = self._times.setdefault(key, [])
        answer, seconds = self._timed(self._network, inputs, timestep, options)
        times.append(seconds)
        if len(times) > _PATIENCE:
            self._chosen[key] = self._compared(min(times), answer, inputs, timestep, options)
        return answer

    def _compared(self, seconds: float, answer: Any, inputs: Tensor, timestep: Tensor, options: Any) -> Network:
        """The form to use from now on; `answer` and `seconds` are the network's."""
        try:
            self._other = self._other or self._make_other()
            found, _ = self._timed(self._other, inputs, timestep, options)  # makes it
            other = min(self._timed(self._other, inputs, timestep, options)[1] for _ in range(2))
        except Exception as error:  # the network itself works
            log.warning("the network cannot be captured (%s: %s) and is called as it is", type(error).__name__, error)
            return self._network
        if not torch.allclose(found[0].float(), answer[0].float(), rtol=1e-2, atol=1e-2):
            log.warning("the captured network answers otherwise than the network, which is called as it is")
            return self._network
        return self._other if other < _GAIN * seconds else self._network

    def _timed(self, network: Network, inputs: Tensor, timestep: Tensor, options: Any) -> tuple[Any, float]:
        self._wait(inputs)
        started = self._clock()
        answer = network(inputs, timestep, **options)
        self._wait(inputs)
        return answer, self._clock() - started

    @staticmethod
    def _wait(inputs: Tensor) -> None:
        if inputs.device.type == "cuda":
            torch.cuda.synchronize(inputs.device)
