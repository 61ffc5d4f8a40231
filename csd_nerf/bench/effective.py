"""What a method of the benchmark of scenes edits with, once preset, editor and rounds have had their say."""

import hashlib
from collections.abc import Mapping
from typing import Any

from csd_nerf.distill.presets import EditSettings

_LATER = 1000
"""A round after which nothing falls any more."""


def effective(settings: Mapping[str, Any]) -> tuple[EditSettings, EditSettings]:
    """The editor's settings in the first round and in later ones, of csd-edit-lite with these changes."""
    from csd_nerf.scenes.edit_config import lite_config

    pipeline = lite_config().pipeline
    for name, value in settings.items():
        setattr(pipeline, name, value)
    first, later = (pipeline.settings(None, rounds).resolved() for rounds in (0, _LATER))
    return first, later


def digest(settings: Mapping[str, Any]) -> str:
    """Hash of all that these settings leave to preset and editor: another default is another experiment."""
    used = [sorted(one.used().items()) for one in effective(settings)]
    return hashlib.sha256(repr(used).encode()).hexdigest()[:12]


def in_words(settings: Mapping[str, Any]) -> str:
    """Guidance, noise levels and rhythm, for a legend."""
    first, later = effective(settings)
    fallen = f" falling to {later.guidance_scale:g}" if later.guidance_scale != first.guidance_scale else ""
    said = [f"guidance {first.guidance_scale:g}{fallen}"]
    if not first.parts.from_noise:
        fallen = f" falling to {later.t_max:g}" if later.t_max != first.t_max else ""
        said.append(f"noise levels {first.t_min:g} to {first.t_max:g}{fallen}")
    views = settings["edit_batch_size"]
    rhythm = f"{settings['edit_steps']} steps of {views} view{'s' * (views > 1)}"
    if views == 1:
        rhythm += f" every {settings['edit_every']} NeRF steps"
    return ", ".join([*said, rhythm])
