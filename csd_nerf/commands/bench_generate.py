"""`csd bench generate`: objects from captions; what of it is not shared with the benchmarks of edits."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from csd_nerf.commands.bench_report import say, say_more_is_there, say_nothing_is_done
from csd_nerf.commands.bench_sitting import sit

if TYPE_CHECKING:
    from csd_nerf.bench.engines import Engine
    from csd_nerf.bench.plan import Precision
    from csd_nerf.metrics.types import ImageTextEncoder


@dataclass(frozen=True)
class GenerateRun:
    """What the flags of `csd bench` ask for."""

    captions: tuple[str, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    quick: bool
    prior: str
    precision: "Precision"
    output: Path
    work: Path
    clip: str | None
    clip_weights: str | None
    clip_tag: str | None
    engine: "Callable[[], Engine]"
    """Starts the processes; called when all flags are known to be right."""

    def run(self) -> int:
        """Compute what is missing, then write the report; status 1 if objects failed."""
        from csd_nerf.bench.generation import CAPTIONS, METHODS, compute_object, make_cells
        from csd_nerf.bench.plan import check_prior
        from csd_nerf.bench.store import Store

        check_prior(self.prior)
        captions = self.captions or (CAPTIONS[:4] if self.quick else CAPTIONS)
        methods = self.methods or tuple(METHODS)
        cells = make_cells(captions, methods, self.seeds, quick=self.quick, prior=self.prior, precision=self.precision)
        store, table = Store(self.work), self._table()
        encoder = self._encoder()
        left = [cell for cell in cells if not store.has(cell) and cell.key not in table]
        say(f"{len(cells)} objects; {len(left)} are to be made")
        return sit(
            left, store, self.engine(), compute_object, lambda: self._report(cells, store, table, encoder), "objects"
        )

    def _table(self) -> dict[str, dict[str, str]]:
        """The lines of the table that is in --output already; what they were made of may be gone."""
        from csd_nerf.bench import generation_report as report

        path = self.output / "generate.csv"
        if not path.is_file():
            return {}
        try:
            table = report.from_csv(path.read_text(encoding="utf-8"))
            for line in table.values():
                report.result_of(line)
        except ValueError as error:
            raise ValueError(
                f"--output: {path} is no table of this benchmark ({error}); give another folder"
            ) from error
        return table

    def _encoder(self) -> "ImageTextEncoder | None":
        if (self.clip, self.clip_weights, self.clip_tag) == (None, None, None):
            return None
        from csd_nerf.metrics.openclip import MODEL, OpenClip

        return OpenClip(self.clip or MODEL, self.clip_weights, tag=self.clip_tag)

    def _report(
        self, cells: Any, store: Any, table: dict[str, dict[str, str]], encoder: "ImageTextEncoder | None"
    ) -> None:
        from csd_nerf.bench import generation_report as report
        from csd_nerf.bench.about import about_this_run
        from csd_nerf.whole_files import write_atomically, write_text

        results = {}
        for cell in cells:
            if (result := store.result(cell)) is not None:
                if encoder is not None:
                    result["measures"] |= report.clip_scores(encoder, cell.spec["caption"], store.read(cell))
                elif cell.key in table:  # it may have them from a time when weights were given
                    result["measures"] = report.result_of(table[cell.key])["measures"] | result["measures"]
                results[cell.key] = result
            elif cell.key in table:
                results[cell.key] = report.result_of(table[cell.key])
        if not results:
            say_nothing_is_done(self.output)
            return
        table = table | self._table()  # another sitting may have written since
        others = report.others(table, cells, results)
        page = report.markdown(cells, results, about_this_run(results.values()))
        csv = self.output / "generate.csv"
        write_text(csv, report.to_csv(cells, results, others))
        written, sheets = [csv.name], {}
        if not others:
            write_text(self.output / "generate.md", page)
            written.append("generate.md")
            sheets["overview"] = report.overview(cells, store)
        for caption in dict.fromkeys(cell.spec["caption"] for cell in cells):
            sheets[caption.replace(" ", "_")] = report.sheet(cells, store, caption)
        for stem, sheet in sheets.items():
            own = [cell for cell in cells if stem in ("overview", cell.spec["caption"].replace(" ", "_"))]
            shown = not others and all(store.has(cell) for cell in own if cell.key in results)
            if sheet is not None and (shown or not (self.output / f"{stem}.jpg").is_file()):
                name = f"{stem}.jpg"
                write_atomically(self.output / name, lambda path, sheet=sheet: sheet.save(path, quality=90))
                written.append(name)
        Console().print(page, markup=False, highlight=False, soft_wrap=True)
        say(f"{self.output}: {', '.join(written)}")
        if others:
            say_more_is_there(csv, len(others))
