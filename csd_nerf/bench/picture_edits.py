"""One method's edit of one panorama or video, as a user of csd_nerf.images would make it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.bench.picture_methods import FRAMES_PER_SECOND
from csd_nerf.distill import EditSettings, ImagePrior
from csd_nerf.images.frames import decode_frames, encode_frames
from csd_nerf.images.layout import panorama_layout
from csd_nerf.images.panorama import edit_panorama, settings_for
from csd_nerf.images.tiles import decode_tiled, encode_tiled
from csd_nerf.images.video import prepare_video
from csd_nerf.images.video_edit import check_video

Kind = Literal["panorama", "video"]


@dataclass(frozen=True)
class Edited:
    """What came of an edit."""

    pictures: Float[Tensor, "n 3 h w"]
    """The frames, or the panorama alone; in [0, 1]."""
    network_samples: int
    """As counted."""
    seconds: float
    """From encoding to decoding."""
    steps: int
    """Of optimisation or of sampling."""


@lru_cache(maxsize=1)
def prior_of(name: str, precision: str) -> ImagePrior:
    """The prior, once in a process."""
    from csd_nerf.priors import load_prior

    return load_prior(name, dtype=precision, needs_image=True)  # pyright: ignore[reportArgumentType]


def settings_of(kind: Kind, settings: Mapping[str, Any]) -> EditSettings:
    """The edit's settings of a method. What is compared is as the autoencoder shows it: no detail is given back."""
    given = {"keep_detail": 0.0, **settings}
    given.pop("temporal", None)
    editor = given.pop("editor")
    if kind == "panorama":
        return settings_for(editor, EditSettings(**given))
    return EditSettings(editor=editor, **given)


def unedited(kind: Kind, prior: ImagePrior, source: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """The source as the prior's autoencoder shows it: what an edit that does nothing gives."""
    height, width = source.shape[-2:]
    if kind == "panorama":
        layout = panorama_layout(prior, height, width)
        latents = encode_tiled(prior, layout.pad(source[0])).to(prior.device)
        return layout.crop.undo(decode_tiled(prior, latents)).cpu()[None]
    encoded = encode_frames(prior, source, len(source), EditSettings(), torch.Generator())
    return torch.stack(list(decode_frames(prior, encoded.source, (height, width))))


def edit(
    kind: Kind,
    prior: ImagePrior,
    source: Float[Tensor, "n 3 h w"],
    prompt: str,
    settings: Mapping[str, Any],
    seed: int,
) -> Edited:
    """Edit with a method's settings: `EditSettings` by name, `editor` and perhaps `temporal`. Raises `ValueError`."""
    started, chosen = time.monotonic(), settings_of(kind, settings)
    if kind == "panorama":
        result = edit_panorama(prior, source[0], prompt, editor=settings["editor"], settings=chosen, seed=seed)
        pictures, state = result.image[None], result.checkpoint
    else:
        temporal, times = settings.get("temporal"), [index / FRAMES_PER_SECOND for index in range(len(source))]
        check_video(prior, prompt, chosen, temporal)
        video = prepare_video(prior, source, times, (prompt, ""), chosen, temporal=temporal, seed=seed)
        state, _ = video.run()
        pictures = torch.stack(list(video.pictures((source.shape[-2], source.shape[-1]))))
    return Edited(pictures, state.network_samples, time.monotonic() - started, state.step)
