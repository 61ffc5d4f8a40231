"""What the losses did in the last tenth of an optimisation, the steps that its result comes from."""

from collections.abc import Mapping, Sequence

from csd_nerf.distill import LossPart, LossRecord, mean_losses

Plain = list[dict[str, list[float] | None]]
"""For a state on disk: numbers and containers of them."""


class LastTenth:
    """Records of the last tenth of `steps` steps, at least of the last one; they survive a stop."""

    def __init__(self, steps: int) -> None:
        """`steps` in all."""
        self._first, self._records = steps - max(1, steps // 10), list[LossRecord]()

    def add(self, done: int, losses: LossRecord) -> None:
        """What the losses did in step `done`, counted from 1; earlier steps are passed over."""
        if done > self._first:
            self._records.append(losses)

    def mean(self) -> LossRecord | None:
        """None if no such step was made."""
        return mean_losses(self._records) if self._records else None

    def state(self) -> Plain:
        """To go on from: `restore`."""
        return [
            {name: None if part is None else [part.value, part.gradient_norm] for name, part in vars(record).items()}
            for record in self._records
        ]

    def restore(self, state: Sequence[Mapping[str, Sequence[float] | None]]) -> None:
        """Take up what `state` gave."""
        self._records = [
            LossRecord(**{name: None if part is None else LossPart(*part) for name, part in record.items()})
            for record in state
        ]
