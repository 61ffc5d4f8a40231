"""The run's `edits` folder: every edited view as PNG, a contact sheet of each round, and `edits.json`.

    edits/edits.json
    edits/round_0001/view_0007.png      view 7 (counted in the training set) as edited in round 1
    edits/round_0001/contact_sheet.png  original | render | edited; where rounds are many, of a pass in its last round
    edits/round_0002_partial/...        what a round had reached that failed; never trained on

Files are whole or absent, and `edits.json` is written after the pictures it lists. Where rounds are many it is written
with the next checkpoint, not in each of them: it names all rounds, and would cost more than what it tells.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from torch import Tensor

from csd_nerf.scenes.errors import SceneError
from csd_nerf.scenes.files import read_picture, write_atomically, write_json, write_picture

VERSION = 1


@dataclass
class EditRecord:
    """What was edited when, on disk."""

    folder: Path
    """The run's `edits` folder."""
    about: dict[str, Any] = field(default_factory=dict)
    """What holds for the whole run: data, prior, view names."""
    rounds: list[dict[str, Any]] = field(default_factory=list)
    """One entry for each finished round."""
    events: list[dict[str, Any]] = field(default_factory=list)
    """What else happened to the training views: originals restored, rounds that failed."""
    _behind: bool = field(default=False, init=False)
    """Whether `edits.json` lacks a round."""

    def picture_path(self, number: int, view: int) -> Path:
        """Where the picture of a view edited in a round is."""
        return self.folder / f"round_{number:04d}" / f"view_{view:04d}.png"

    def sheet_path(self, number: int) -> Path:
        """Where the contact sheet of a round is."""
        return self.folder / f"round_{number:04d}" / "contact_sheet.png"

    @property
    def network_samples(self) -> int:
        """Rows through the prior's network in all rounds."""
        return sum(entry["network_samples"] for entry in self.rounds)

    def write_round(
        self,
        number: int,
        entry: Mapping[str, Any],
        pictures: Mapping[int, UInt8[Tensor, "_h _w 3"]],
        sheet: UInt8[Tensor, "H W 3"] | None,
        *,
        flush: bool = True,
    ) -> None:
        """Write a finished round. Raises `SceneError` when the disk is full; earlier rounds are then intact.

        Without `flush` the index on the disk does not know the round before `flush()`.
        """
        paths = {view: self.picture_path(number, view) for view in pictures}
        for leftover in set(self.sheet_path(number).parent.glob("view_*.png")) - set(paths.values()):
            leftover.unlink()  # of a run that was interrupted here and resumed with other flags
        for view, picture in pictures.items():
            write_picture(paths[view], picture)
        if sheet is not None:
            write_picture(self.sheet_path(number), sheet)
        else:
            self.sheet_path(number).unlink(missing_ok=True)
        files = {str(view): str(path.relative_to(self.folder)) for view, path in paths.items()}
        while self.rounds and self.rounds[-1]["round"] >= number:
            self.rounds.pop()
        self.rounds.append({"round": number, **entry, "views": files})
        self._behind = True
        if flush:
            self.flush()

    def flush(self) -> None:
        """Write the index if it does not know all rounds."""
        if self._behind:
            self._write_index()

    def last_sheet(self) -> tuple[int, UInt8[Tensor, "H W 3"]] | None:
        """The newest contact sheet that there is, with its round."""
        for entry in reversed(self.rounds):
            if self.sheet_path(entry["round"]).is_file():
                return entry["round"], read_picture(self.sheet_path(entry["round"]))
        return None

    def write_partial(
        self, number: int, entry: Mapping[str, Any], pictures: Mapping[int, UInt8[Tensor, "_h _w 3"]]
    ) -> Path:
        """Keep what a failed round had reached; returns its folder."""
        folder = self.folder / f"round_{number:04d}_partial"
        for view, picture in pictures.items():
            write_picture(folder / f"view_{view:04d}.png", picture)
        self.add_event({"event": "round failed", "round": number, **entry})
        return folder

    def add_event(self, event: Mapping[str, Any]) -> None:
        """Note something that happened between or in rounds."""
        self.events.append(dict(event))
        self._write_index()

    def resume(self, source: Path, rounds: int, step: int) -> None:
        """Take over the first `rounds` rounds of the record in `source`, which may be this folder itself.

        What came after NeRF step `step` is dropped: the checkpoint does not know it. Raises `SceneError` if the record
        is missing or damaged.
        """
        index = source / "edits.json"
        if rounds == 0:
            return
        if not index.is_file():
            raise SceneError(
                f"--load-dir: the checkpoint has {rounds} rounds of edits, but {index} is missing. Keep the run's "
                "edits folder next to its nerfstudio_models folder, or start from its scene folder."
            )
        try:
            kept = json.loads(index.read_text())
            self.rounds = [entry for entry in kept["rounds"] if entry["round"] <= rounds]
            self.events = [event for event in kept["events"] if event["step"] <= step]
        except (ValueError, KeyError, TypeError) as error:
            raise SceneError(f"--load-dir: {index} is damaged ({error}): start from the run's scene folder.") from error
        for entry in self.rounds:
            for file in [*entry["views"].values(), str(self.sheet_path(entry["round"]).relative_to(self.folder))]:
                self._take_over(source / file, self.folder / file)
        self._write_index()

    def read(self, number: int, view: int) -> UInt8[Tensor, "h w 3"]:
        """The picture of a view as edited in a round."""
        path = self.picture_path(number, view)
        try:
            return read_picture(path)
        except OSError as error:
            raise SceneError(
                f"--load-dir: the checkpoint needs the edited view {path} ({error}). Keep the run's edits folder next "
                "to its nerfstudio_models folder, or start from its scene folder."
            ) from error

    def _take_over(self, source: Path, target: Path) -> None:
        if source.resolve() == target.resolve() or not source.is_file():
            return
        content = source.read_bytes()
        write_atomically(target, lambda file: file.write(content))

    def _write_index(self) -> None:
        content = {"version": VERSION, **self.about, "rounds": self.rounds, "events": self.events}
        write_json(self.folder / "edits.json", content)
        self._behind = False


def view_names(paths: Sequence[Path]) -> list[str]:
    """File names of the training views, for `edits.json`."""
    return [path.name for path in paths]
