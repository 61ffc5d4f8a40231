"""What a method of the benchmark of scenes edits with, once preset, editor and passes have had their say."""

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from csd_nerf.distill.presets import EditSettings

if TYPE_CHECKING:
    from csd_nerf.scenes.edit_options import EditPipelineConfig

DIGESTED = (
    *("guidance_scale", "image_guidance_scale", "guidance_first", "lr", "lr_decay", "lr_decay_every"),
    *("t_min", "t_min_first", "t_max", "method_t_max", "t_max_end", "t_max_passes", "text_t_min", "text_t_max"),
    *("preset", "kernel", "baseline", "mixing", "keep_detail"),
)
"""Flags of a scene's edits that act through nothing else than what `digest` is of."""
_LATER = 1000
"""A pass after which nothing falls any more."""


def effective(settings: Mapping[str, Any]) -> tuple[EditSettings, EditSettings]:
    """The editor's settings in the first pass and in later ones, of csd-edit-lite with these changes."""
    pipeline = _pipeline(settings)
    first, later = (pipeline.settings(None, passes).resolved() for passes in (0, _LATER))
    return first, later


def _pipeline(settings: Mapping[str, Any]) -> "EditPipelineConfig":
    from csd_nerf.scenes.edit_config import lite_config

    pipeline = lite_config().pipeline
    for name, value in settings.items():
        setattr(pipeline, name, value)
    return pipeline


def digest(settings: Mapping[str, Any]) -> str:
    """Hash of all that these settings leave to method, preset and editor: another default is another experiment."""
    pipeline = _pipeline(settings)
    used = [sorted(one.used().items()) for one in effective(settings)]
    passes = [pipeline.t_max_passes] if pipeline.falls else []
    return hashlib.sha256(repr(used + passes).encode()).hexdigest()[:12]


def in_words(settings: Mapping[str, Any]) -> str:
    """Guidance, noise levels and rhythm, for a legend."""
    first, later = effective(settings)
    fallen = f" falling to {later.guidance_scale:g}" if later.guidance_scale != first.guidance_scale else ""
    said = [f"guidance {first.guidance_scale:g}{fallen}"]
    if not first.parts.from_noise:
        levels = [f"{one.t_min:g} to {one.t_max:g}" for one in (first, later)]
        said.append("noise levels " + ", then ".join(dict.fromkeys(levels)))
    views = settings["edit_batch_size"]
    rhythm = f"{settings['edit_steps']} steps of {views} view{'s' * (views > 1)}"
    if views == 1:
        rhythm += f" every {settings['edit_every']} NeRF steps"
    return ", ".join([*said, rhythm])
