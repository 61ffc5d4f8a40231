"""A captured network answers as the network does."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.random_prior import Sizes, networks
from csd_nerf.priors import load_prior
from csd_nerf.priors.cuda_graphs import SWITCH, WARM_UP, CudaGraphs, captured_where_quicker
from csd_nerf.priors.quickest import QuickestForm
from tests.tiny_prior import answers


def test_networks_elsewhere_are_refused(edit_folder: Path):
    prior = load_prior(edit_folder, device="cpu")
    with pytest.raises(ValueError, match="on a CUDA device; it is on cpu"):
        CudaGraphs(prior.unet)


@pytest.mark.parametrize(
    ("device", "asked", "captured"), [("cuda", "", True), ("cuda", "0", False), ("cpu", "1", False)]
)
def test_graphs_are_for_gpus_and_can_be_switched_off(device: str, asked: str, captured: bool, monkeypatch):
    monkeypatch.setenv(SWITCH, asked)
    network = torch.nn.Identity()
    form = captured_where_quicker(network, torch.device(device))
    assert isinstance(form, QuickestForm) if captured else form is network


def test_another_value_of_the_switch_is_refused(monkeypatch):
    monkeypatch.setenv(SWITCH, "off")
    with pytest.raises(ValueError, match="CSD_CUDA_GRAPHS=off: set it to 0"):
        captured_where_quicker(torch.nn.Identity(), torch.device("cuda"))


def test_another_form_of_the_network_is_called_in_its_place_and_counted_alike(edit_folder: Path):
    prior = load_prior(edit_folder, device="cpu")
    seen = []

    def network(*arguments: object, **options: object) -> object:
        seen.append(arguments)
        return prior.unet(*arguments, **options)

    other = prior.through(network)
    expected, _ = answers(prior)
    before = other.samples
    found, _ = answers(other)
    assert torch.equal(found, expected) and len(seen) == 1 and other.samples == before + 1


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_replayed_answers_are_those_of_the_network(edit_folder: Path, dtype):
    prior = load_prior(edit_folder, device="cuda", dtype=dtype)
    graphs = CudaGraphs(prior.unet, shapes=2)
    captured = prior.through(graphs)
    for rows in (1, 4, 2, 4, 1):  # more shapes than are kept
        x = torch.randn(rows, 4, 8, 8)
        text = prior.encode_text(["make it red"] * rows)
        for t in (20, 900):
            from csd_nerf.distill import Condition

            expected = prior.predict_noise(x, torch.tensor(t), Condition(text))
            torch.testing.assert_close(captured.predict_noise(x, torch.tensor(t), Condition(text)), expected)


class _Pretended:
    """Enough of torch.cuda for a capture: what is called within it is called again by `replay`, in the same tensors."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.capturing: _Graph | None = None
        self.captures: list[tuple[object, str]] = []
        self.devices: list[torch.device] = []
        for name in ("Stream", "current_stream", "stream", "graph", "device"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        monkeypatch.setattr(torch.cuda, "CUDAGraph", _Graph)

    class Stream:
        def __init__(self, device: torch.device | None = None) -> None:
            self.device = device

        def wait_stream(self, other: object) -> None:
            pass

    def current_stream(self) -> "_Pretended.Stream":
        return self.Stream()

    def stream(self, _: object) -> AbstractContextManager[None]:
        return nullcontext()

    @contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        self.devices.append(device)
        yield

    @contextmanager
    def graph(self, graph: "_Graph", *, stream: "_Pretended.Stream", capture_error_mode: str) -> Iterator[None]:
        self.captures.append((stream.device, capture_error_mode))
        self.capturing = graph
        yield
        self.capturing = None


class _Graph:
    replay: Callable[[], object]


class _Network(torch.nn.Module):
    """Says that it is on the second GPU."""

    def __init__(self, cuda: _Pretended) -> None:
        super().__init__()
        self.pretended, self.calls = cuda, 0

    def parameters(self, recurse: bool = True) -> Iterator[Any]:
        yield SimpleNamespace(device=torch.device("cuda", 1))

    def forward(
        self, inputs: torch.Tensor, timestep: torch.Tensor, *, encoder_hidden_states: torch.Tensor, **_: object
    ) -> tuple[torch.Tensor]:
        def compute() -> torch.Tensor:
            times = timestep if timestep.ndim else timestep.expand(len(inputs))
            return inputs * times[:, None] + encoder_hidden_states

        self.calls += 1
        output = compute()
        if self.pretended.capturing is not None:
            self.pretended.capturing.replay = lambda: output.copy_(compute())
            output.fill_(torch.nan)  # a capture computes nothing
        return (output,)


def test_each_shape_is_captured_once_and_replayed_with_what_it_is_given(monkeypatch: pytest.MonkeyPatch):
    network = _Network(cuda := _Pretended(monkeypatch))
    graphs, kept = CudaGraphs(network, shapes=2), []
    for number, rows in enumerate((1, 3, 1, 3, 1)):
        for t in (torch.tensor(number), torch.arange(rows) + number):
            inputs, text = torch.rand(rows, 2), torch.rand(rows, 2)
            (found,) = graphs(inputs, t, encoder_hidden_states=text)
            kept.append((found, inputs * (t if t.ndim == 0 else t[:, None]) + text))
            if rows == 3:
                break
    assert all(torch.equal(found, expected) for found, expected in kept)  # none was overwritten by a later call
    device = torch.device("cuda", 1)  # not that of torch's own stream, which is the first one's that captured
    assert set(cuda.captures) == {(device, "thread_local")} and set(cuda.devices) == {device}
    # One timestep for one row, one for each of one row, and three rows: three shapes, of which two are kept.
    assert network.calls == (WARM_UP + 1) * len(cuda.captures) and len(cuda.captures) > 3
    assert len(graphs._captured) == 2


class _Watch(TorchDispatchMode):
    """Notes what a capture forbids: tensors in main memory, of which a number or a copy is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        tensors = [value for value in tree_leaves((args, kwargs, made)) if isinstance(value, torch.Tensor)]
        self.found += [str(func)] if any(tensor.device.type != "meta" for tensor in tensors) else []
        return made


@pytest.mark.parametrize(("size", "rows"), [((64, 64), ()), ((62, 66), (3,))])
def test_the_full_network_asks_for_nothing_that_a_capture_forbids(size: tuple[int, int], rows: tuple[int, ...]):
    """On torch's `meta` device nothing is computed, and asking for a number raises."""
    with torch.device("meta"):
        network = networks(Sizes())["unet"].half().requires_grad_(False)
        inputs, text = torch.empty(3, 8, *size).half(), torch.empty(3, 77, 768).half()
        t = torch.empty(rows, dtype=torch.long)
    with torch.no_grad(), _Watch() as watch:
        (output,) = network(inputs, t, encoder_hidden_states=text, return_dict=False)
    assert output.shape == (3, 4, *size) and output.dtype == torch.float16 and not watch.found
