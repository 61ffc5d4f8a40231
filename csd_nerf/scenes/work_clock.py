"""Time that a run works, without the time that it is paused in the viewer."""

import time
from collections.abc import Callable


class WorkClock:
    """A stopwatch that stands still during pauses."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._worked = 0.0
        self._since: float | None = clock()

    @property
    def seconds(self) -> float:
        """Work since the last `restart`."""
        return self._worked + (0.0 if self._since is None else self._clock() - self._since)

    def restart(self) -> None:
        """Count from zero; a pause goes on."""
        self._worked = 0.0
        if self._since is not None:
            self._since = self._clock()

    def set_paused(self, paused: bool) -> None:
        """Begin or end a pause."""
        self._worked = self.seconds
        self._since = None if paused else self._clock()
