"""Which views are edited next, and when.

A *pass* edits every training view once, in random order, without replacement. A pass over V views in batches of at most
B takes ceil(V / B) *rounds*, as equal in size as possible: 24 views in batches of 16 are 12 + 12, not 16 + 8, and no
round is left with a single view, which would have nothing to agree with (CSD-Edit of one particle is SDS).

Rounds are due by a counter of our own. nerfstudio's callbacks fire on `step % n` of the absolute step, which after
loading a checkpoint starts anywhere.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

_PASS, _ROUND = 0, 1
"""Streams of random numbers: one for the order of views, one for what happens inside a round."""


@dataclass
class EditSchedule:
    """Round counter and view order. All randomness follows from `seed` and the counters, so they resume exactly."""

    views: int
    """Number of training views."""
    batch_size: int
    """Views in one round, at most."""
    every: int
    """NeRF steps between rounds."""
    seed: int
    """Seed of orders and rounds."""
    passes: int = 0
    """Passes begun."""
    rounds: int = 0
    """Rounds finished."""
    steps_since_round: int = 0
    """NeRF steps since the last round."""
    remaining: list[int] = field(default_factory=list)
    """Views of the current pass that are still to be edited, in their order."""
    requested: bool = False
    """Whether a round was asked for before it is due. Whoever begins a round takes it back, so that one can ask for the
    next round while one is running."""

    @property
    def due(self) -> bool:
        """Whether a round should run before the next NeRF step."""
        return self.requested or self.rounds == 0 or self.steps_since_round >= self.every

    @property
    def rounds_per_pass(self) -> int:
        """Rounds until each view was edited once."""
        return math.ceil(self.views / self.batch_size)

    def next_batch(self) -> list[int]:
        """Views of the next round. Call `finish_round` when they are edited; until then the answer stays the same."""
        remaining = self.remaining or self._order(self.passes)
        return remaining[: math.ceil(len(remaining) / math.ceil(len(remaining) / self.batch_size))]

    @property
    def ends_pass(self) -> bool:
        """Whether after the next round each view was edited in this pass."""
        return len(self.next_batch()) == (len(self.remaining) or self.views)

    def finish_round(self) -> None:
        """Count the round of `next_batch` as done."""
        batch = self.next_batch()
        if not self.remaining:
            self.remaining = self._order(self.passes)
            self.passes += 1
        self.remaining = self.remaining[len(batch) :]
        self.rounds += 1
        self.steps_since_round = 0

    def new_pass(self) -> None:
        """Begin a new pass with the next round."""
        self.remaining = []

    def round_generator(self) -> torch.Generator:
        """Random numbers of the next round, on the CPU."""
        seed = np.random.SeedSequence([self.seed, _ROUND, self.rounds]).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(seed >> np.uint64(1)))

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "views": self.views,
            "passes": self.passes,
            "rounds": self.rounds,
            "steps_since_round": self.steps_since_round,
            "remaining": list(self.remaining),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state()`. Raises `ValueError` if it belongs to another number of views."""
        if state["views"] != self.views:
            raise ValueError(f"it was made with {state['views']} training views, the data now has {self.views}")
        self.passes, self.rounds = int(state["passes"]), int(state["rounds"])
        self.steps_since_round = int(state["steps_since_round"])
        self.remaining = [int(view) for view in state["remaining"]]

    def _order(self, number: int) -> list[int]:
        return np.random.default_rng([self.seed, _PASS, number]).permutation(self.views).tolist()
