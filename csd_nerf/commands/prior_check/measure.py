"""Measures what an image-editing prior can do on the toy world, with plain DDIM sampling of each picture by itself.

Scenes are held out (`scene.HELD_OUT_SEEDS` on) and photos too (`dataset.photo_files`): training never saw them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor

from csd_nerf.commands.prior_check.kinds import KINDS, OPEN_KINDS
from csd_nerf.distill.guidance import ImageTextGuidance, TextGuidance
from csd_nerf.distill.types import Guidance, Target
from csd_nerf.priors import LatentDiffusionPrior, sample
from csd_nerf.toyworld.cameras import random_cameras
from csd_nerf.toyworld.captions import INSTRUCTIONS
from csd_nerf.toyworld.dataset import photo_files
from csd_nerf.toyworld.edits import Edit
from csd_nerf.toyworld.judging import gates
from csd_nerf.toyworld.judging.errors import bootstrap_interval, relative_errors, squared_errors
from csd_nerf.toyworld.judging.hats import HatVerdict, hat_judge
from csd_nerf.toyworld.judging.pictures import CaptionScene, PictureJudge, PictureVerdict, caption_scenes
from csd_nerf.toyworld.judging.styles import nearest_style
from csd_nerf.toyworld.render import Renderer, to_bytes
from csd_nerf.toyworld.scene import HELD_OUT_SEEDS, Scene, scene_from_seed
from csd_nerf.toyworld.style_nets import PAINTINGS, StyleNet
from csd_nerf.toyworld.styles import PHOTO_STYLES, STYLES

_ROWS = 32
"""Pictures sampled at once."""

Report = Callable[[str, int, int], None]
"""Called as `report(what, done, total)`."""


@dataclass(frozen=True)
class GateSettings:
    """How much is measured, and how pictures are sampled."""

    edits: int = 64
    """Edits of each kind; of 32 the error of some kinds is off by a quarter now and then."""
    captions: int = 100
    """Pictures drawn from captions."""
    seeds: int = 16
    """Pictures of "give it a hat" on each scene."""
    scenes: int = 4
    """Scenes that get hats, of different objects."""
    photos: int = 16
    """Photos at most."""
    guidance: float = gates.TEXT_GUIDANCE
    """Text guidance of edits."""
    caption_guidance: float = gates.CAPTION_GUIDANCE
    """Text guidance of pictures drawn from captions."""
    cameras: int = 24
    """True pictures that the judge of captions knows of each object in each colour."""
    seed: int = 0
    """Seed of the noise."""


@dataclass(frozen=True)
class EditSamples:
    """Edits of one kind."""

    kind: str
    """The name of one of `kinds.KINDS` or `kinds.OPEN_KINDS`."""
    instructions: list[str]
    sources: Float[Tensor, "n 3 h w"]
    edited: Float[Tensor, "n 3 h w"]
    truths: Float[Tensor, "n 3 h w"]
    error: float
    """Relative error, see `judging.errors`."""
    interval: tuple[float, float]
    """95 % bootstrap interval of the error, over edits."""

    @property
    def deterministic(self) -> bool:
        """Whether the instructions leave nothing open."""
        return self.kind not in {kind.name for kind in OPEN_KINDS}


@dataclass(frozen=True)
class HatSamples:
    """One scene with "give it a hat"."""

    scene: Scene
    source: Float[Tensor, "1 3 h w"]
    edited: Float[Tensor, "n 3 h w"]
    verdicts: list[HatVerdict]


@dataclass(frozen=True)
class CaptionSamples:
    """Pictures drawn from captions."""

    asked: list[CaptionScene]
    drawn: Float[Tensor, "n 3 h w"]
    verdicts: list[PictureVerdict]
    true_verdicts: list[PictureVerdict]
    """The judge's verdicts on the true pictures of the same scenes: how far it can be believed."""


@dataclass(frozen=True)
class PhotoSamples:
    """One style on photos."""

    style: str
    edited: Float[Tensor, "n 3 h w"]
    truths: Float[Tensor, "n 3 h w"]
    """The style's own output."""
    nearest: list[str]
    """See `judging.styles.nearest_style`."""


def edit_pictures(
    prior: LatentDiffusionPrior,
    sources: Float[Tensor, "n 3 h w"],
    instructions: Sequence[str],
    settings: GateSettings,
    report: Callable[[int, int], None] | None = None,
) -> Float[Tensor, "n 3 h w"]:
    """Edited pictures (0..1). Raises `FloatingPointError` if one is not finite."""
    guidance = ImageTextGuidance(settings.guidance, gates.IMAGE_GUIDANCE)
    image = prior.encode_condition(sources)
    return _sample(prior, guidance, instructions, image, settings.seed, report)


def draw_pictures(
    prior: LatentDiffusionPrior,
    captions: Sequence[str],
    settings: GateSettings,
    report: Callable[[int, int], None] | None = None,
) -> Float[Tensor, "n 3 h w"]:
    """Pictures (0..1) drawn from text alone. Raises `FloatingPointError` if one is not finite."""
    return _sample(prior, TextGuidance(settings.caption_guidance), captions, None, settings.seed, report)


def _sample(
    prior: LatentDiffusionPrior,
    guidance: Guidance,
    texts: Sequence[str],
    image: Tensor | None,
    seed: int,
    report: Callable[[int, int], None] | None,
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    side = prior.size // prior.factor
    shape = (prior.autoencoder.latent_channels, side, side)
    text, null = prior.encode_text(texts), prior.encode_text([""]).expand(len(texts), -1, -1)
    target, pictures = Target((text,), null, image), []
    for rows in torch.arange(len(texts), device=null.device).split(_ROWS):
        latents = sample(prior, guidance, target[rows], gates.STEPS, generator, shape=shape)
        pictures.append(prior.decode(latents).cpu())
        if report is not None:
            report(sum(map(len, pictures)), len(texts))
    drawn = torch.cat(pictures)
    if not drawn.isfinite().all():
        raise FloatingPointError(f"prior {prior.name!r} gives pictures that are not finite: its weights are broken")
    return drawn


def measure_edits(
    prior: LatentDiffusionPrior, settings: GateSettings, nets: Mapping[str, StyleNet], report: Report
) -> list[EditSamples]:
    """Edits of every kind that can be measured (paintings only with their networks), ambiguous ones too."""
    kinds = [kind for kind in (*KINDS, *OPEN_KINDS) if kind.drawn_as != "painting" or kind.part in nets]
    drawn: dict[str, list[tuple[Edit, Tensor, Tensor]]] = {kind.name: [] for kind in kinds}
    seed, total = HELD_OUT_SEEDS, settings.edits * len(kinds)
    while any(len(edits) < settings.edits for edits in drawn.values()):
        scene = scene_from_seed(seed)
        renderer = Renderer(random_cameras(1, seed, prior.size), nets=nets)
        for index, kind in enumerate(kinds):
            edit = kind.draw(scene, np.random.default_rng([seed, 47, index]), tuple(nets))
            if edit is not None and len(drawn[kind.name]) < settings.edits:
                drawn[kind.name].append((edit, renderer.render(scene), renderer.edited(scene, edit)))
        seed += 1
        report("true edits", sum(map(len, drawn.values())), total)
    results = []
    for index, (kind, edits) in enumerate(drawn.items()):
        instructions = [edit.instruction for edit, _, _ in edits]
        sources, truths = (torch.cat(pictures) for pictures in zip(*[(a, b) for _, a, b in edits], strict=True))
        report("sampling edits", index, len(kinds))
        edited = edit_pictures(prior, sources, instructions, settings)
        results.append(_compare(kind, instructions, sources, edited, truths))
    report("sampling edits", len(kinds), len(kinds))
    return results


def _compare(kind: str, instructions: list[str], sources: Tensor, edited: Tensor, truths: Tensor) -> EditSamples:
    a, b, c = to_bytes(sources), to_bytes(edited), to_bytes(truths)
    error = relative_errors(a, b, c, [kind] * len(instructions))[kind]
    interval = bootstrap_interval(squared_errors(b, c), squared_errors(a, c))
    return EditSamples(kind, instructions, sources, edited, truths, error, interval)


def measure_hats(prior: LatentDiffusionPrior, settings: GateSettings, report: Report) -> list[HatSamples]:
    """Sample "give it a hat" with many seeds on a few scenes of different objects, seen where all hats can be seen."""
    results: list[HatSamples] = []
    seed = HELD_OUT_SEEDS - 1
    while len(results) < settings.scenes:
        seed += 1
        scene = scene_from_seed(seed)
        if scene.object in {other.scene.object for other in results}:
            continue
        renderer = Renderer(random_cameras(1, seed, prior.size))
        try:
            judge = hat_judge(scene, renderer)
        except ValueError:
            continue
        source = renderer.render(scene)
        report("hats", len(results), settings.scenes)
        instructions = [INSTRUCTIONS["hat"][0].format(hat="hat")] * settings.seeds
        edited = edit_pictures(prior, source.expand(settings.seeds, -1, -1, -1), instructions, settings)
        results.append(HatSamples(scene, source, edited, judge(edited)))
    report("hats", settings.scenes, settings.scenes)
    return results


def measure_captions(prior: LatentDiffusionPrior, settings: GateSettings, report: Report) -> CaptionSamples:
    """Draw pictures from captions; judge them, and the true pictures of the same scenes."""
    asked = caption_scenes(settings.captions, prior.size)
    drawn = draw_pictures(
        prior, [one.words for one in asked], settings, lambda done, total: report("drawing captions", done, total)
    )
    true = torch.cat([Renderer(one.cameras).render(one.scene) for one in asked])
    judge = PictureJudge(settings.cameras)
    verdicts = judge(torch.cat([drawn, true]), [*asked, *asked], lambda *done: report("judging captions", *done))
    return CaptionSamples(asked, drawn, verdicts[: len(asked)], verdicts[len(asked) :])


def read_held_out_photos(folder: Path, count: int, size: int) -> Float[Tensor, "n 3 size size"]:
    """Central squares of the photos that training never sees, evenly chosen."""
    files = photo_files(folder, held_out=True)
    chosen = [files[index] for index in np.linspace(0, len(files) - 1, min(count, len(files))).round().astype(int)]
    squares = [ImageOps.fit(Image.open(file).convert("RGB"), (size, size), Image.Resampling.LANCZOS) for file in chosen]
    return torch.from_numpy(np.stack([np.array(square) for square in squares])).permute(0, 3, 1, 2) / 255


def measure_photos(
    prior: LatentDiffusionPrior,
    settings: GateSettings,
    photos: Float[Tensor, "n 3 h w"],
    nets: Mapping[str, StyleNet],
    report: Report,
) -> list[PhotoSamples]:
    """Every style of photos: those of the toy world, and the painting styles that there are networks for."""
    functions = {**STYLES, **PHOTO_STYLES, **nets}
    styled = {name: function(photos) for name, function in functions.items()}
    results = []
    for index, (name, truths) in enumerate(styled.items()):
        report("styles on photos", index, len(styled))
        template = INSTRUCTIONS["painting" if name in PAINTINGS else name][0]
        instruction = template.format(painting=PAINTINGS.get(name))
        edited = edit_pictures(prior, photos, [instruction] * len(photos), settings)
        results.append(PhotoSamples(name, edited, truths, nearest_style(edited, photos, styled)))
    report("styles on photos", len(styled), len(styled))
    return results
