"""A network in whichever of two forms is quicker, found out while it is used.

A captured form (`cuda_graphs`) saves the launches of a thousand kernels. For a small network or few rows that is most
of the time; for a large one nothing, while every shape costs a capture and memory. So for each shape the network is
called as it is until that has taken as many calls as a capture is worth, then captured and compared: the answer with
the network's, its time with the network's. From then on the quicker one is called. A shape that is called once never
pays for a capture, and none takes more than about twice what knowing the quicker form beforehand would have taken.

A captured form holds memory for all its activations. So every shape has one of its own, which goes as soon as it is not
the quicker one, and only few are kept: a shape that is driven out is not captured again.

A compiled form (`compiled`) is quicker still and takes a minute to make: its patience is longer. It is the other form
of a network that chooses between the two above.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger("csd_nerf.priors")
_PATIENCE = 4
"""Calls of a shape before its other form is made: a capture takes about as many."""
_GAIN = 0.98
"""Share of the network's time that the other form may take to be used."""
_SAME_FLOAT32, _SAME_HALF = 1e-4, 1e-2
"""Difference of two forms' answers, in noise of unit variance, that is rounding."""
Network = Callable[..., Any]


class QuickestForm:
    """Calls a network as `UNet2DConditionModel` is called, or its other form."""

    def __init__(
        self,
        network: Network,
        make_other: Callable[[], Network],
        clock: Callable[[], float] = time.perf_counter,
        *,
        kept: int = 4,
        patience: Callable[[Tensor], int] = lambda inputs: _PATIENCE,
    ) -> None:
        """`make_other` makes the other form for one shape; `kept` are in use at most. `clock` gives seconds.

        `patience` says from the inputs of a shape how often the network is called before the other form is tried.
        """
        self._network, self._make_other, self._clock, self._kept = network, make_other, clock, kept
        self._patience = patience
        self._untimed: dict[Any, int] = {}
        self._times: dict[Any, list[float]] = {}
        self._others: OrderedDict[Any, Network] = OrderedDict()
        self._settled: set[Any] = set()

    def __call__(self, inputs: Tensor, timestep: Tensor, **options: Any) -> Any:
        """The network's answer."""
        text = options.get("encoder_hidden_states")
        key = (inputs.shape, inputs.dtype, timestep.shape, None if text is None else text.shape)
        if key in self._others:
            self._others.move_to_end(key)
            return self._others[key](inputs, timestep, **options)
        if key in self._settled:
            return self._network(inputs, timestep, **options)
        # Only the last calls are timed: waiting for the device costs a little.
        untimed = self._untimed.setdefault(key, max(0, self._patience(inputs) - _PATIENCE))
        if untimed:
            self._untimed[key] -= 1
            return self._network(inputs, timestep, **options)
        times = self._times.setdefault(key, [])
        answer, seconds = self._timed(self._network, inputs, timestep, options)
        times.append(seconds)
        if len(times) > _PATIENCE:
            self._settle(key, min(times), answer, (inputs, timestep, options))
        return answer

    def _settle(self, key: Any, seconds: float, answer: Any, question: tuple[Tensor, Tensor, Any]) -> None:
        """Decide which form this shape has from now on; `answer` and `seconds` are the network's."""
        self._settled.add(key)
        del self._times[key], self._untimed[key]
        other = self._quicker(seconds, answer, *question)
        if other is None:
            return
        if isinstance(self._network, QuickestForm):
            self._network._others.pop(key, None)  # it will not be asked for this shape again
        self._others[key] = other
        if len(self._others) > self._kept:
            self._others.popitem(last=False)

    def _quicker(self, seconds: float, answer: Any, inputs: Tensor, timestep: Tensor, options: Any) -> Network | None:
        """The other form, if it is quicker than the network and answers the same."""
        try:
            made = self._make_other()
            found, _ = self._timed(made, inputs, timestep, options)  # captures or compiles
            other = min(self._timed(made, inputs, timestep, options)[1] for _ in range(2))
        except Exception as error:  # the network itself works
            said = (str(error).splitlines() or [""])[0]
            log.warning("no quicker form of the network (%s: %s): it is called as it is", type(error).__name__, said)
            return None
        same = _SAME_FLOAT32 if found[0].dtype == torch.float32 else _SAME_HALF
        if not torch.allclose(found[0].float(), answer[0].float(), rtol=same, atol=same):
            log.warning("the quicker form of the network answers otherwise than the network, which is called as it is")
            return None
        return made if other < _GAIN * seconds else None

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
