"""`csd metrics`: scores of pictures before and after an edit. Heavy libraries load when it runs, not for its help."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console

if TYPE_CHECKING:
    from csd_nerf.metrics.catalogue import Comparison
    from csd_nerf.metrics.pictures import Pictures

_console = Console(stderr=True)
_NETWORKS = {"encoder": "CLIP", "perceptual": "LPIPS", "inception": "Inception-v3"}


@dataclass(frozen=True)
class Metrics:
    """Score pictures after an edit against those before it: pictures, folders, videos, or nerfstudio runs."""

    before: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="BEFORE")] = None
    """A picture, a folder of pictures, or a video, before the edit."""
    after: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="AFTER")] = None
    """The same after the edit, in the same order."""
    frames: str = ""
    """A:B:S, as Python slices: those of BEFORE, AFTER and --truth alike, of videos and folders; default: all."""
    load_config: tuple[Path, ...] = ()
    """config.yml of a csd-edit run, which keeps the scene before its edit; or of two nerfstudio runs on the same
    photos, before and after."""
    views: Literal["auto", "held-out", "training"] = "auto"
    """Views of a run; auto: those that training never saw, where there are any."""
    metrics: tuple[str, ...] = ("auto",)
    """Names, see --explain; auto: whatever the pictures and texts allow."""
    source_text: str | None = None
    """Describes the pictures before the edit."""
    target_text: str | None = None
    """Describes the pictures after the edit (it is not the instruction)."""
    truth: Path | None = None
    """What the pictures should have become, for PSNR, SSIM, LPIPS, and FID; for FID alone a set of any number."""
    clip: str | None = None
    """A model of open_clip; default: ViT-bigG-14 as in the paper (10 GB, downloaded at its first use)."""
    clip_weights: str | None = None
    """Local file of the model's weights, or a tag that open_clip knows."""
    clip_tag: str | None = None
    """Tag of open_clip that a local file is of, or was trained like: it decides activation and preprocessing."""
    lpips: Literal["auto", "lpips", "st-lpips"] = "auto"
    """auto: ST-LPIPS, named so, where LPIPS's AlexNet cannot be had."""
    inception: Path | None = None
    """TorchScript of Inception-v3 for FID; default: torch-fidelity's, downloaded at its first use."""
    retrieval_set: Path | None = None
    """Text file for R-precision, a text in each line; without --target-text line i belongs to picture i."""
    explain: bool = False
    """Print each metric's formula, direction and reference, and end."""
    json: Path | None = None
    """Write everything here, each single value included."""
    csv: Path | None = None
    """Write the table here."""

    def run(self) -> int:
        """Compute, print, and write."""
        from csd_nerf.metrics.evaluation import Networks, evaluate, load_models, plan

        if self.explain:
            self._explain()
            return 0
        self._check_flags()
        networks = Networks(self.clip, self.clip_weights, self.clip_tag, self.lpips, self.inception, _device())
        with _progress() as progress:
            comparison = self._read(progress)
            made = plan(comparison, self._named())
            for one in (comparison.before, comparison.after, comparison.truth):
                if one is not None and one.kind != "views":
                    progress.say(f"reading {one.source}")
                    _ = one.images
            models = load_models(made, networks, lambda network: progress.say(f"loading {_NETWORKS[network]}"))
            for one in (comparison.before, comparison.after):
                progress.begin(f"views of {one.source.removeprefix('--load-config ')}")
                _ = one.images
            report = evaluate(comparison, made, models, progress.say)
        console = Console()
        console.print(report.table())
        for note in report.notes():
            console.print(note, markup=False, highlight=False, soft_wrap=True)
        for path, text in ((self.json, report.to_json), (self.csv, report.to_csv)):
            if path is not None:
                _write(path, text())
        return 0

    def _explain(self) -> None:
        from csd_nerf.metrics.catalogue import METRICS

        console = Console()
        for name, metric in METRICS.items():
            console.print(f"[bold]{name}[/bold]", highlight=False)
            console.print(metric.explanation() + "\n", markup=False, highlight=False, soft_wrap=True)

    def _named(self) -> tuple[str, ...]:
        """The metrics that were asked for by name."""
        return () if self.metrics == ("auto",) else self.metrics

    def _check_flags(self) -> None:
        """What can be known to fail from the flags alone, or to have no effect."""
        from csd_nerf.commands.metrics_flags import check_names, check_used

        if self.load_config and (self.before or self.after):
            raise ValueError("give either BEFORE and AFTER or --load-config, not both")
        if not self.load_config and not (self.before and self.after):
            raise ValueError(
                "give BEFORE and AFTER (pictures, folders or videos), or --load-config config.yml of a run"
            )
        if self.frames and self.load_config:
            raise ValueError("--frames is for pictures in files: leave it out with --load-config")
        if self.views != "auto" and not self.load_config:
            raise ValueError(f"--views {self.views} is for runs: give --load-config, or leave it out")
        if self.metrics != ("auto",):
            check_names(self.metrics)
            check_used(self.metrics, self._choices())
        if self.inception is not None and not self.inception.is_file():
            raise ValueError(f"--inception {self.inception} is no file: give a TorchScript of Inception-v3")
        for flag, text in (("--source-text", self.source_text), ("--target-text", self.target_text)):
            if text is not None and not text.strip():
                raise ValueError(f"{flag} is empty: describe the pictures, or leave the flag out")
        if (self.clip, self.clip_weights, self.clip_tag) != (None, None, None):
            from csd_nerf.metrics.openclip import MODEL, choose_weights

            choose_weights(self.clip or MODEL, self.clip_weights, self.clip_tag)
        for flag, path in (("--json", self.json), ("--csv", self.csv)):
            if path is not None and (reason := _unwritable(path)):
                raise ValueError(f"{flag} {path} cannot be written ({reason}): give another file")

    def _choices(self) -> dict[str, bool]:
        """Flags that are for some metrics only, and whether they are given."""
        names = (
            "source_text",
            "target_text",
            "truth",
            "retrieval_set",
            "clip",
            "clip_weights",
            "clip_tag",
            "inception",
        )
        given = {f"--{name.replace('_', '-')}": getattr(self, name) is not None for name in names}
        return given | {"--lpips": self.lpips != "auto"}

    def _read(self, progress: "_Progress") -> "Comparison":
        from csd_nerf.commands.picture_sets import check_memory, read_pictures
        from csd_nerf.images.frame_range import FrameRange
        from csd_nerf.metrics.catalogue import Comparison
        from csd_nerf.metrics.pictures import paired

        retrieval = self._texts()
        frames = FrameRange.parse(self.frames) if self.frames else FrameRange()
        if self.load_config:
            from csd_nerf.commands.metrics_runs import read_runs

            before, after = read_runs(self.load_config, self.views, progress.step)
        else:
            assert self.before is not None and self.after is not None
            before, after = (
                read_pictures(path, flag, frames) for path, flag in ((self.before, "BEFORE"), (self.after, "AFTER"))
            )
            _tell_pairs(before, after)
        truth = read_pictures(self.truth, "--truth", frames) if self.truth is not None else None
        check_memory([one for one in (before, after, truth) if one is not None and one.kind != "views"])
        if truth is not None and set(self.metrics) != {"fid"}:  # which compares sets, of any number and size
            truth = paired(truth, after)
        return Comparison(before, after, truth, self.source_text, self.target_text, retrieval)

    def _texts(self) -> tuple[str, ...]:
        """The retrieval set."""
        if self.retrieval_set is None:
            return ()
        try:
            lines = self.retrieval_set.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(
                f"--retrieval-set {self.retrieval_set} cannot be read ({error}): give a file with a text in each line"
            ) from error
        texts = [line.strip() for line in lines if line.strip()]
        for text in texts:
            if texts.count(text) > 1:
                raise ValueError(f"--retrieval-set {self.retrieval_set} has {text!r} twice: take one of them out")
        if not texts:
            raise ValueError(f"--retrieval-set {self.retrieval_set} is empty: give a text in each line")
        return tuple(texts)


class _Progress:
    """One line that says what is going on, with an estimate where there is something to count."""

    def __init__(self, bar: Any) -> None:
        self._bar, self._task = bar, bar.add_task("reading", total=None)

    def say(self, what: str) -> None:
        """Name what begins now."""
        self._bar.update(self._task, description=what, completed=0, total=None)

    def begin(self, what: str) -> None:
        """Name what begins now and will be counted."""
        self._bar.reset(self._task, description=what, total=None)

    def step(self, done: int, total: int) -> None:
        """Count."""
        self._bar.update(self._task, completed=done, total=total)


@contextmanager
def _progress() -> Iterator[_Progress]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_console, transient=True) as bar:
        yield _Progress(bar)


def _tell_pairs(before: "Pictures", after: "Pictures") -> None:
    """Folders whose names differ are paired in order; that may not be what was meant."""
    if before.kind == after.kind == "pictures" and len(before) == len(after) > 1 and before.names != after.names:
        first, last = (f"{before.names[i]} with {after.names[i]}" for i in (0, -1))
        _console.print(
            f"The files have different names and are compared in their order: {first}, ... {last}.",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _unwritable(path: Path) -> str | None:
    """Why a file cannot be written; makes nothing."""
    if path.is_dir():
        return "it is a folder"
    if path.exists():
        return None if os.access(path, os.W_OK) else "no permission"
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        return f"{folder} is no folder"
    return None if os.access(folder, os.W_OK) else f"no permission in {folder}"


def _write(path: Path, text: str) -> None:
    from csd_nerf.whole_files import write_text

    write_text(path, text)
    _console.print(f"{path} written", markup=False, highlight=False, soft_wrap=True)
