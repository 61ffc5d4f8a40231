"""Learning rate as a function of the share of the time budget that is used up, so that every run ends annealed.

With f in [0, 1] the used share and w the warm-up's share:  rate(f) = peak * f / w  for f < w, then
rate(f) = peak * (floor + (1 - floor) * (1 + cos(pi (f - w) / (1 - w))) / 2).
"""

import math
import time
from collections.abc import Callable


def learning_rate(fraction: float, peak: float, warmup: float = 0.02, floor: float = 0.01) -> float:
    """Rate at a used share `fraction` of the budget (clamped to [0, 1]); `floor` is a share of `peak`."""
    fraction = min(max(fraction, 0.0), 1.0)
    if fraction < warmup:
        # Not zero at the very first step: the first samples should count too.
        return peak * max(fraction / warmup, 0.01)
    anneal = 0.5 * (1 + math.cos(math.pi * (fraction - warmup) / (1 - warmup)))
    return peak * (floor + (1 - floor) * anneal)


class TimeBudget:
    """A stopwatch with a limit that adds up over resumes.

    `tick()` reads the clock once per step and everything else uses that reading, so a step's learning rate does not
    depend on how long logging takes, and a clock that counts calls makes a run reproducible. No gap between two
    readings counts for more than `longest` seconds: a machine that slept or a process that was paused has not trained.
    """

    def __init__(
        self,
        seconds: float,
        used: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        longest: float = 120.0,
    ) -> None:
        """Limit, time already used and longest gap, all in seconds."""
        if seconds <= 0:
            raise ValueError(f"a training budget must be positive, got {seconds} s")
        self.seconds = seconds
        self.used = used
        self._longest = longest
        self._clock = clock
        self._last = clock()

    def tick(self) -> float:
        """Update and return the used share of the budget."""
        now = self._clock()
        self.used += min(now - self._last, self._longest)
        self._last = now
        return self.fraction

    @property
    def fraction(self) -> float:
        """Used share of the budget at the last tick."""
        return self.used / self.seconds

    @property
    def exhausted(self) -> bool:
        """Whether the limit is reached."""
        return self.used >= self.seconds
