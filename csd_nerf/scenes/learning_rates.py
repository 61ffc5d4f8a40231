"""Learning rates of a run that goes on from a checkpoint, whose optimisers bring those of the run before."""

from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer


def take_learning_rates(
    optimizers: Mapping[str, Optimizer], schedulers: Mapping[str, Any], rates: Mapping[str, float]
) -> dict[str, tuple[float, float]]:
    """Set peak learning rates, by the optimisers' names, where a checkpoint has brought others.

    Returns what was changed: before and after. A schedule goes on from where it is.
    """
    changed = {}
    for name, optimizer in optimizers.items():
        wanted = rates[name]
        for group in optimizer.param_groups:
            before = group.get("initial_lr", group["lr"])
            if before == wanted:
                continue
            changed[name] = (before, wanted)
            group["lr"] = group["lr"] * wanted / before if before else wanted
            if "initial_lr" in group:
                group["initial_lr"] = wanted
        if name in changed and name in schedulers:
            schedulers[name].base_lrs = [wanted] * len(optimizer.param_groups)
    return changed
