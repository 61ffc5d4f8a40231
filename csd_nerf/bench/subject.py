"""How a benchmark speaks about what it edits: its methods, its measures and its words."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from csd_nerf.bench.methods import METHODS, Method


@dataclass(frozen=True)
class Note:
    """One line of a report's legend."""

    text: str
    measure: str | None = None
    """It is left out where this was not measured."""


@dataclass(frozen=True)
class Panel:
    """One panel of a sweep: fidelity over a measure of consistency."""

    ambiguous: bool
    """Of which instructions."""
    measure: str
    label: str
    """Of its axis."""
    title: str


@dataclass(frozen=True)
class Subject:
    """What is edited."""

    name: str
    """Of the benchmark: `scenes`, `panorama`, `video`."""
    noun: str
    """One of them: what means are taken over, and a contact sheet shows."""
    title: str
    """Of the report."""
    made_of: str
    """What one consists of, for each of which samples are counted: `view`, `patch`, `frame`."""
    methods: Mapping[str, Method]
    """By name, in the order of the tables."""
    deterministic: tuple[str, ...]
    """Measures of the table of deterministic instructions; those that no cell has are left out."""
    ambiguous: tuple[str, ...]
    """The same of ambiguous instructions."""
    about: Callable[[Any], str]
    """What was done, from the protocol."""
    legend: tuple[Note, ...]
    """What the columns are."""
    panels: tuple[Panel, ...]
    """Of the sweep."""
    counted: str = "steps"
    """Name in results of how often the editor was at work."""
    spent: tuple[str, ...] = ("network_samples", "edit_seconds", "seconds", "processor_seconds", "threads")
    """What results say of costs."""

    @property
    def samples(self) -> str:
        """Title of the column of UNet samples."""
        return f"samples per {self.made_of}"


def _about(protocol: Any) -> str:
    budget = protocol.budget
    return (
        f"{budget.views} training views of {protocol.size} x {protocol.size} pixels each. A scene is trained on its "
        f"photos once ({protocol.scene_steps} NeRF steps) and every method goes on from there, with "
        f"{budget.nerf_steps} NeRF steps and {budget.samples_per_view} UNet samples per training view, as nearly as "
        "its step size allows. All keep the photos' detail where they change nothing (`keep-detail`). Measured on "
        f"{protocol.held_out} views that no training saw."
    )


TO_THE_TRUTH = Note(
    "- **PSNR**, **SSIM**: to the true edit; if the instruction is ambiguous, to that nearest to the result."
)
STAND_IN = Note(
    "- **ST-LPIPS** (Ghildyal and Liu 2022) stands in for LPIPS, whose network could not be had.", "ST-LPIPS"
)
STRENGTH = Note(
    "- **edit strength**: change of the edited part over that of the true edit: 0 is no edit, 1 the true one."
)
SCENES = Subject(
    name="scenes",
    noun="scene",
    title="Edits of toy scenes against their true edits",
    made_of="view",
    methods=METHODS,
    deterministic=("PSNR", "SSIM", "LPIPS", "ST-LPIPS", "change outside", "edit strength"),
    ambiguous=("view agreement", "colour spread", "warp error", "edit strength", "PSNR", "change outside"),
    about=_about,
    legend=(
        TO_THE_TRUTH,
        STAND_IN,
        Note(
            "- **change outside**: mean absolute difference to the unedited NeRF where the true edit changes nothing; "
            "empty where it changes everything."
        ),
        STRENGTH,
        Note(
            "- **samples per view**: UNet samples that the run counted, per training view. **seconds**: NeRF steps and "
            "rounds, on the threads of one worker."
        ),
        Note(
            "- **view agreement**: share of the edited *training* views that show the commonest colour, judged by the "
            "nearest true edit of each; a view that shows none counts against it. This is what the editor does, before "
            "the scene averages its views.",
            "colour spread",
        ),
        Note(
            "- **colour spread**: standard deviation over views of the mean colour of the edited part. **warp error**: "
            "mean difference of the edited part between neighbouring views, through the surface of the nearest true "
            "edit. Shading alone gives the true edit more than 0, and to be below it is no merit; a method that does "
            "nothing keeps the photos' own, so read both beside the edit strength. To a weak edit that true edit is "
            "nearest which shows least.",
            "colour spread",
        ),
    ),
    panels=(
        Panel(False, "change outside", "unedited region: mean change", "Deterministic instructions"),
        Panel(True, "view agreement", "share of edited views that agree", "Ambiguous instructions"),
    ),
    counted="rounds",
    spent=("network_samples", "nerf_seconds", "edit_seconds", "seconds", "processor_seconds", "threads"),
)
"""Scenes that a NeRF shows."""
