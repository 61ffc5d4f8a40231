"""Results of cells on disk: whole or absent, one folder each.

work/cells/<key>/...     a cell's files
work/failed/<key>.txt    why a cell failed; gone when it has succeeded
"""

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csd_nerf.bench.plan import Cell
from csd_nerf.bench.results import RESULT, Files
from csd_nerf.whole_files import write_text


@dataclass(frozen=True)
class Store:
    """The folder of results. Of two sittings that share it, the one that finishes a cell first keeps its result."""

    folder: Path

    def has(self, cell: Cell) -> bool:
        """Whether the cell is done."""
        return (self._place(cell) / RESULT).is_file()

    def read(self, cell: Cell) -> dict[str, bytes]:
        """All files of a cell that is done."""
        place = self._place(cell)
        return {
            path.relative_to(place).as_posix(): path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()
        }

    def result(self, cell: Cell) -> dict[str, Any] | None:
        """A cell's result; None if it is not done."""
        return json.loads((self._place(cell) / RESULT).read_text()) if self.has(cell) else None

    def failure(self, cell: Cell) -> str | None:
        """Why the cell failed when it was last tried; None if it did not."""
        path = self._failed(cell)
        return path.read_text() if path.is_file() else None

    def keep(self, cell: Cell, files: Files) -> None:
        """Write what a cell has computed, unless another sitting has done so meanwhile."""
        place = self._place(cell)
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=place.parent, prefix="."))
        try:
            for name, content in files.items():
                path = scratch / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            (scratch / "cell.json").write_text(json.dumps({"label": cell.label, **cell.spec}, indent=1))
            scratch.chmod(0o755)
            try:
                os.rename(scratch, place)
            except OSError:  # a folder that holds anything cannot be replaced at once
                if not self.has(cell):
                    raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        self._failed(cell).unlink(missing_ok=True)

    def keep_failure(self, cell: Cell, error: str) -> None:
        """Write why a cell failed."""
        text = f"{cell.label}\n{error}\n"
        write_text(self._failed(cell), text)

    def _place(self, cell: Cell) -> Path:
        return self.folder / "cells" / cell.key

    def _failed(self, cell: Cell) -> Path:
        return self.folder / "failed" / f"{cell.key}.txt"
