"""A network whose calls are replayed as CUDA graphs: one launch in place of the thousand kernels of a UNet.

A small network on a GPU waits for the processor to launch its kernels; a large one with many rows does not, and gains
nothing. Results are those of the network itself: the same kernels run in the same order.

The environment variable CSD_CUDA_GRAPHS=0 leaves every network as it is, for a driver or a network that graphs upset.
"""

import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from csd_nerf.priors.quickest import QuickestForm

WARM_UP = 3
"""Calls before a capture: libraries choose their kernels and take their workspace then."""
SWITCH = "CSD_CUDA_GRAPHS"


def captured_where_quicker(network: nn.Module, device: torch.device) -> Callable[..., Any]:
    """On a CUDA device the network, for each shape of its inputs as a graph if that is found to be quicker.

    Anywhere else, and with CSD_CUDA_GRAPHS=0, the network itself. Raises `ValueError` for other values than 0 and 1.
    """
    asked = os.environ.get(SWITCH, "").strip() or "1"
    if asked not in ("0", "1"):
        raise ValueError(f"{SWITCH}={asked}: set it to 0 (no CUDA graphs) or 1 (where they are quicker), or unset it")
    if device.type != "cuda" or asked == "0":
        return network
    return QuickestForm(network, lambda: CudaGraphs(network, shapes=1))


@dataclass(frozen=True)
class _Captured:
    graph: Any
    inputs: Tensor
    timestep: Tensor
    text: Tensor
    output: Tensor


class CudaGraphs:
    """Calls `network` as `UNet2DConditionModel` is called, captured once for every shape of its inputs.

    Each shape keeps memory for its activations: the least recently used shapes are dropped. Not for several threads.
    """

    def __init__(self, network: nn.Module, shapes: int = 4) -> None:
        """`shapes` are kept at the same time. Raises `ValueError` for a network that is not on a CUDA device."""
        device = next(network.parameters()).device
        if device.type != "cuda":
            raise ValueError(f"CUDA graphs need the network on a CUDA device; it is on {device}")
        self._network, self._shapes, self._device = network, shapes, device
        # Ours, not torch's own: that one is made for the first device that captures, and then used for all of them.
        self._stream = torch.cuda.Stream(device)
        self._captured: OrderedDict[Any, _Captured] = OrderedDict()

    @torch.no_grad()
    def __call__(
        self, inputs: Tensor, timestep: Tensor, *, encoder_hidden_states: Tensor, return_dict: bool = False
    ) -> tuple[Tensor]:
        """The network's output, in a tensor of its own."""
        key = (inputs.shape, inputs.dtype, timestep.shape, encoder_hidden_states.shape)
        if key not in self._captured:
            while len(self._captured) >= self._shapes:
                self._captured.popitem(last=False)
            self._captured[key] = self._capture(inputs, timestep, encoder_hidden_states)
        self._captured.move_to_end(key)
        captured = self._captured[key]
        captured.inputs.copy_(inputs)
        captured.timestep.copy_(timestep)
        captured.text.copy_(encoder_hidden_states)
        with torch.cuda.device(self._device):
            captured.graph.replay()
        return (captured.output.clone(),)

    def _capture(self, *arguments: Tensor) -> _Captured:
        inputs, timestep, text = (argument.clone() for argument in arguments)

        def call() -> Tensor:
            return self._network(inputs, timestep, encoder_hidden_states=text, return_dict=False)[0]

        with torch.cuda.device(self._device):  # streams are those of the current device
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                for _ in range(WARM_UP):
                    call()
            torch.cuda.current_stream().wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            # Other threads (a NeRF that trains on another device) may go on asking for memory meanwhile.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                output = call()
        return _Captured(graph, inputs, timestep, text, output)
