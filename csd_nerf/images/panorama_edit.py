"""What an edit of a panorama does, once everything is decided: encode, optimise or sample the canvas, decode."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from csd_nerf.distill import (
    AnswerBank,
    CanvasNoise,
    CountingPrior,
    Distiller,
    EditSettings,
    ImagePrior,
    NonFiniteError,
    give_back,
    make_edit_distiller,
    optimize,
    optimize_settings,
)
from csd_nerf.images.canvas import PatchLatents, PatchTargets
from csd_nerf.images.checkpoint import Checkpoint
from csd_nerf.images.layout import PanoramaLayout
from csd_nerf.images.panorama_sampling import sample_canvas
from csd_nerf.images.patches import cut, scatter
from csd_nerf.images.regions import Region, composed_prompts, region_weights, untouched
from csd_nerf.images.running import EditSteps, Hooks, Outcome, run_steps, steps_of_some
from csd_nerf.images.tiles import decode_tiled, encode_both_tiled, encode_tiled

_NO_HOOKS = Hooks()
OnPicture = Callable[[int, Float[Tensor, "3 H W"]], None]
OnTile = Callable[[int, int], None]
Patches = Float[Tensor, "n 3 h w"]


@dataclass(frozen=True)
class PanoramaResult:
    """An edited picture."""

    image: Float[Tensor, "3 H W"]
    """In [0, 1], float32 on the CPU, of the source's size."""
    checkpoint: Checkpoint
    """Where the edit stands."""
    patches: int
    """Patches that were edited: those that no prompt concerns are not."""
    complete: bool = True
    """False if it was stopped before the last step."""


@dataclass
class PanoramaEdit(EditSteps):
    """An edit of one picture, prepared and checked."""

    prior: ImagePrior
    layout: PanoramaLayout
    settings: EditSettings
    """With the editor that it stands for among those of single pictures, and a batch size where that counts."""
    targets: PatchTargets
    """Of the patches that a prompt concerns."""
    generator: torch.Generator
    source: Float[Tensor, "3 H W"]
    """The picture before the edit, in [0, 1]."""
    bank: AnswerBank | None = None
    """Where answers about the source are kept."""

    def __post_init__(self) -> None:
        """Begin with the source."""
        targets = self.targets
        self.patches = PatchLatents(targets.source, targets.corners, targets.patch, self.layout.fading)
        self._shown: int | None = None
        self._keep = self.settings.resolved().keep_detail
        self._rebuilt: Tensor | None = None

    @property
    def latents(self) -> Float[Tensor, "c h w"]:
        """The canvas as it is now."""
        return self.patches.canvas

    def run(
        self,
        resume: Checkpoint | None = None,
        hooks: Hooks = _NO_HOOKS,
        on_picture: OnPicture | None = None,
        picture_every: int | None = None,
    ) -> PanoramaResult:
        """Do the work and show it; see `csd_nerf.images.edit_panorama`."""
        outcome = self.make_steps(resume, hooks, on_picture, picture_every)
        result = self.result(outcome, on_picture=on_picture if picture_every else None)
        failure = outcome.failure
        if failure is not None:
            raise NonFiniteError(failure.what, failure.t, failure.particle, failure.step, result) from None
        return result

    def make_steps(
        self,
        resume: Checkpoint | None = None,
        hooks: Hooks = _NO_HOOKS,
        on_picture: OnPicture | None = None,
        picture_every: int | None = None,
    ) -> Outcome:
        """Do the work; what it led to is not decoded yet."""
        if resume is not None:
            self.patches.canvas = resume.latents.to(self.targets.source)

        def report(done: int) -> None:
            if on_picture is not None and picture_every and done % picture_every == 0 and done < self.total:
                on_picture(done, self.picture(self.latents))
                self._shown = done

        return run_steps(self, resume, hooks, report)

    def result(
        self, outcome: Outcome, on_tile: OnTile | None = None, on_picture: OnPicture | None = None
    ) -> PanoramaResult:
        """What the steps led to, decoded; `on_tile(done, total)` tells how far that is.

        `on_picture` is given it unless it was the last that it was given on the way.
        """
        patches = len(torch.unique(self.targets.corners, dim=0))
        image = self.picture(self.latents, on_tile)
        if on_picture is not None and self._shown != outcome.checkpoint.step:
            on_picture(outcome.checkpoint.step, image)
        return PanoramaResult(image, outcome.checkpoint, patches, outcome.complete)

    def picture(self, canvas: Float[Tensor, "c h w"], on_tile: OnTile | None = None) -> Float[Tensor, "3 H W"]:
        """What a canvas shows, of the source's size, on the CPU; with its detail, unless the settings keep none."""

        def decoded(canvas: Tensor, first: int, of: int) -> Tensor:
            def tell(done: int, total: int) -> None:
                if on_tile is not None:
                    on_tile(first * total + done, of * total)

            return self.layout.crop.undo(decode_tiled(self.prior, canvas, wrap=self.layout.crop.wrap, on_tile=tell))

        if not self._keep:
            return decoded(canvas, 0, 1)
        once = self._rebuilt is None
        if self._rebuilt is None:
            self._rebuilt = decoded(self.targets.source, 0, 2)
        edited = decoded(canvas, 1, 2) if once else decoded(canvas, 0, 1)
        shown = self.source[None], self._rebuilt[None], edited[None]
        return give_back(*shown, self._keep, self.prior.factor, self.layout.crop.wrap)[0]

    def compare(self, on_step: Callable[[int, int], None] | None = None) -> tuple[Patches, Patches]:
        """Do the work, and show all patches before and after it, each decoded by itself."""

        def report(done: int) -> None:
            if on_step is not None:
                on_step(done, self.total)

        self.solve(CountingPrior(self.prior), 0, report, None)
        corners, patch = self.targets.corners, self.targets.patch
        latents = (cut(canvas, corners, patch) for canvas in (self.targets.source, self.latents))
        before, after = (self.prior.decode(patches).cpu() for patches in latents)
        if not self._keep:
            return before, after
        factor, shown = self.prior.factor, self.layout.pad(self.source)
        shown = cut(shown, corners * factor, (patch[0] * factor, patch[1] * factor))
        return shown, give_back(shown, before, after, self._keep, factor)

    def solve(
        self,
        prior: CountingPrior,
        first_step: int,
        report: Callable[[int], None],
        should_stop: Callable[[], bool] | None,
    ) -> int:
        """Change the canvas; how many steps led to it."""
        if not self.settings.parts.samples:
            reached = optimize(
                self._distiller(prior),
                self.patches,
                self.targets,
                optimize_settings(self.settings),
                self.generator,
                first_step=first_step,
                on_step=lambda done, _: report(done),
                should_stop=should_stop,
            )
            return reached.steps
        sampled = sample_canvas(prior, self.targets, self.settings, self.generator, report, should_stop)
        if sampled is None:  # a descent that did not reach its end has no picture
            return 0
        self.patches.canvas = sampled
        return self.settings.total_steps

    def _distiller(self, prior: CountingPrior) -> Distiller:
        if self.settings.resolved().noise != "canvas":
            return make_edit_distiller(prior, self.settings, self.bank)
        height, width = self.targets.source.shape[-2:]
        noise = CanvasNoise(height, width, self.targets.corners)
        return replace(make_edit_distiller(prior, replace(self.settings, noise="independent"), self.bank), noise=noise)


def prepare(
    prior: ImagePrior,
    picture: Float[Tensor, "3 H W"],
    prompts: tuple[str, str],
    regions: Sequence[Region],
    layout: PanoramaLayout,
    settings: EditSettings,
    generator: torch.Generator,
    *,
    some: int | None = None,
    on_tile: OnTile | None = None,
) -> PanoramaEdit:
    """Encode the picture and the prompts (instruction, negative); `on_tile(done, total)` tells how far that is.

    With `some` the edit is one of so many patches alone, evenly spread, which lie side by side on a canvas of their
    own: only they are encoded, each by itself, and they are optimised as often as they would be in the whole.

    Raises `ValueError` for regions that cannot work, and for a number of patches that the preset's kernel cannot take.
    """
    full, (prompt, negative) = settings.resolved(), prompts
    shown, patch = layout.pad(picture.to(torch.float32)), (layout.patch, layout.patch)
    asked, weights, corners = (prompt,), None, layout.corners
    if regions:
        # Without an instruction for the rest its estimate must be the baseline's, so that it cancels.
        unchanged = full.source_prompt if full.parts.text_only and full.baseline == "source" else negative
        asked = composed_prompts(regions, prompt if prompt.strip() else unchanged)
        weights = region_weights(regions, corners, patch, prior.factor, layout.crop)
        if not prompt.strip():
            active = ~untouched(weights)
            weights, corners = weights[:, active], corners[active]
    options: dict[str, Any] = {"wrap": layout.crop.wrap, "on_tile": on_tile}
    if some is not None:
        rows = _spread(corners, some)
        settings = steps_of_some(settings, _sights(corners, layout, settings), len(rows))
        side = layout.patch * prior.factor
        shown = torch.cat(list(cut(shown, corners[rows] * prior.factor, (side, side))), dim=-1)
        weights = None if weights is None else weights[:, rows]
        layout = layout.side_by_side(rows, prior.factor)
        corners, options = layout.corners, {"tile": side, "overlap": 0, "on_tile": on_tile}
    if not full.parts.samples:
        settings.check_particles(len(corners))
    source, image = _encoded(prior, shown, settings, generator, options)
    captions = [*asked, negative, *([full.source_prompt] if full.parts.text_only else [])]
    encoded = list(prior.encode_text(captions))
    targets = PatchTargets(
        texts=tuple(encoded[: len(asked)]),
        null_text=encoded[len(asked)],
        source=source.to(prior.device),
        image=None if image is None else image.to(prior.device),
        source_text=encoded[-1] if full.parts.text_only else None,
        weights=None if weights is None else weights.to(prior.device),
        corners=corners,
        patch=patch,
    )
    return PanoramaEdit(prior, layout, settings, targets, generator, layout.crop.undo(shown))


def _encoded(
    prior: ImagePrior,
    shown: Float[Tensor, "3 H W"],
    settings: EditSettings,
    generator: torch.Generator,
    options: dict[str, Any],
) -> tuple[Float[Tensor, "c h w"], Float[Tensor, "c h w"] | None]:
    """Latents and image condition of a padded picture."""
    full = settings.resolved()
    if full.parts.text_only:
        source = encode_tiled(prior, shown, **options)
        return source, torch.zeros_like(source) if prior.takes_image else None
    if full.image_condition == "scaled-sample":
        # The released code draws one posterior sample and uses it as source, start and condition alike.
        source = encode_tiled(prior, shown, scaled_sample=generator, **options)
        return source, source
    return encode_both_tiled(prior, shown, **options)


def _spread(corners: Int[Tensor, "n 2"], some: int) -> Int[Tensor, " m"]:
    """Rows of `some` different patches, or of all, evenly spread."""
    first = torch.ones(len(corners), dtype=torch.bool)
    first[1:] = (corners[1:] != corners[:-1]).any(dim=1)  # what is listed several times is listed in a row
    (rows,) = torch.nonzero(first, as_tuple=True)
    return rows[torch.linspace(0, len(rows) - 1, min(some, len(rows))).round().long()]


def _sights(corners: Int[Tensor, "n 2"], layout: PanoramaLayout, settings: EditSettings) -> float:
    """How often a latent pixel that these patches show is optimised, on average."""
    patch = layout.patch
    _, seen = scatter(torch.zeros(len(corners), 1, patch, patch), corners, *layout.size)
    in_step = min(settings.batch_size or len(corners), len(corners))
    return settings.total_steps * in_step * patch**2 / int((seen > 0).sum())
