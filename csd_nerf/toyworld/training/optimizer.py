"""Muon for the weight matrices, AdamW for everything else.

A weight's momentum, seen as a matrix [out, in * kernel], is replaced by the nearest semi-orthogonal matrix (Jordan et
al. 2024, "Muon"), found by a quintic Newton-Schulz iteration: every direction moves equally far. Its size is scaled by
0.2 sqrt(max(rows, columns)), the root mean square of AdamW's steps (Liu et al. 2025), so learning rates carry over.
The orthogonalisation costs next to nothing beside a convolution's backward pass.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

QUINTIC = (3.4445, -4.7750, 2.0315)
OUTERMOST = ("conv_in", "conv_out", "quant_conv", "embedding", "time_emb")
"""Parts of names of the layers that AdamW serves better: the first and last of a network, and tables."""


def outermost(name: str) -> bool:
    """Whether a parameter belongs to one of the layers in `OUTERMOST`."""
    return any(part in name for part in OUTERMOST)


def orthogonalise(matrix: Float[Tensor, "r c"], steps: int = 4) -> Float[Tensor, "r c"]:
    """Push all singular values of a matrix near 1 (between 0.7 and 1.2), keeping its singular vectors."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    a, b, c = QUINTIC
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class MuonAdamW(torch.optim.Optimizer):
    """One optimiser with two rules: parameters of two or more dimensions by Muon, the others by AdamW.

    Embedding tables and the layers at either end of a network are better off with AdamW; they are named in `plain`.
    """

    def __init__(
        self, module: nn.Module, lr: float, plain: Callable[[str], bool], momentum: float = 0.95, decay: float = 0.01
    ) -> None:
        """Sort the module's parameters; `plain(name)` says that a matrix takes AdamW all the same."""
        matrices, others = [], []
        for name, parameter in module.named_parameters():
            (others if parameter.ndim < 2 or plain(name) else matrices).append(parameter)
        groups = [{"params": matrices, "muon": True}, {"params": others, "muon": False}]
        super().__init__(
            [group for group in groups if group["params"]],
            {"lr": lr, "momentum": momentum, "betas": (0.9, 0.99), "decay": decay},
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                parameter.mul_(1 - group["lr"] * group["decay"])
                if group["muon"]:
                    self._muon(parameter, parameter.grad, group)
                else:
                    self._adam(parameter, parameter.grad, group)

    def _muon(self, parameter: nn.Parameter, gradient: Tensor, group: dict) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(state["momentum"], group["momentum"])
        matrix = ahead.flatten(1)
        update = orthogonalise(matrix).view_as(parameter)
        parameter.add_(update, alpha=-0.2 * max(matrix.shape) ** 0.5 * group["lr"])

    def _adam(self, parameter: nn.Parameter, gradient: Tensor, group: dict) -> None:
        state = self.state[parameter]
        if not state:
            state.update(steps=0, first=torch.zeros_like(parameter), second=torch.zeros_like(parameter))
        first, second = group["betas"]
        state["steps"] += 1
        state["first"].lerp_(gradient, 1 - first)
        state["second"].lerp_(gradient.square(), 1 - second)
        scale = (state["second"] / (1 - second ** state["steps"])).sqrt_().add_(1e-8)
        parameter.addcdiv_(state["first"], scale, value=-group["lr"] / (1 - first ** state["steps"]))
