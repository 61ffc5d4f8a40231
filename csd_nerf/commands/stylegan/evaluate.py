"""`csd stylegan evaluate`: FID, CLIP score and LPIPS diversity of a generator's pictures, as LDP's Tables 2 and 3."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console

from csd_nerf.commands.sitting import progress, say
from csd_nerf.commands.stylegan.generators import open_generator

if TYPE_CHECKING:
    from torch import Tensor

    from csd_nerf.metrics import Score


@dataclass(frozen=True)
class Evaluate:
    """Measure a generator: LPIPS diversity of all pairs; with --prompt the CLIP score; with --references FID.

    What cannot be measured, since a network's weights cannot be had, is listed with its reason.
    """

    input: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IN")]
    """The generator: toy, or a checkpoint."""
    prompt: str = ""
    """What the pictures should show."""
    references: Path | None = None
    """Folder of real pictures of what they should show."""
    samples: int = 2000
    """Pictures for CLIP and FID, as in the paper."""
    pairs_of: int = 100
    """Pictures that are compared with each other, all pairs (the first of the samples)."""
    truncation: float = 1.0
    seed: int = 0
    device: str = "cpu"
    """Where the networks run."""
    lpips: str = "auto"
    """lpips, st-lpips, or auto: the second where the first's weights cannot be had."""
    clip: str = "ViT-B-32"
    """Model of open_clip."""
    clip_weights: str | None = "openai"
    """A tag that open_clip knows for the model, or a local file."""
    inception: Path | None = None
    """FID's network as TorchScript; default: torch-fidelity's, which is downloaded."""
    json: Path | None = None
    """File for the scores."""
    save: Path | None = None
    """Folder for the pictures, as PNGs."""

    def run(self) -> int:
        """Measure and print."""
        import torch

        from csd_nerf.images.stylegan.showing import sample
        from csd_nerf.metrics.pictures import read_pictures

        for flag, value in (("--samples", self.samples), ("--pairs-of", self.pairs_of)):
            if value < 2:
                raise ValueError(f"{flag} {value}: give at least 2")
        references = read_pictures(self.references, "--references") if self.references else None
        generator = open_generator(self.input, torch.device(self.device))
        with progress("Pictures"):
            images = sample(generator, self.samples, self.seed, self.truncation)
        if self.save is not None:
            self._save(images)
        scores, missing = self._scores(images, None if references is None else references.images)
        for score in scores:
            Console().print(f"{score.name}: {score.mean:.4g} ({score.note})", markup=False, highlight=False)
        for name, reason in missing.items():
            say(f"{name} was not measured: {reason}")
        if self.json is not None:
            found = {score.name: {"mean": score.mean, "note": score.note} for score in scores}
            self.json.parent.mkdir(parents=True, exist_ok=True)
            self.json.write_text(json.dumps({"scores": found, "missing": missing}, indent=1) + "\n")
        return 0

    def _scores(self, images: "Tensor", references: "Tensor | None") -> "tuple[list[Score], dict[str, str]]":
        from csd_nerf.metrics import diversity, fid, load_inception, load_perceptual_distance, text_similarity
        from csd_nerf.metrics.openclip import OpenClip

        def of_clip() -> "Score":
            encoder = OpenClip(self.clip, self.clip_weights, self.device)
            return text_similarity(encoder, images, self.prompt)

        def of_inception() -> "Score":
            assert references is not None
            return fid(images, references, load_inception(self.inception, self.device))

        few = images[: self.pairs_of]
        wanted: dict[str, Callable[[], Any]] = {
            "LPIPS diversity": lambda: diversity(load_perceptual_distance(self.lpips, self.device), few)
        }
        if self.prompt:
            wanted["CLIP score"] = of_clip
        if references is not None:
            wanted["FID"] = of_inception
        scores, missing = [], {}
        for name, measure in wanted.items():
            try:
                scores.append(measure())
            except OSError as error:
                missing[name] = str(error)
        return scores, missing

    def _save(self, images: "Tensor") -> None:
        from csd_nerf.images.writing import to_pil

        assert self.save is not None
        self.save.mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(images):
            to_pil(image).save(self.save / f"{index:05d}.png")
