"""Frames of a video as particles: to latents and back in groups, and what they should become."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from csd_nerf.distill import EditSettings, ImagePrior, Target, edit_size, give_back, resize

PIXELS_AT_ONCE = 1 << 20
"""Frames are encoded and decoded in groups of at most this many pixels, or one by one."""


@dataclass(frozen=True)
class FrameTargets:
    """What frames should become; `Targets` whose tensors may lie elsewhere than the prior runs."""

    source: Float[Tensor, "n c h w"]
    """Latents of the frames before the edit."""
    image: Float[Tensor, "n c h w"] | None
    """Image condition."""
    text: Float[Tensor, "l d"]
    """Encoded instruction."""
    null_text: Float[Tensor, "l d"]
    """Encoding of the empty or the negative prompt."""
    source_text: Float[Tensor, "l d"] | None
    """Encoded caption of the source, for Delta Denoising Score."""
    device: torch.device
    """Where the prior runs."""

    def __getitem__(self, rows: Int[Tensor, " m"]) -> Target:
        """The target of some frames."""

        def text(encoded: Tensor | None) -> Tensor | None:
            return None if encoded is None else encoded[None].expand(len(rows), *encoded.shape)

        def frames(latents: Tensor | None) -> Tensor | None:
            return None if latents is None else latents[rows].to(self.device)

        words, null = text(self.text), text(self.null_text)
        assert words is not None and null is not None
        return Target((words,), null, frames(self.image), None, frames(self.source), text(self.source_text))


@dataclass(frozen=True)
class Encoded:
    """Frames as the prior sees them."""

    source: Float[Tensor, "n c h w"]
    """Latents."""
    image: Float[Tensor, "n c h w"] | None
    """Image condition."""


def encode_frames(
    prior: ImagePrior,
    frames: Iterable[Float[Tensor, "3 H W"]],
    count: int,
    settings: EditSettings,
    generator: torch.Generator,
    *,
    allocate: Callable[[str, tuple[int, ...]], Tensor] | None = None,
    on_frame: Callable[[int, int], None] | None = None,
) -> Encoded:
    """Latents and condition of `count` frames of one size, read once, a group at a time.

    `allocate(name, shape)` gives the float32 tensors that are filled; None takes main memory.
    """
    full, make = settings.resolved(), allocate or (lambda name, shape: torch.empty(shape))
    found: dict[str, Tensor] = {}
    done = 0
    for group in _grouped(frames, prior):
        encoded = _encode_group(prior, group, full, generator)
        for name, latents in encoded.items():
            if name not in found:
                found[name] = make(name, (count, *latents.shape[1:]))
            found[name][done : done + len(latents)] = latents.cpu()
        done += len(group)
        if on_frame is not None:
            on_frame(done, count)
    if done != count:
        raise ValueError(f"{count} frames were announced, {done} could be read")
    return Encoded(found["source"], found.get("image"))


def _encode_group(
    prior: ImagePrior, group: Tensor, settings: EditSettings, generator: torch.Generator
) -> dict[str, Tensor]:
    if settings.parts.text_only:
        source = prior.encode(group)
        return {"source": source, "image": torch.zeros_like(source)} if prior.takes_image else {"source": source}
    if settings.image_condition == "scaled-sample":
        # The released code draws one posterior sample and uses it as source, start and condition alike.
        source = prior.encode_condition(group, scaled_sample=generator)
        return {"source": source, "image": source}
    return {"source": prior.encode(group), "image": prior.encode_condition(group)}


def _grouped(frames: Iterable[Tensor], prior: ImagePrior) -> Iterator[Tensor]:
    """Frames at the size at which they are edited, on the prior's device, in groups of bounded size."""
    waiting: list[Tensor] = []
    for frame in frames:
        size = edit_size(frame.shape[-2], frame.shape[-1], prior.size, prior.factor)
        waiting.append(resize(frame[None].to(torch.float32), size)[0])
        if (len(waiting) + 1) * size[0] * size[1] > PIXELS_AT_ONCE:
            yield torch.stack(waiting).to(prior.device)
            waiting = []
    if waiting:
        yield torch.stack(waiting).to(prior.device)


@dataclass(frozen=True)
class Shown:
    """What frames showed before an edit, which gives back their detail where nothing has changed."""

    frames: Iterable[Float[Tensor, "3 H W"]]
    """Read once more, one by one."""
    latents: Float[Tensor, "n c h w"]
    """Theirs."""
    keep_detail: float
    """See `EditSettings.keep_detail`; above 0."""


def decode_frames(
    prior: ImagePrior, latents: Float[Tensor, "n c h w"], size: tuple[int, int], before: Shown | None = None
) -> Iterator[Float[Tensor, "3 H W"]]:
    """Pictures of height and width `size`, one by one, on the CPU; decoded in groups of bounded size.

    With what frames of that size showed `before`, they get its detail back where they have not changed.
    """

    def decoded(latents: Tensor) -> Iterator[Tensor]:
        for group in latents.split(max(1, PIXELS_AT_ONCE // (latents.shape[-2] * latents.shape[-1] * factor**2))):
            yield from prior.decode(group.to(prior.device)).cpu().split(1)

    factor = prior.factor
    if before is None:
        yield from (resize(picture, size)[0] for picture in decoded(latents))
        return
    for frame, rebuilt, edited in zip(before.frames, decoded(before.latents), decoded(latents), strict=True):
        yield give_back(frame[None].float().cpu(), rebuilt, edited, before.keep_detail, factor)[0]
