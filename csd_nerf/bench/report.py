"""The tables: Markdown for people, CSV with every cell."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from csd_nerf.bench.effective import in_words
from csd_nerf.bench.failures import headline
from csd_nerf.bench.measure import BEST_AT_ONE, LOWER_IS_BETTER
from csd_nerf.bench.methods import REFERENCE, UNEDITED
from csd_nerf.bench.plan import Cell, Plan
from csd_nerf.bench.reconstruction import not_found, paragraph
from csd_nerf.bench.rows import Key, Row
from csd_nerf.bench.statistics import Interval, bootstrap, by_scene, paired_difference
from csd_nerf.bench.subject import SCENES, Subject

_DIGITS = {"PSNR": 2, "edit strength": 2, "seam visibility": 2, "samples": 0, "seconds": 0}
_ORIGIN = ("commit", "machine", "torch")
"""The last columns; tables of earlier versions lack some, and lines that come from one leave them empty."""
_FIXED = ["scene", "instruction", "text", "ambiguous", "method", "guidance", "seed", "key", "meaning"]


@dataclass(frozen=True)
class About:
    """What a report says about itself."""

    command: str
    commits: str
    """That computed the results, in words: `commit abc1234`."""
    date: str
    machine: str
    notes: tuple[str, ...] = field(default=())


def values(rows: Sequence[Row], method: str, measure: str, seeds: Sequence[int]) -> dict[Key, float]:
    """A measure of one method by scene, instruction and seed; the unedited scene stands for every seed."""
    found: dict[Key, float] = {}
    for row in rows:
        value = row.value(measure)
        if row.method != method or value is None:
            continue
        scene, name, seed = row.key
        for one in seeds if method == UNEDITED else (seed,):
            found[scene, name, one] = value
    return found


def markdown(plan: Plan, rows: Sequence[Row], about: About, failures: Mapping[str, str]) -> str:
    """The whole report."""
    subject, scenes = plan.subject, sorted({row.key[0] for row in rows})
    noun = subject.noun
    lines = [
        f"# {subject.title}",
        "",
        f"`{about.command}`, {about.commits}, {about.date}, {about.machine}. Prior {plan.prior}.",
        "",
        f"{len(scenes)} {noun}{'s' * (len(scenes) > 1)} that the prior's training never saw "
        f"(seeds {', '.join(map(str, scenes))}), {subject.about(plan.protocol)} Mean over {noun}s with the "
        f"95 % bootstrap interval over {noun}s (10,000 resamples)" + _few(len(scenes)) + ".",
        "",
        *paragraph(rows),
    ]
    lost = not_found(rows)
    missing = [row for row in rows if row.result is None]
    if missing:
        lines += [f"**{len(missing)} of {len(rows)} cells are missing**; run the command again to compute them.", ""]
        lines += [f"- {row.cell.label}{_why(failures, row.cell)}" for row in missing[:12]]
        lines += [f"- and {len(missing) - 12} more"] * (len(missing) > 12) + [""]
    for title, measures, ambiguous in (
        ("Deterministic instructions", subject.deterministic, False),
        ("Ambiguous instructions", subject.ambiguous, True),
    ):
        group = [row for row in rows if row.cell.spec["ambiguous"] == ambiguous]
        if group:
            lines += [f"## {title}", "", _instructions(group), "", *_table(group, measures, subject), ""]
            lines += [f"Difference to {REFERENCE}, paired within {noun}s:", ""]
            lines += [*_differences(group, measures, subject), ""]
            kept = [row for row in group if row.key[0] not in lost]
            if lost and kept:
                lines += [f"Without {', '.join(map(str, lost))}:", "", *_differences(kept, measures, subject), ""]
    lines += ["## What the columns are", "", *_legend(rows, subject), "", "## Methods", ""]
    used = [name for name in subject.methods if any(row.method == name for row in rows)]
    lines += [f"- **{name}**: {subject.methods[name].about}{_settings(name, rows)}." for name in used]
    lines += [f"- Left out: {text}." for text in plan.left_out] + [f"- {text}." for text in about.notes]
    return "\n".join(lines) + "\n"


def _few(scenes: int) -> str:
    return "; of so few scenes it is too narrow" if scenes < 5 else ""


def _why(failures: Mapping[str, str], cell: Cell) -> str:
    said = failures.get(cell.key, "").removeprefix(f"{cell.label}\n").strip()
    return f": {headline(said)}" if said else ""


def _instructions(group: Sequence[Row]) -> str:
    texts: dict[str, list[str]] = {}
    for row in group:
        texts.setdefault(row.cell.name, []).append(row.cell.spec["instruction"])
    return "; ".join(
        f'{name}: "' + '", "'.join(dict.fromkeys(said)) + '"' if name not in said else f'"{name}"'
        for name, said in texts.items()
    )


def _present(group: Sequence[Row], measures: Sequence[str]) -> list[str]:
    return [name for name in measures if any(row.value(name) is not None for row in group)]


def _table(group: Sequence[Row], measures: Sequence[str], subject: Subject) -> list[str]:
    names = _present(group, measures)
    lines = [
        "| method | "
        + " | ".join(f"{name}{_arrow(name)}" for name in names)
        + f" | {subject.samples} | seconds | cells |",
        "|---|" + "---|" * (len(names) + 3),
    ]
    seeds = _seeds(group)
    for method in subject.methods:
        own = [row for row in group if row.method == method]
        if not own:
            continue
        cells = [_interval(values(own, method, name, seeds), name) for name in (*names, "samples", "seconds")]
        done = sum(row.result is not None for row in own)
        lines.append(f"| {_named(method, own, group)} | " + " | ".join(cells) + f" | {done}/{len(own)} |")
    true = {name: f"true {name}" for name in names if any(row.value(f"true {name}") is not None for row in group)}
    if true:
        reference = [row for row in group if row.method == REFERENCE] or list(group)
        method = reference[0].method
        cells = [_interval(values(reference, method, true[n], seeds), n) if n in true else "" for n in names]
        lines.append("| *the true edit nearest to " + method + "* | " + " | ".join(cells) + " | | | |")
    return lines


def _differences(group: Sequence[Row], measures: Sequence[str], subject: Subject) -> list[str]:
    names, seeds = _present(group, measures), _seeds(group)
    lines = ["| method | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for method in subject.methods:
        own = [row for row in group if row.method == method]
        if method == REFERENCE or not own:
            continue
        cells = []
        for name in names:
            difference = paired_difference(values(group, method, name, seeds), values(group, REFERENCE, name, seeds))
            cells.append("" if difference is None else _shown(difference, name, signed=True))
        lines.append(f"| {_named(method, own, group)} | " + " | ".join(cells) + " |")
    return lines


def _named(method: str, own: Sequence[Row], group: Sequence[Row]) -> str:
    """The method; with its instructions where these are not all, so that its mean is one of other cells."""
    has = dict.fromkeys(row.cell.name for row in own)
    return method if len(has) == len({row.cell.name for row in group}) else f"{method} ({', '.join(has)} alone)"


def _seeds(group: Sequence[Row]) -> list[int]:
    return sorted({row.cell.spec["seed"] for row in group if row.method != UNEDITED}) or [0]


def _arrow(name: str) -> str:
    return " (1)" if name in BEST_AT_ONE else " ↓" if name in LOWER_IS_BETTER else " ↑"


def _interval(found: Mapping[Key, float], name: str) -> str:
    return _shown(bootstrap(list(by_scene(found).values())), name) if found else ""


def _shown(interval: Interval, name: str, signed: bool = False) -> str:
    form = f"{'+' if signed else ''}.{_DIGITS.get(name, 3)}f"
    said = f"{interval.mean:{form}}"
    if interval.low is None or (not signed and said == f"{interval.low:{form}}" == f"{interval.high:{form}}"):
        return said
    return f"{said} ({interval.low:{form}} to {interval.high:{form}})"


def _settings(method: str, rows: Sequence[Row]) -> str:
    """What it edits scenes with; of a sweep each point has another guidance."""
    specs = [row.cell.spec for row in rows if row.method == method]
    with_settings = next((spec for spec in specs if spec.get("settings") and "preset" in spec), None)
    return f" ({in_words(with_settings['settings'])})" if with_settings else ""


def _legend(rows: Sequence[Row], subject: Subject) -> list[str]:
    def cells(name: str) -> int:
        return sum(row.value(name) is not None for row in rows)

    lines = [note.text for note in subject.legend if note.measure is None or cells(note.measure)]
    first, second = cells("LPIPS"), cells("ST-LPIPS")
    if first and second:  # machines that could have LPIPS's network, and others
        lines.append(
            f"- LPIPS is of {first} cells and ST-LPIPS of {second} others: their means are of different edits."
        )
    return lines


def to_csv(rows: Sequence[Row], subject: Subject = SCENES, earlier: str = "") -> str:
    """Every cell, one a line; then the `others` of an `earlier` table."""
    others = list(_others(rows, earlier, subject))
    found = {name for row in rows if row.result for name in row.result["measures"]}
    names = sorted(found.union(*others) - {*_FIXED, subject.counted, *subject.spent, *_ORIGIN})
    out = io.StringIO()
    columns = [*_FIXED, subject.counted, *names, *subject.spent, *_ORIGIN]
    writer = csv.DictWriter(out, columns, lineterminator="\n", restval="")
    writer.writeheader()
    for row in rows:
        result = row.result or {}
        line = dict(zip(_FIXED, [*_head(row), row.cell.key, result.get("meaning", "")], strict=True))
        line |= {name: result.get(name, "") for name in (subject.counted, *subject.spent, *_ORIGIN)}
        measures = result.get("measures", {})
        writer.writerow(line | {name: round(value, 6) for name, value in measures.items() if value is not None})
    writer.writerows(others)
    return out.getvalue()


def _head(row: Row) -> list[Any]:
    """The first columns: what is compared, whatever it was computed with."""
    spec = row.cell.spec
    guidance = "" if spec["guidance"] is None else spec["guidance"]
    return [row.key[0], row.cell.name, spec["instruction"], spec["ambiguous"], row.method, guidance, spec["seed"]]


def others(rows: Sequence[Row], earlier: str, subject: Subject = SCENES) -> int:
    """How many lines of an earlier table are done and of something else than these rows.

    A line of the same edit under another key was made with other weights, defaults or another precision: the row that
    is done takes its place. Raises `ValueError` for other tables.
    """
    return len(_others(rows, earlier, subject))


def _others(rows: Sequence[Row], earlier: str, subject: Subject) -> list[dict[str, str]]:
    asked = {row.cell.key for row in rows}
    done = {tuple(map(str, _head(row))) for row in rows if row.result}
    return [
        line
        for line in _lines(earlier, subject)
        if line["seconds"] and line["key"] not in asked and tuple(line[name] for name in _FIXED[:7]) not in done
    ]


def _lines(text: str, subject: Subject) -> list[dict[str, str]]:
    """The lines of a table. Raises `ValueError` for tables of other columns."""
    lines = list(csv.DictReader(io.StringIO(text)))
    fixed, spent = [*_FIXED, subject.counted], list(subject.spent)
    head = [name for name in lines[0] if name not in _ORIGIN] if lines else [*fixed, *spent]
    if head[: len(fixed)] != fixed or head[-len(spent) :] != spent:
        raise ValueError("its columns are not those of a benchmark's table")
    return lines


def from_csv(text: str, subject: Subject = SCENES) -> dict[str, dict[str, Any]]:
    """Results by the key of their cell, from what `to_csv` wrote; cells that were missing are left out.

    Raises `ValueError` for other tables.
    """
    lines = _lines(text, subject)
    spent = list(subject.spent)
    fixed = {*_FIXED, subject.counted, *spent, *_ORIGIN}
    names = [name for name in lines[0] if name not in fixed] if lines else []
    found = {}
    for line in lines:
        if not line["seconds"]:
            continue
        result: dict[str, Any] = {"measures": {name: float(line[name]) if line[name] else None for name in names}}
        result |= {name: float(line[name]) for name in spent if line[name]}
        result |= {name: int(line[name]) for name in ("network_samples", "threads")}
        result |= {"meaning": line["meaning"], subject.counted: int(line[subject.counted])}
        found[line["key"]] = result | {name: line.get(name, "") for name in _ORIGIN}
    return found
