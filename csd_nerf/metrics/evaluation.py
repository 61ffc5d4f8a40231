"""From what is compared to a report: which metrics, their networks, their scores."""

import csv
import io
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jaxtyping import Float, Real
from rich import box
from rich.table import Table
from torch import Tensor

from csd_nerf.metrics.catalogue import METRICS, Comparison, Metric, Models, Row, unpaired
from csd_nerf.metrics.frechet import load_inception
from csd_nerf.metrics.openclip import MODEL, OpenClip
from csd_nerf.metrics.perceptual import load_perceptual_distance
from csd_nerf.metrics.types import ImageTextEncoder


@dataclass(frozen=True)
class Networks:
    """Which networks, and where their weights are."""

    clip: str | None = None
    """A model of open_clip; None for MODEL."""
    clip_weights: str | None = None
    """A tag that open_clip knows, or a file."""
    clip_tag: str | None = None
    """Whose configuration holds for a file."""
    lpips: str = "auto"
    """auto, lpips or st-lpips."""
    inception: Path | None = None
    """A TorchScript; None to download."""
    device: str = "cpu"

    def load(self, network: str) -> object:
        """One of the fields of `Models`. Raises `ValueError` or `OSError`, naming the flag."""
        if network == "encoder":
            return Remembering(OpenClip(self.clip or MODEL, self.clip_weights, self.device, tag=self.clip_tag))
        if network == "perceptual":
            return load_perceptual_distance(self.lpips, self.device)
        return load_inception(self.inception, self.device)

    def asked_for(self, network: str) -> bool:
        """Whether somebody who chose no metrics chose this network."""
        return {
            "encoder": self.clip is not None or self.clip_weights is not None,
            "perceptual": self.lpips != "auto",
            "inception": self.inception is not None,
        }[network]


class Remembering:
    """An encoder that embeds each set of pictures once, whatever number of metrics asks for it."""

    def __init__(self, encoder: ImageTextEncoder) -> None:
        self.name, self._encoder = encoder.name, encoder
        self._known: list[tuple[Tensor, Tensor]] = []

    def encode_images(self, images: Real[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Embeddings, computed at the first time that this very tensor is given."""
        for pictures, embedded in self._known:
            if pictures is images:
                return embedded
        self._known.append((images, self._encoder.encode_images(images)))
        return self._known[-1][1]

    def encode_texts(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """Embeddings of texts."""
        return self._encoder.encode_texts(texts)


@dataclass
class Plan:
    """What will be computed, and what will not."""

    chosen: list[Metric]
    named: bool
    """Whether the user chose them: then none of them may fail."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Reasons by metric."""

    def leave_out(self, metrics: Sequence[Metric], reason: str) -> None:
        """Go on without some metrics."""
        self.left_out |= {metric.name: reason for metric in metrics}
        self.chosen = [metric for metric in self.chosen if metric not in metrics]


def plan(comparison: Comparison, names: Sequence[str] = ()) -> Plan:
    """The metrics that were named, or whatever the pictures and texts allow.

    Raises `ValueError` when a named one is impossible, when no metric is possible, and when none is named and the
    numbers of pictures differ.
    """
    if not names and (reason := unpaired(comparison)):
        alone = "clip-consistency, clip-text, fid, r-precision"
        raise ValueError(f"{reason}, or name metrics that need no pairs: --metrics {alone}")
    made = Plan([METRICS[name] for name in dict.fromkeys(names or METRICS)], bool(names))
    for metric in tuple(made.chosen):
        if (reason := metric.missing(comparison)) and names:
            raise ValueError(f"--metrics {metric.name}: {reason}")
        if reason := reason or (None if names else metric.unusual(comparison)):
            made.leave_out([metric], reason)
    _check_anything_left(made)
    return made


def load_models(made: Plan, networks: Networks, on_load: Callable[[str], None] = lambda name: None) -> Models:
    """The networks of the chosen metrics; what cannot be had leaves its metrics out, unless the user asked for it."""
    loaded = {}
    for network in dict.fromkeys(metric.network for metric in made.chosen if metric.network):
        on_load(network)
        try:
            loaded[network] = networks.load(network)
        except OSError as error:
            if made.named or networks.asked_for(network):
                raise
            made.leave_out([metric for metric in made.chosen if metric.network == network], str(error))
    _check_anything_left(made)
    return Models(**loaded)


def evaluate(
    comparison: Comparison, made: Plan, models: Models, on_metric: Callable[[str], None] = lambda name: None
) -> "Report":
    """Compute what was planned. Raises `ValueError` when a named metric turns out to be impossible."""
    rows = []
    for metric in tuple(made.chosen):
        on_metric(metric.name)
        try:
            rows += metric.compute(comparison, models)
        except ValueError as error:
            if made.named:
                raise ValueError(f"--metrics {metric.name}: {error}") from error
            made.leave_out([metric], str(error))
    _check_anything_left(made)
    return Report(comparison, rows, made.left_out)


def _check_anything_left(made: Plan) -> None:
    if not made.chosen:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in made.left_out.items())
        raise ValueError(f"no metric can be computed: {reasons}")


@dataclass(frozen=True)
class Report:
    """Scores, and what is missing among them."""

    comparison: Comparison
    rows: list[Row]
    left_out: dict[str, str]
    """Reasons by metric."""

    def to_json(self) -> str:
        """Everything, each single value included."""
        sets = {"before": self.comparison.before, "after": self.comparison.after, "truth": self.comparison.truth}
        content = {
            **{
                name: {"source": one.source, "pictures": len(one), "note": one.note}
                for name, one in sets.items()
                if one
            },
            "source text": self.comparison.source_text,
            "target text": self.comparison.target_text,
            "scores": [{**_line(row), "values": row.score.values} for row in self.rows],
            "left out": self.left_out,
        }
        return json.dumps(content, indent=1) + "\n"

    def to_csv(self) -> str:
        """One line a score."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(_line(self.rows[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows(_line(row) for row in self.rows)
        return text.getvalue()

    def table(self) -> Table:
        """For people. The deviation is that of the single values, over `count` pictures or pairs."""
        table = Table(box=box.SIMPLE)
        for title in ("metric", "of", "mean", "deviation", "count", "better"):
            table.add_column(title, justify="right" if title in ("mean", "deviation", "count") else "left")
        for row in self.rows:
            deviation = _deviation(row.score.values)
            shown = "" if deviation is None else _rounded(deviation)
            score = row.score
            table.add_row(score.name, row.of, _rounded(score.mean), shown, str(len(score.values)), score.better)
        return table

    def notes(self) -> list[str]:
        """What the numbers must not be read without: sources, models, and what was left out."""
        sets = (self.comparison.before, self.comparison.after, self.comparison.truth)
        said = [f"{one.source}: {one.note}" for one in sets if one and one.note]
        said += dict.fromkeys(f"{row.score.name}: {row.score.note}" for row in self.rows if row.score.note)
        for reason in dict.fromkeys(self.left_out.values()):
            said.append(f"left out: {', '.join(n for n, r in self.left_out.items() if r == reason)}: {reason}")
        return said


def _line(row: Row) -> dict[str, str | float | int | None]:
    return {
        "metric": row.metric,
        "name": row.score.name,
        "of": row.of,
        "mean": row.score.mean,
        "deviation": _deviation(row.score.values),
        "count": len(row.score.values),
        "better": row.score.better,
        "note": row.score.note,
    }


def _deviation(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def _rounded(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"
