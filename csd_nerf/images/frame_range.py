"""Which frames of a video, as Python slices choose items."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FrameRange:
    """Frames `start`, `start + step`, ... before `stop`, counted from 0; negative numbers count from the end."""

    start: int | None = None
    """First frame; None for the video's first."""
    stop: int | None = None
    """The frame before which to stop; None for the video's end."""
    step: int = 1
    """Every how many frames, at least 1."""

    def __post_init__(self) -> None:
        if self.step < 1:
            raise ValueError(f"--frames {self}: the step is {self.step}: it must be at least 1")

    @classmethod
    def parse(cls, text: str) -> "FrameRange":
        """`A:B:S`, each of which may be left out, or `A:B`.

        Raises `ValueError` that names `--frames` for anything else, and for a step below 1.
        """
        parts = text.split(":")
        try:
            numbers = [int(part) if part.strip() else None for part in parts]
        except ValueError:
            numbers = []
        if len(numbers) not in (2, 3):
            raise ValueError(
                f"--frames {text}: give START:STOP or START:STOP:STEP, such as 0:24 for the first 24 frames, "
                "10: for all from the eleventh, or ::2 for every other"
            )
        start, stop, step = (*numbers, None)[:3]
        return cls(start, stop, 1 if step is None else step)

    def __str__(self) -> str:
        start, stop = ("" if number is None else number for number in (self.start, self.stop))
        return f"{start}:{stop}" + ("" if self.step == 1 else f":{self.step}")

    def indices(self, count: int, most: int | None = None) -> range:
        """Which of `count` frames these are, at most the first `most` of them."""
        return range(*slice(self.start, self.stop, self.step).indices(count))[:most]

    def end(self, count: int, most: int | None = None) -> int:
        """The frame before which the span of the selected frames ends; steps do not make it shorter.

        That is `stop`, or the next frame that `most` leaves out.
        """
        indices = self.indices(count, most)
        _, stop, _ = slice(self.start, self.stop, self.step).indices(count)
        return min(stop, indices[-1] + self.step) if len(indices) == most else stop

    def bound(self, most: int | None = None) -> int | None:
        """How many frames of any video suffice to choose from, at most the first `most`; None if its end matters."""
        if self.start is not None and self.start < 0:
            return None
        bounds = [self.stop] if self.stop is not None else []
        if most is not None:
            bounds.append((self.start or 0) + (most - 1) * self.step + 1)
        return None if not bounds or min(bounds) < 0 else min(bounds)
