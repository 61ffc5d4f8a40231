"""The cells of the tables with what came of each: from the store of cells, or from an earlier table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from csd_nerf.bench.plan import Cell, Plan
from csd_nerf.bench.store import Store

SCENE_PSNR = "scene PSNR"
"""A measure of every edit: PSNR of its scene's renders to the held-out photos before any edit, in dB."""
Key = tuple[int, str, int]
"""Scene, instruction's name, seed."""


@dataclass(frozen=True)
class Row:
    """One edit cell and what came of it."""

    cell: Cell
    result: Mapping[str, Any] | None
    """None if it is missing."""

    @property
    def key(self) -> Key:
        """What is compared with what."""
        return self.cell.spec["scene"]["seed"], self.cell.name, self.cell.spec["seed"]

    @property
    def method(self) -> str:
        """Its method."""
        return self.cell.spec["method"]

    def value(self, measure: str) -> float | None:
        """A measure, or `samples` per view, or `seconds` of editing and NeRF steps; None where there is none."""
        if self.result is None:
            return None
        if measure == "samples":
            return self.result["network_samples"] / self.cell.spec["views"]
        if measure == "seconds":
            return self.result.get("nerf_seconds", 0.0) + self.result["edit_seconds"]
        return self.result["measures"].get(measure)


def rows_of(plan: Plan, store: Store, table: Mapping[str, Mapping[str, Any]] | None = None) -> list[Row]:
    """All edit cells of a plan with their results, from the store or else from an earlier table (`report.from_csv`)."""
    by_key = {cell.key: cell for cell in plan.cells}

    def found(cell: Cell) -> Mapping[str, Any] | None:
        result = store.result(cell) or (table or {}).get(cell.key)
        scene = store.result(by_key[cell.needs[0]])
        if result is None or scene is None or "PSNR to the photos" not in scene:
            return result
        return {**result, "measures": {**result["measures"], SCENE_PSNR: scene["PSNR to the photos"]}}

    return [Row(cell, found(cell)) for cell in plan.edits()]
