"""`csd synthesize`: pictures of a caption, and LDP's Figure 7. Heavy libraries load when it runs, not for its help."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from csd_nerf.commands.edit_flags import own_flags
from csd_nerf.commands.loss_flags import LossFlags, loss_words
from csd_nerf.commands.sitting import conclude, ended_at_once, finishing, say, sitting
from csd_nerf.durations import duration

if TYPE_CHECKING:
    from csd_nerf.images.checkpoint import Checkpoint
    from csd_nerf.images.synthesis import SynthesisResult, SynthesisSettings
    from csd_nerf.images.synthesis_run import Synthesis

_SHEET_CELL = 192
_RECORD = "synthesis.json"
_OWN = re.compile(r"(lsd_(fm_)?(kl_)?)?\d+\.png|samples\.png|ablation\.png")
"""Names that this command gives; a record that was tampered with cannot have others removed."""


@dataclass(frozen=True)
class Synthesize:
    """Make pictures of a caption from noise: free latents that the losses of LDP Eq. 4 train.

    Ctrl-C writes what is reached; the same command with --resume goes on from there.
    """

    prompt: str = ""
    """The caption, such as "a red mushroom on a meadow, front view"."""
    output: Path = Path("outputs/synthesis")
    """Folder for the pictures 000.png ..., all of them in samples.png, and what was asked for in synthesis.json. What
    an earlier run wrote there goes, and nothing else."""
    samples: int = 1
    """Pictures of the caption."""
    kernel: Literal["rbf", "independent"] = "rbf"
    """How samples listen to each other: by CSD's kernel, or not at all (SDS)."""
    noise: Literal["independent", "shared"] = "independent"
    """Whether all samples see one noise or each its own."""
    ablation: bool = False
    """Make them four times from the same noise: LSD alone, with FM, with KL, and with both (LDP Figure 7)."""
    resume: bool = False
    """Go on from where this command was stopped."""
    flags: Annotated[LossFlags, tyro.conf.arg(name="")] = field(default_factory=LossFlags)

    def run(self) -> int:
        """Make and write them; status 130 if it was stopped."""
        with own_flags():
            return self._run()

    def _run(self) -> int:
        from csd_nerf.images.checkpoint import checkpoint_path, load_checkpoint
        from csd_nerf.images.synthesis_run import prepare_synthesis

        kept, settings = self._check(), self._settings()
        asked = {"prompt": self.prompt, "ablation": self.ablation, **self.flags.asked(settings)}
        before = load_checkpoint(checkpoint_path(kept), asked) if self.resume else None
        prior, flags = self.flags.load(needs_image=False), self.flags
        work = prepare_synthesis(prior, self.prompt, settings, self.ablation, flags.negative, flags.seed)
        say(
            f"{self.samples} picture{'s' * (self.samples > 1)} of {work.prior.size} x {work.prior.size} pixels, "
            + (f"{len(work.variants)} sets of losses of " if self.ablation else "")
            + f"{work.settings.steps} steps"
            + (f", going on from step {before.step}" if before else "")
        )
        with finishing(kept, asked):
            result, failure = self._make(work, kept, before, asked)
            if result.checkpoint.step == 0:
                return ended_at_once(failure)
            self._write(work, result, kept, asked)
        return conclude(kept, asked, result.checkpoint, work.total, result.complete, failure)

    def _check(self) -> Path:
        """What can be said before anything is loaded; the file of the sheet."""
        from csd_nerf.images.checkpoint import checkpoint_path, load_checkpoint
        from csd_nerf.images.picture_files import check_picture_output

        if not self.prompt.strip():
            raise ValueError('--prompt is empty: give a caption, such as --prompt "a red mushroom on a meadow"')
        if self.output.exists() and not self.output.is_dir():
            raise ValueError(f"--output {self.output} is a file: give a folder")
        sheet = self.output / ("ablation.png" if self.ablation else "samples.png")
        check_picture_output(sheet)
        if self.resume and not checkpoint_path(sheet).is_file():
            load_checkpoint(checkpoint_path(sheet), {})  # which says what is wrong
        return sheet

    def _settings(self) -> "SynthesisSettings":
        """What the flags say. Raises `ValueError` for what cannot work."""
        from csd_nerf.distill import LDP_WEIGHTS
        from csd_nerf.images.synthesis import TOY, SynthesisSettings, check_ablation

        chosen = self.flags.chosen(TOY, LDP_WEIGHTS["synthesis"])
        settings = SynthesisSettings(**chosen, samples=self.samples, kernel=self.kernel, noise=self.noise)
        settings.validate()
        if self.ablation:
            check_ablation(settings.losses)
        return settings

    def _make(
        self, work: "Synthesis", kept: Path, before: "Checkpoint | None", asked: dict[str, Any]
    ) -> "tuple[SynthesisResult, Exception | None]":
        """Do the work: the result, and why it ended before its time."""
        from csd_nerf.distill import NonFiniteError

        with sitting(kept, asked, before.step if before else 0, "Synthesizing") as hooks:
            try:
                return work.run(before, hooks), None
            except NonFiniteError as error:
                if error.partial is None:  # there is nothing to show
                    raise
                return error.partial, error

    def _write(self, work: "Synthesis", result: "SynthesisResult", kept: Path, asked: dict[str, Any]) -> None:
        """Write the pictures, and what there is to know of them."""
        from csd_nerf.images.picture_files import write_picture
        from csd_nerf.images.writing import contact_sheet
        from csd_nerf.whole_files import write_atomically, write_text

        earlier, written = _written(self.output), []
        begun = -(-result.checkpoint.step // work.settings.steps)
        rows = [(name, list(images)) for name, images in list(zip(result.names, result.images, strict=True))[:begun]]
        for name, images in rows:
            stem = name.lower().replace(" + ", "_") + "_" if name else ""
            for number, image in enumerate(images):
                written.append(f"{stem}{number:03d}.png")
                write_picture(self.output / written[-1], image)
        sheet = contact_sheet(rows, scale=max(1, _SHEET_CELL // work.prior.size))
        write_atomically(kept, lambda temporary: sheet.save(temporary))
        state, norms = result.checkpoint, {}
        for name, losses in zip(result.names, result.losses, strict=True):
            if losses is not None:
                say(f"{name + ': ' if name else ''}{loss_words(losses)} over the last tenth of the steps")
                norms[name or "all"] = {
                    key: part and {"value": part.value, "gradient norm": part.gradient_norm}
                    for key, part in vars(losses).items()
                }
        written.append(kept.name)
        facts = {**asked, "steps made": state.step, "losses, last tenth": norms, "files": written}
        text = json.dumps(facts, indent=1)
        write_text(self.output / _RECORD, text + "\n")
        for name in earlier - set(written):
            (self.output / name).unlink(missing_ok=True)
        said = f"{state.network_samples} network samples, {duration(state.seconds)}"
        say(f"{kept} and {sum(len(images) for _, images in rows)} pictures beside it ({said})")


def _written(folder: Path) -> set[str]:
    """Names of what an earlier run wrote there, by its own record."""
    try:
        names = json.loads((folder / _RECORD).read_text(encoding="utf-8"))["files"]
        return {name for name in names if isinstance(name, str) and _OWN.fullmatch(name)}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
