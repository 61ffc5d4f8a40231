"""The flags of `csd prior check`; what they start loads when it runs, not for the help."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console

from csd_nerf.toyworld.judging.gates import CAPTION_GUIDANCE, TEXT_GUIDANCE

if TYPE_CHECKING:  # torch and diffusers take seconds to import; the command's help does not wait for them
    from csd_nerf.commands.prior_check.measure import GateSettings

_console = Console(stderr=True)


@dataclass(frozen=True)
class PriorCheck:
    """Measure what an image-editing prior can do on the toy world's held-out scenes; ends with 1 if a gate fails."""

    prior: Annotated[str, tyro.conf.Positional]
    """'toy', a local folder in diffusers layout, or any other prior that edits."""
    output: Path = Path("outputs/prior_check")
    """Folder for check.json, edits.png, hats.png, captions.png and photos.png."""
    photos: Path | None = None
    """Folder of photos that `prior train` got; the styles are checked on those it kept from training."""
    style_nets: Path | None = None
    """Folder of feed-forward painting styles (safetensors); without it paintings are not checked."""
    edits: int = 64
    """Held-out edits of every kind."""
    captions: int = 100
    """Pictures drawn from captions alone."""
    seeds: int = 16
    """Pictures of "give it a hat" on each scene."""
    guidance: float = TEXT_GUIDANCE
    """Text guidance of edits."""
    caption_guidance: float = CAPTION_GUIDANCE
    """Text guidance of pictures drawn from captions."""
    write_card: bool = False
    """Put the result into the CARD.md of PRIOR (a local folder), and the pictures beside it."""

    def run(self) -> int:
        """Measure, print, write."""
        self._check_flags()
        from csd_nerf.commands.prior_check.report import check_prior

        return 0 if check_prior(self, _console) else 1

    def settings(self) -> "GateSettings":
        """What is measured."""
        from csd_nerf.commands.prior_check.measure import GateSettings

        return GateSettings(
            edits=self.edits,
            captions=self.captions,
            seeds=self.seeds,
            guidance=self.guidance,
            caption_guidance=self.caption_guidance,
        )

    def command(self) -> str:
        """The command without this machine's folders, for the card."""
        words = ["csd prior check", self._shown_prior()]
        words += [f"{flag} ..." for flag, folder in self._folders() if folder is not None]
        defaults = PriorCheck(prior="")
        for name in ("edits", "captions", "seeds", "guidance", "caption_guidance"):
            if (value := getattr(self, name)) != getattr(defaults, name):
                words.append(f"--{name.replace('_', '-')} {value:g}")
        return " ".join(words)

    def _shown_prior(self) -> str:
        """What to give for the same prior from a checkout, without this machine's folders."""
        from csd_nerf.priors import toy_folder

        folder = Path(self.prior)
        if not folder.is_dir():
            return self.prior
        return "toy" if folder.resolve() == toy_folder().resolve() else folder.resolve().name

    def card(self) -> Path:
        """CARD.md of the prior. Raises `ValueError` where there is none."""
        from csd_nerf.priors import toy_folder

        folder = toy_folder() if self.prior == "toy" else Path(self.prior).expanduser()
        if not folder.is_dir():
            raise ValueError(f"--write-card: PRIOR {self.prior} is no local folder: give one, or leave the flag out")
        if not (folder / "CARD.md").is_file():
            raise ValueError(
                f"--write-card: {folder} has no CARD.md: make one (it may be empty), or leave the flag out"
            )
        return folder / "CARD.md"

    def _folders(self) -> tuple[tuple[str, Path | None], ...]:
        return ("--photos", self.photos), ("--style-nets", self.style_nets)

    def _check_flags(self) -> None:
        """Whatever can be known to fail before anything is loaded or measured."""
        for flag, folder in self._folders():
            if folder is not None and not folder.is_dir():
                raise ValueError(f"{flag} {folder} is no folder: give one, or leave the flag out")
        for flag, count in (("--edits", self.edits), ("--captions", self.captions), ("--seeds", self.seeds)):
            if count < 1:
                raise ValueError(f"{flag} {count}: give at least 1")
        for flag, scale in (("--guidance", self.guidance), ("--caption-guidance", self.caption_guidance)):
            if not 0 < scale < 100:
                raise ValueError(f"{flag} {scale}: give more than 0 and less than 100")
        taken = next(path for path in (self.output, *self.output.parents) if path.exists())
        if not taken.is_dir():
            raise ValueError(f"--output {self.output}: {taken} is a file; give another folder")
        if self.photos is not None:
            from csd_nerf.toyworld.dataset import photo_files

            if not photo_files(self.photos, held_out=True):
                raise ValueError(f"--photos {self.photos}: no jpg or png in it; give a folder of photos")
        if self.style_nets is not None:
            from csd_nerf.toyworld.style_nets import PAINTINGS

            if not any((self.style_nets / f"{name}.safetensors").is_file() for name in PAINTINGS):
                raise ValueError(f"--style-nets {self.style_nets} holds none of {', '.join(PAINTINGS)} (.safetensors)")
        if self.write_card:
            from csd_nerf.toyworld.training.card_parts import replace_gates

            replace_gates(self.card().read_text(encoding="utf-8"), "")
