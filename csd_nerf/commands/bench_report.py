"""What `csd bench` writes: the CSV with every line it had before, and page and pictures of what is asked for."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from csd_nerf.bench.plan import Plan
    from csd_nerf.bench.rows import Row
    from csd_nerf.bench.store import Store

_console = Console(stderr=True)
_JPEG_FROM = 1_000_000


def say(message: str) -> None:
    """Print one line on the terminal, beside what a report prints."""
    _console.print(message, markup=False, highlight=False, soft_wrap=True)


def write_report(plan: "Plan", store: "Store", table: dict[str, Any], output: Path, name: str) -> None:
    """Write what the finished cells give: `name`.csv, and the page with its sheets, or the curves of a `sweep`.

    `table` are the results that `output` had before. Page and pictures are of this run's cells alone: where the CSV
    holds more, they would replace those of a wider run, and are not written. Lines of the same edits that were made
    with something else (see `report.others`) are replaced.
    """
    from csd_nerf.bench import report, sweep
    from csd_nerf.bench.about import about_this_run
    from csd_nerf.bench.rows import rows_of
    from csd_nerf.whole_files import write_atomically, write_text

    rows = rows_of(plan, store, table)
    if not any(row.result for row in rows):
        say_nothing_is_done(output)
        return
    csv = output / f"{name}.csv"
    earlier = csv.read_text(encoding="utf-8") if csv.is_file() else ""
    more = report.others(rows, earlier, plan.subject)
    write_text(csv, report.to_csv(rows, plan.subject, earlier))
    written = [csv.name]
    if name != "sweep":
        failures = {row.cell.key: store.failure(row.cell) or "" for row in rows}
        about = about_this_run(row.result for row in rows if row.result)
        page = report.markdown(plan, rows, about, failures)
        if not more:
            write_text(output / f"{name}.md", page)
            written.append(f"{name}.md")
        written += _sheets(plan, store, rows, output, replace=not more)
        Console().print(page, markup=False, highlight=False, soft_wrap=True)
    elif not more:
        write_atomically(output / "sweep.png", lambda path: sweep.plot(rows, path, plan.subject))
        written.append("sweep.png")
    say(f"{output}: {', '.join(written)}")
    if more:
        say_more_is_there(csv, more)


def say_nothing_is_done(output: Path) -> None:
    """Tell that a run leaves the folder's report alone."""
    say(f"Nothing is done yet: no report is written, and what is in {output} stays as it is")


def say_more_is_there(csv: Path, more: int) -> None:
    """Tell that a table holds finished lines, `more` of them, that a run does not ask for, and what follows."""
    say(
        f"{csv} also holds {more} finished line{'s' * (more != 1)} that this run does not ask for: the page "
        f"and the pictures in {csv.parent} are not replaced. To replace them ask for all of it, give another --output, "
        f"or remove {csv.name}"
    )


def _sheets(plan: "Plan", store: "Store", rows: "Sequence[Row]", output: Path, replace: bool) -> list[str]:
    """Write the contact sheets of what there are pictures of, and name them. Large ones are JPEGs."""
    from csd_nerf.bench import sheets
    from csd_nerf.whole_files import write_atomically

    written = []
    for scene in sorted({row.key[0] for row in rows}):
        path = output / f"{plan.subject.noun}_{scene}.png"
        old = [one for one in (path, path.with_suffix(".jpg")) if one.is_file()]
        if old and not (replace and sheets.has_all(plan, store, rows, scene)):
            continue  # the sheet that goes with the table shows more
        sheet = sheets.scene_sheet(plan, store, rows, scene)
        if sheet is None:
            continue
        write_atomically(path, lambda temporary, sheet=sheet: sheet.save(temporary))
        if path.stat().st_size > _JPEG_FROM:
            path.unlink()
            path = path.with_suffix(".jpg")
            write_atomically(path, lambda temporary, sheet=sheet: sheet.save(temporary, quality=90))
        for one in old:
            if one != path:
                one.unlink(missing_ok=True)
        written.append(path.name)
    return written
