"""`csd stylegan evaluate`: FID, CLIP score and LPIPS diversity of a generator's pictures, as LDP's Tables 2 and 3."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console

from csd_nerf.commands.devices import chosen_device
from csd_nerf.commands.edit_flags import check_seed
from csd_nerf.commands.sitting import progress, say
from csd_nerf.commands.stylegan.generators import open_generator

if TYPE_CHECKING:
    from torch import Tensor

    from csd_nerf.metrics import Score

    Add = Callable[[Tensor], None]
    Measure = tuple[Add, Callable[[], Score]]


@dataclass(frozen=True)
class Evaluate:
    """Measure a generator: LPIPS diversity of all pairs; with --prompt the CLIP score; with --references FID.

    What cannot be measured, such as where a network's weights cannot be had, is listed with its reason. Pictures are
    made and measured in parts; those of --pairs-of are kept in memory.
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
    """How far w keeps from its mean: 1 as it is, 0.7 fewer odd pictures, 0 one picture."""
    seed: int = 0
    """Of the latents z."""
    device: str = "auto"
    """Where all networks run: auto, cpu, cuda or cuda:N."""
    lpips: str = "auto"
    """lpips, st-lpips, or auto: the second where the first's weights cannot be had."""
    clip: str = "ViT-B-32"
    """Model of open_clip."""
    clip_weights: str | None = "openai"
    """A tag that open_clip knows for the model, or a local file."""
    clip_tag: str | None = None
    """Tag of open_clip that a local file is of, or was trained like: it decides activation and preprocessing."""
    inception: Path | None = None
    """FID's network as TorchScript; default: torch-fidelity's, which is downloaded."""
    json: Path | None = None
    """File for the scores."""
    save: Path | None = None
    """New folder for the pictures, as PNGs."""

    def run(self) -> int:
        """Measure and print."""
        import torch

        from csd_nerf.commands.picture_sets import read_in_parts
        from csd_nerf.images.stylegan.showing import sampled
        from csd_nerf.whole_files import write_text

        self._check()
        device = chosen_device(self.device)
        references = read_in_parts(self.references, "--references") if self.references else None
        generator = open_generator(self.input, torch.device(device))
        measures, missing = self._measures(device, references, generator.shape.size)
        done = 0
        with progress("Pictures") as update:
            for images in sampled(generator, self.samples, self.seed, self.truncation):
                for add, _ in measures:
                    add(images)
                if self.save is not None:
                    self._save(images, done)
                done += len(images)
                update(done, self.samples)
        scores = [score() for _, score in measures]
        for score in scores:
            said = f"{score.name}: {score.mean:.4g} ({score.note})"
            Console().print(said, markup=False, highlight=False, soft_wrap=True)
        for name, reason in missing.items():
            say(f"{name} was not measured: {reason}")
        if self.json is not None:
            found = {score.name: {"mean": score.mean, "note": score.note} for score in scores}
            write_text(self.json, json.dumps({"scores": found, "missing": missing}, indent=1) + "\n")
        return 0

    def _check(self) -> None:
        """What can be said before anything is loaded."""
        for flag, value in (("--samples", self.samples), ("--pairs-of", self.pairs_of)):
            if value < 2:
                raise ValueError(f"{flag} {value}: give at least 2")
        check_seed(self.seed)
        if not math.isfinite(self.truncation):
            raise ValueError(f"--truncation {self.truncation}: give a number, such as 0.7")
        for flag, folder in (("--save", self.save), ("--json", self.json and self.json.parent)):
            there = folder and next(path for path in (folder, *folder.absolute().parents) if path.exists())
            if there and not there.is_dir():
                raise ValueError(f"{flag}: {there} is a file, where a folder would have to be")
        if self.json is not None and self.json.is_dir():
            raise ValueError(f"--json {self.json} is a folder: give a file")
        if self.save is not None and next(self.save.glob("*.png"), None) is not None:
            raise ValueError(
                f"--save {self.save} holds pictures already, with which these would mix: give a new folder"
            )
        self._check_networks()

    def _check_networks(self) -> None:
        """Flags of the networks that measure: of none that is not asked for, and files that there are."""
        default = {item.name: item.default for item in fields(self)}
        for needed, names in (("prompt", ("clip", "clip_weights", "clip_tag")), ("references", ("inception",))):
            given = [name for name in names if getattr(self, name) != default[name]]
            if given and not getattr(self, needed):
                flag = f"--{given[0].replace('_', '-')}"
                raise ValueError(f"{flag} has no effect without --{needed}: add that, or leave {flag} out")
        if self.inception is not None and not self.inception.is_file():
            raise ValueError(f"--inception {self.inception} does not exist: give a TorchScript file of FID's network")
        if self.prompt:
            from csd_nerf.metrics.openclip import choose_weights

            if not self.prompt.strip():
                raise ValueError("--prompt is empty: say what the pictures should show, or leave it out")
            choose_weights(self.clip, self.clip_weights, self.clip_tag)

    def _measures(
        self, device: str, references: "Iterator[Tensor] | None", size: int
    ) -> "tuple[list[Measure], dict[str, str]]":
        """What takes the pictures part by part, with what scores them then; and what cannot be had, with its reason."""
        from csd_nerf.metrics import InceptionDistance, TextSimilarity, load_inception
        from csd_nerf.metrics.openclip import OpenClip

        def of_clip() -> "Measure":
            similarity = TextSimilarity(OpenClip(self.clip, self.clip_weights, device, tag=self.clip_tag), self.prompt)
            return similarity.add, similarity.score

        def of_inception() -> "Measure":
            assert references is not None
            distance, count = InceptionDistance(load_inception(self.inception, device)), 0
            for part in references:
                distance.add_references(part)
                count += len(part)
            if count < 2:
                raise ValueError(
                    f"--references {self.references} is one picture: FID compares two sets, give at least 2"
                )
            return distance.add, distance.score

        wanted: dict[str, Callable[[], Measure]] = {"LPIPS diversity": lambda: self._diversity(device, size)}
        if self.prompt:
            wanted["CLIP score"] = of_clip
        if references is not None:
            wanted["FID"] = of_inception
        measures, missing = [], {}
        for name, measure in wanted.items():
            try:
                measures.append(measure())
            except OSError as error:
                missing[name] = str(error)
        return measures, missing

    def _diversity(self, device: str, size: int) -> "Measure":
        import torch

        from csd_nerf.metrics import diversity, load_perceptual_distance
        from csd_nerf.metrics.perceptual import SMALLEST_FOR_LPIPS

        if size < SMALLEST_FOR_LPIPS:  # no reason to measure nothing else
            raise OSError(f"it needs pictures of {SMALLEST_FOR_LPIPS} pixels a side, the generator's have {size}")
        distance = load_perceptual_distance(self.lpips, device)
        kept: list[Tensor] = []

        def add(images: "Tensor") -> None:
            if left := max(0, self.pairs_of - sum(map(len, kept))):
                kept.append(images[:left].clone())  # a view would keep all of it

        return add, lambda: diversity(distance, torch.cat(kept))

    def _save(self, images: "Tensor", first: int) -> None:
        from csd_nerf.images.writing import to_pil

        assert self.save is not None
        self.save.mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(images, first):
            to_pil(image).save(self.save / f"{index:05d}.png")
