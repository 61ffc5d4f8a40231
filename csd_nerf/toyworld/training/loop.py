"""The loop both stages share: time budget, learning rate, averaging, logs, checkpoints, progress.

A checkpoint holds weights, optimiser, weight average, step, used time and the sample stream's random state. Samples,
noise and timesteps are all drawn from that one stream, so a resumed run continues exactly where the stored one stood.
"""

import csv
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from torch import nn

from csd_nerf.toyworld.training.averaging import WeightAverage
from csd_nerf.toyworld.training.checkpoint import load_checkpoint, save_checkpoint
from csd_nerf.toyworld.training.optimizer import MuonAdamW, outermost
from csd_nerf.toyworld.training.provenance import check_origin
from csd_nerf.toyworld.training.schedule import TimeBudget, learning_rate

LossFunction = Callable[[torch.Generator], torch.Tensor]
"""Draws a batch from the generator and returns its scalar loss."""


@dataclass(frozen=True)
class LoopSettings:
    """What one stage's loop needs to know."""

    name: str
    """Name of the stage: of its checkpoint (`name.pt`), log (`name.csv`) and progress bar."""
    folder: Path
    """Where checkpoint and log go."""
    minutes: float
    """Training time."""
    rate: float
    """Peak learning rate."""
    decay: float = 0.998
    """Decay of the weight average per step."""
    checkpoint_minutes: float = 3.0
    """Time between checkpoints."""
    picture_minutes: float = 8.0
    """Time between pictures."""
    log_every: int = 100
    """Steps between rows of the log."""
    seed: int = 0
    """Seed of the sample stream."""
    resume: bool = True
    """Continue from the checkpoint when there is one."""
    origin: dict[str, str] = field(default_factory=dict)
    """Hashes of what the stage is trained from, by what it is called; see `provenance`."""


@dataclass(frozen=True)
class LoopSummary:
    """What a stage did, over all its resumes."""

    steps: int
    """Optimiser steps."""
    minutes: float
    """Training time used."""


class TrainingLoop:
    """Trains the modules it is given until the time budget is used up."""

    def __init__(
        self, networks: nn.Module, settings: LoopSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Build the optimiser and the average, and read the checkpoint when resuming.

        Raises `ValueError` if the checkpoint has another origin.
        """
        self.settings = settings
        self.networks = networks
        self.average = WeightAverage(networks, settings.decay)
        self.optimizer = MuonAdamW(networks, settings.rate, plain=outermost)
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.step = 0
        self.rows: list[dict[str, float | int]] = []
        used = self._resume() if settings.resume and self.checkpoint_path.exists() else 0.0
        self.budget = TimeBudget(settings.minutes * 60, used, clock)

    @property
    def checkpoint_path(self) -> Path:
        """Where the stage's state is kept."""
        return self.settings.folder / f"{self.settings.name}.pt"

    def _resume(self) -> float:
        state = load_checkpoint(self.checkpoint_path)
        check_origin(self.checkpoint_path, state.get("origin", {}), self.settings.origin)
        self.networks.load_state_dict(state["networks"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.load_state_dict(state["average"])
        self.generator.set_state(state["generator"])
        self.step, self.rows = state["step"], state["rows"]
        return state["used"]

    def save(self) -> None:
        """Store the whole state; safe against a kill at any moment."""
        state = {
            "networks": self.networks.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict(),
            "generator": self.generator.get_state(),
            "step": self.step,
            "rows": self.rows,
            "used": self.budget.used,
            "origin": dict(self.settings.origin),
        }
        save_checkpoint(self.checkpoint_path, state)
        self._write_log()

    def _write_log(self) -> None:
        if not self.rows:
            return
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        with open(self.settings.folder / f"{self.settings.name}.csv", "w", newline="") as stream:
            writer = csv.DictWriter(stream, columns)
            writer.writeheader()
            writer.writerows(self.rows)

    def run(
        self,
        loss_of_batch: LossFunction,
        evaluate: Callable[[], dict[str, float]],
        draw: Callable[[int], None],
        max_steps: int | None = None,
    ) -> LoopSummary:
        """Train until the budget (or `max_steps`, counted from the very first step) is reached.

        `evaluate()` and `draw(step)` are called with the averaged weights in place.
        """
        console = Console()
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        losses: list[torch.Tensor] = []
        saved = pictured = self.budget.used
        self.networks.train()
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            task = progress.add_task(self.settings.name, total=self.budget.seconds, completed=int(self.budget.used))
            while not self.budget.exhausted and (max_steps is None or self.step < max_steps):
                losses.append(self._step(loss_of_batch))
                progress.update(task, completed=self.budget.used)
                if self.step % self.settings.log_every == 0:
                    row = self._log(losses, evaluate)
                    losses = []
                    console.print(self._line(row), soft_wrap=True)
                if self.budget.used - saved >= 60 * self.settings.checkpoint_minutes:
                    saved = self.budget.used
                    self.save()
                if self.budget.used - pictured >= 60 * self.settings.picture_minutes:
                    pictured = self.budget.used
                    with self.average.applied():
                        draw(self.step)
        self.save()
        return LoopSummary(self.step, self.budget.used / 60)

    def _step(self, loss_of_batch: LossFunction) -> torch.Tensor:
        fraction = self.budget.tick()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(fraction, self.settings.rate)
        self.optimizer.zero_grad(set_to_none=True)
        loss = loss_of_batch(self.generator)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.networks.parameters(), 1.0)
        if not torch.isfinite(norm):
            raise FloatingPointError(
                f"{self.settings.name}: loss or gradient is not finite at step {self.step} (loss {loss.item()}). Start "
                f"again to go on from the last checkpoint, {self.checkpoint_path}; if it fails again, train with a "
                f"smaller {self.settings.name}_rate (TrainingSettings), or with another --seed in another --output."
            )
        self.optimizer.step()
        self.average.update()
        self.step += 1
        return loss.detach()

    def _log(self, losses: list[torch.Tensor], evaluate: Callable[[], dict[str, float]]) -> dict[str, float | int]:
        row: dict[str, float | int] = {
            "step": self.step,
            "minutes": self.budget.used / 60,
            "rate": self.optimizer.param_groups[0]["lr"],
            "train": torch.stack(losses).mean().item(),
        }
        with self.average.applied():
            row.update(evaluate())
        self.rows.append(row)
        self._write_log()
        return row

    def _line(self, row: dict[str, float | int]) -> str:
        left = max(self.budget.seconds - self.budget.used, 0) / 60
        values = "  ".join(f"{name} {value:.4g}" for name, value in row.items() if name != "step")
        return f"{self.settings.name} step {self.step}  {values}  ({left:.1f} min left)"
