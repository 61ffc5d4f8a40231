"""Edits of a set of pictures (CSD-Edit, CSD Section 3.2, or another editor): one entry for views, patches, frames.

Pictures are resized to the prior's size (same number of pixels as its square training pictures, aspect kept), encoded,
optimised together, decoded and scaled back. Pictures whose sizes ask for different latents are edited in groups,
since the kernel compares particles element by element.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.distill.banked import AnswerBank, look_ahead
from csd_nerf.distill.counting import CountingPrior
from csd_nerf.distill.detail import give_back
from csd_nerf.distill.distiller import NonFiniteError
from csd_nerf.distill.presets import EditSettings
from csd_nerf.distill.sizes import edit_size, resize
from csd_nerf.distill.solving import Solver, distil, make_edit_distiller, noise_of, timesteps_of
from csd_nerf.distill.types import ImagePrior, Target

DEFAULT_SETTINGS = EditSettings()
"""The corrected preset."""


@dataclass(frozen=True)
class EditResult:
    """Edited pictures."""

    images: list[Float[Tensor, "3 _H _W"]]
    """In [0, 1], float32 on the CPU, each of its source's size, in the sources' order."""
    latents: list[Float[Tensor, "_c _h _w"]]
    """Their latents at the prior's size, on the CPU; empty for pictures whose turn did not come."""
    network_samples: int
    """Network samples spent on all of them, as counted."""
    seconds: float
    """Wall-clock time."""
    complete: bool = True
    """False if it was stopped before the last step."""


def edit_images(
    prior: ImagePrior,
    sources: Sequence[Float[Tensor, "3 _H _W"]],
    prompt: str,
    *,
    negative_prompt: str = "",
    settings: EditSettings = DEFAULT_SETTINGS,
    generator: torch.Generator,
    initial: Sequence[Float[Tensor, "3 _H _W"]] | None = None,
    on_step: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    solve: Solver = distil,
) -> EditResult:
    """Edit pictures together with one instruction.

    `sources` are in [0, 1] and condition the network; the optimisation starts from `initial` (the sources if None),
    each of its source's size. `solve` is how the settings' editor works: `distil`, or `csd_nerf.priors.solver_of` for
    any of them. `on_step(done, total)` reports progress; when `should_stop()` turns true, what was reached is returned;
    pictures whose turn had not come stay as they were, without a loss from the codec. One seed of `generator` (on the
    CPU) gives one result on one machine; on a GPU to rounding, since there the network's quicker form is found by time.

    Raises `ValueError`, before any work, for bad settings, an empty prompt or a prior that the editor cannot use, and
    `NonFiniteError` with the `EditResult` reached before in `partial`: all its pictures are finite.
    """
    check_edit(prior, prompt, settings)
    if not sources:
        raise ValueError("there is no picture to edit")
    if initial is not None and [x.shape for x in initial] != [x.shape for x in sources]:
        raise ValueError("initial pictures must have the sizes of their sources")
    sizes = [(source.shape[-2], source.shape[-1]) for source in sources]
    check_groups(prior, sizes, settings)
    keep_detail = settings.resolved().keep_detail
    started = time.monotonic()
    images = [picture.detach().float().cpu() for picture in (sources if initial is None else initial)]
    latents: list[Tensor] = [torch.empty(0, 0, 0)] * len(sources)
    groups = _groups(prior, sizes)
    counted, total, done, complete = CountingPrior(prior), settings.total_steps * len(groups), 0, True

    def result() -> EditResult:
        return EditResult(images, latents, counted.samples, time.monotonic() - started, complete)

    for size, indices in groups.items():
        if should_stop is not None and should_stop():
            complete = False
            break
        before = done

        def report(step: int, before: int = before) -> None:
            if on_step is not None:
                on_step(before + step, total)

        pictures = _stack(prior, [sources[i] for i in indices], size)
        target = _make_target(prior, (prompt, negative_prompt), settings, generator, pictures)
        start = target.source
        if initial is not None and not settings.parts.from_noise:
            start = prior.encode(_stack(prior, [initial[i] for i in indices], size))
        assert start is not None and target.source is not None
        reached = solve(counted, start, target, settings, generator, report, should_stop)
        failure = reached.failure
        if reached.steps:
            decoded = prior.decode(reached.latents)
            rebuilt = prior.decode(target.source) if keep_detail else decoded
            for row, index in enumerate(indices):
                latents[index] = reached.latents[row].cpu()
                both = rebuilt[row : row + 1], decoded[row : row + 1]
                if all(torch.isfinite(pictures).all() for pictures in both):
                    image = resize(decoded[row : row + 1], sizes[index])
                    if keep_detail:
                        image = give_back(sources[index][None].to(image), *both, keep_detail, prior.factor)
                    images[index] = image[0].float().cpu()
                elif failure is None:
                    failure = NonFiniteError("the decoded picture", None, row, reached.steps)
        done += reached.steps
        if failure is not None:
            complete = False
            view = indices[failure.particle]
            raise NonFiniteError(failure.what, failure.t, view, failure.step, result()) from None
        if reached.steps < settings.total_steps:
            complete = False
            break
    return result()


def look_ahead_edit(
    prior: ImagePrior,
    sources: Sequence[Float[Tensor, "3 _H _W"]],
    prompt: str,
    *,
    negative_prompt: str = "",
    settings: EditSettings = DEFAULT_SETTINGS,
    generator: torch.Generator,
    bank: AnswerBank,
    steps_per_call: int = 1,
    should_stop: Callable[[], bool] | None = None,
) -> int:
    """Ask what `edit_images` with the same arguments will ask about its sources, and keep the answers in `bank`.

    Returns the network samples spent. Editors that sample ask nothing about the source.
    """
    spent = 0
    if settings.parts.samples:
        return spent
    for size, indices in _groups(prior, [(source.shape[-2], source.shape[-1]) for source in sources]).items():
        target = _make_target(
            prior, (prompt, negative_prompt), settings, generator, _stack(prior, [sources[i] for i in indices], size)
        )
        assert target.source is not None
        distiller, steps = make_edit_distiller(prior, settings, bank), settings.total_steps
        options: dict[str, Any] = {"steps_per_call": steps_per_call, "should_stop": should_stop}
        spent += look_ahead(distiller, target.source, target, steps, generator, **options)
    return spent


def _groups(prior: ImagePrior, sizes: Sequence[tuple[int, int]]) -> dict[tuple[int, int], list[int]]:
    """Which pictures are edited together, by the size at which they are."""
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, (height, width) in enumerate(sizes):
        groups[edit_size(height, width, prior.size, prior.factor)].append(index)
    return groups


def check_groups(prior: ImagePrior, sizes: Sequence[tuple[int, int]], settings: EditSettings) -> None:
    """Raise `ValueError` if pictures of these sizes (height, width), edited in one call, cannot be edited together.

    Only pictures that are edited at the same size share a kernel, and not every kernel is defined for every number.
    """
    for indices in _groups(prior, sizes).values():
        settings.check_particles(len(indices))


def check_edit(prior: ImagePrior, prompt: str, settings: EditSettings) -> None:
    """Raise `ValueError` at once for what would fail later."""
    settings.validate()
    noise_of(settings)
    parts = settings.parts
    if not prompt.strip():
        raise ValueError('the prompt is empty: say what to change, such as "make it snow"')
    if not prior.takes_image and not parts.text_only:
        raise ValueError(
            f"prior {prior.name!r} has no image input, which editing needs: use 'toy', 'instruct-pix2pix' or another "
            "InstructPix2Pix in diffusers layout"
        )
    if parts.samples:
        lowest, _ = timesteps_of(settings).bounds(prior.schedule)
        levels = prior.schedule.steps if parts.from_noise else lowest
        if settings.total_steps > levels:
            remedy = "" if parts.from_noise else ", or a larger t_min"
            raise ValueError(
                f"steps={settings.total_steps}: the descent of editor={settings.editor} may begin with {levels} noise "
                f"levels above 0: give at most that many steps{remedy}"
            )


def _stack(prior: ImagePrior, pictures: Sequence[Tensor], size: tuple[int, int]) -> Float[Tensor, "n 3 h w"]:
    return torch.cat([resize(picture[None].float().to(prior.device), size) for picture in pictures])


def _make_target(
    prior: ImagePrior,
    prompts: tuple[str, str],
    settings: EditSettings,
    generator: torch.Generator,
    images: Float[Tensor, "n 3 h w"],
) -> Target:
    """What one group of pictures should become."""
    if settings.parts.text_only:  # no picture is shown, whatever the preset would show
        source = prior.encode(images)
        image = torch.zeros_like(source) if prior.takes_image else None
    elif settings.resolved().image_condition == "scaled-sample":
        # The released code draws one posterior sample and uses it as source, start and condition alike.
        image = source = prior.encode_condition(images, scaled_sample=generator)
    else:
        image, source = prior.encode_condition(images), prior.encode(images)
    captions = [*prompts, settings.source_prompt] if settings.parts.text_only else [*prompts]
    text, null, *there = (encoded[None].expand(len(images), *encoded.shape) for encoded in prior.encode_text(captions))
    return Target(texts=(text,), null_text=null, image=image, source=source, source_text=there[0] if there else None)
