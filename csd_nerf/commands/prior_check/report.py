"""Runs the measurements of `measure`, compares them with the gates, and writes table, file, pictures and card."""

import datetime
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from csd_nerf.commands.prior_check import sheets
from csd_nerf.commands.prior_check.command import PriorCheck
from csd_nerf.commands.prior_check.kinds import KINDS
from csd_nerf.commands.prior_check.measure import (
    CaptionSamples,
    EditSamples,
    GateSettings,
    HatSamples,
    PhotoSamples,
    Report,
    measure_captions,
    measure_edits,
    measure_hats,
    measure_photos,
    read_held_out_photos,
)
from csd_nerf.priors import LatentDiffusionPrior, load_prior
from csd_nerf.toyworld.judging import gates
from csd_nerf.toyworld.judging.gates import Gate, all_passed
from csd_nerf.toyworld.judging.hats import CLEAR, clear_colours
from csd_nerf.toyworld.style_nets import PAINTINGS, load_style_nets
from csd_nerf.toyworld.training.card import machine
from csd_nerf.toyworld.training.card_parts import markdown_table, replace_gates
from csd_nerf.whole_files import write_text

PHOTO_GATES = ("sketch", "oil", "night", *PAINTINGS)
"""Styles that photos must show."""
_HEADER = ("gate", "measured", "bound", "verdict", "of")


@dataclass(frozen=True)
class Measured:
    """Everything that was measured; None for photos without any."""

    edits: list[EditSamples]
    hats: list[HatSamples]
    captions: CaptionSamples
    photos: list[PhotoSamples] | None
    seconds: float


def check_prior(flags: PriorCheck, console: Console) -> bool:
    """Measure and write everything; returns whether all measured gates pass.

    Raises:
        PriorLayoutError: the prior cannot edit.
        PriorNotFoundError: there is no such prior.
    """
    settings = flags.settings()
    nets = load_style_nets(flags.style_nets)
    prior = load_prior(flags.prior, needs_image=True)
    assert isinstance(prior, LatentDiffusionPrior)  # as are all that take a picture
    photos = None if flags.photos is None else read_held_out_photos(flags.photos, settings.photos, prior.size)
    started = time.monotonic()
    with _reporting(console) as report:
        measured = Measured(
            edits=measure_edits(prior, settings, nets, report),
            hats=measure_hats(prior, settings, report),
            captions=measure_captions(prior, settings, report),
            photos=None if photos is None else measure_photos(prior, settings, photos, nets, report),
            seconds=time.monotonic() - started,
        )
    results = judge(measured, flags.photos is not None, bool(nets))
    flags.output.mkdir(parents=True, exist_ok=True)
    pictures = sheets.write_sheets(flags.output, measured.edits, measured.hats, measured.captions)
    if photos is not None and measured.photos is not None:
        pictures.append(sheets.write_photos(flags.output, photos, measured.photos))
    where = machine(str(prior.device))
    facts = {
        "prior": flags.prior,
        "command": flags.command(),
        "date": datetime.date.today().isoformat(),
        "machine": where,
        "torch": torch.__version__,
        "seconds": round(measured.seconds, 1),
        "settings": vars(settings),
    }
    text = json.dumps({**facts, "passed": all_passed(results), **_numbers(measured, results)}, indent=1) + "\n"
    write_text(flags.output / "check.json", text)
    _print(console, results, measured, flags.output)
    if flags.write_card:
        write_gates_card(flags.card(), results, measured, facts, pictures)
        console.print(f"{flags.card()} written", markup=False, highlight=False, soft_wrap=True)
    return all_passed(results)


def judge(measured: Measured, with_photos: bool, with_nets: bool) -> list[Gate]:
    """The gates, with what was measured; those for which there was no material say so."""
    results = [_edit_gate(kind.name, measured.edits) for kind in KINDS]
    colours = [len(clear_colours(one.verdicts)) for one in measured.hats]
    count = len(measured.hats[0].verdicts)
    note = f"fewest on one of {len(colours)} scenes, {count} seeds each; all: {', '.join(map(str, colours))}"
    results.append(Gate("hat colours", float(min(colours)), gates.MINIMAL_HAT_COLOURS, True, note))
    results += _caption_gates(measured.captions)
    for style in PHOTO_GATES:
        found = [one for one in measured.photos or [] if one.style == style]
        name = f"photos: {style.replace('_', ' ')}"
        missing = "--photos" if not with_photos else "--style-nets" if not with_nets else f"{style}.safetensors"
        if not found:
            results.append(Gate(name, None, gates.MINIMAL_STYLES, True, f"needs {missing}"))
            continue
        nearest = found[0].nearest
        share = sum(other == style for other in nearest) / len(nearest)
        results.append(Gate(name, share, gates.MINIMAL_STYLES, True, f"recognised on {len(nearest)} held-out photos"))
    return results


def _edit_gate(kind: str, edits: Sequence[EditSamples]) -> Gate:
    found = [one for one in edits if one.kind == kind]
    if not found:
        return Gate(kind, None, gates.MAXIMAL_ERROR, False, "needs --style-nets")
    low, high = found[0].interval
    note = f"error of {len(found[0].instructions)} held-out edits, 95 % interval {low:.2f} to {high:.2f}"
    note += ", which has the bound in it" if low <= gates.MAXIMAL_ERROR < high else ""
    return Gate(kind, found[0].error, gates.MAXIMAL_ERROR, False, note)


def _caption_gates(captions: CaptionSamples) -> list[Gate]:
    count = len(captions.asked)
    scenes = [one.scene for one in captions.asked]
    right = _share(v.right(s) for v, s in zip(captions.verdicts, scenes, strict=True))
    thing = _share(v.object == s.object for v, s in zip(captions.verdicts, scenes, strict=True))
    colour = _share(v.colour == s.colour for v, s in zip(captions.verdicts, scenes, strict=True))
    judge_right = _share(v.right(s) for v, s in zip(captions.true_verdicts, scenes, strict=True))
    return [
        Gate(
            "captions: object and colour",
            right,
            gates.MINIMAL_CAPTIONS,
            True,
            f"{count} captions; object {thing:.2f}, colour {colour:.2f}",
        ),
        Gate(
            "captions: the judge itself", judge_right, gates.MINIMAL_JUDGE, True, f"{count} true pictures, named right"
        ),
    ]


def _share(hits: Any) -> float:
    values = [bool(hit) for hit in hits]
    return sum(values) / len(values)


def write_gates_card(
    card: Path, results: list[Gate], measured: Measured, facts: dict[str, Any], pictures: Sequence[sheets.Sheet]
) -> None:
    """Replace the card's section on gates, and put the pictures beside it as `gates_<name>.png`."""
    settings = GateSettings(**facts["settings"])
    open_kinds = [one for one in measured.edits if not one.deterministic]
    ambiguous = "; ".join(f"{one.kind} {one.error:.2f}" for one in open_kinds)
    parts = [
        f"`{facts['command']}` measured this on {facts['date']} ({facts['machine']}; "
        f"{facts['seconds'] / 60:.0f} minutes): {gates.STEPS} DDIM steps of each picture by itself, image guidance "
        f"{gates.IMAGE_GUIDANCE:g}, text guidance {settings.guidance:g}, from captions alone "
        f"{settings.caption_guidance:g}. Scenes and photos are held out.",
        markdown_table(_HEADER, [gate.row() for gate in results]),
        "Errors are squared pixel errors to the true edit, divided by those of leaving the picture unchanged. "
        f"Ambiguous instructions have no single truth and no gate; their errors to one of the truths: {ambiguous}. "
        "A hat's colour is judged by true pictures of the scene with every hat, and counts if the distance to it is at "
        f"most {CLEAR:g} of that to the runner-up. A picture from a caption is judged by its nearest among true "
        f"pictures of every object in every colour ({settings.cameras} cameras and shapes each), or of bare ground; "
        "since it has to choose, it names shapes that an eye may not: look at the sheet too. A photo's style is "
        "recognised if the picture is nearer to this style's own output on the photo than to any other style's and to "
        "the photo.",
    ]
    for sheet in pictures:
        name = f"gates_{sheet.path.name}"
        sheet.save_small(card.parent / name)
        parts.append(f"{sheet.title}\n\n![{sheet.path.stem}]({name})")
    text = replace_gates(card.read_text(encoding="utf-8"), "\n\n".join(parts))
    write_text(card, text)


def _numbers(measured: Measured, results: Sequence[Gate]) -> dict[str, Any]:
    """The part of check.json that was measured."""
    captions = measured.captions
    return {
        "gates": [{**vars(gate), "verdict": gate.verdict} for gate in results],
        "edits": {
            one.kind: {
                "error": one.error,
                "interval": one.interval,
                "count": len(one.instructions),
                "gated": one.deterministic,
            }
            for one in measured.edits
        },
        "hats": [
            {
                "object": one.scene.object,
                "seed": one.scene.seed,
                "clear colours": clear_colours(one.verdicts),
                "verdicts": [{**vars(verdict), "clear": verdict.clear} for verdict in one.verdicts],
            }
            for one in measured.hats
        ],
        "captions": [
            {"words": asked.words, "right": drawn.right(asked.scene), "drawn": vars(drawn), "true picture": vars(true)}
            for asked, drawn, true in zip(captions.asked, captions.verdicts, captions.true_verdicts, strict=True)
        ],
        "photos": {one.style: one.nearest for one in measured.photos or []},
    }


def _print(console: Console, results: Sequence[Gate], measured: Measured, output: Path) -> None:
    table = Table(*_HEADER)
    for gate in results:
        style = {True: "green", False: "bold red", None: "yellow"}[gate.passed]
        *cells, verdict, note = gate.row()
        table.add_row(*cells, f"[{style}]{verdict}[/]", note)
    Console().print(table)
    for one in measured.edits:
        if not one.deterministic:
            console.print(
                f"{one.kind} (ambiguous, no gate): error to one of the truths {one.error:.2f}", highlight=False
            )
    unmeasured = [gate for gate in results if gate.passed is None]
    if unmeasured:
        names = ", ".join(f"{gate.name} ({gate.note})" for gate in unmeasured)
        console.print(f"Not measured: {names}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{output}: check.json and pictures, {measured.seconds:.0f} s", markup=False, soft_wrap=True)


class _reporting:  # noqa: N801
    """A progress bar for each thing that is done."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
        self._bar, self._tasks = Progress(*columns, console=console, transient=True), dict[str, TaskID]()

    def __enter__(self) -> Report:
        self._bar.start()
        return self._report

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _report(self, what: str, done: int, total: int) -> None:
        task = self._tasks.get(what) or self._bar.add_task(what)
        self._tasks[what] = task
        self._bar.update(task, completed=done, total=total)
