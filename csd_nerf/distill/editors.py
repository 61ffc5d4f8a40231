"""The editors: CSD-Edit, its ablations and the methods that it is compared with, each as a choice of parts.

| editor       | kernel           | subtracted                | guidance       | samples | from                      |
|--------------|------------------|---------------------------|----------------|---------|---------------------------|
| csd-edit     | rbf              | the source's estimate     | image and text | 5       | CSD Section 3.2           |
| no-svgd      | independent      | the source's estimate     | image and text | 5       | CSD E, without SVGD       |
| random-noise | rbf              | the injected noise        | image and text | 3       | CSD E; Eq. 3 with Eq. 6   |
| sds          | independent      | the injected noise        | image and text | 3       | CSD Eq. 2 with Eq. 6      |
| dds          | independent, rbf | the source's estimate     | text           | 4       | Hertz et al. 2023; rbf is |
|              |                  | under the source's prompt |                |         | DDS + CSD, CSD B.3        |
| ip2p         | -                | -                         | image and text | 3       | Brooks et al. 2023        |
| in2n         | -                | -                         | image and text | 3       | Haque et al. 2023         |

`samples` are those of the network for one picture and step. The first five descend on latents with the distiller. The
last two sample every picture by itself with DDIM: ip2p from pure noise, in2n from the picture as it is now, at a noise
level drawn from [0.02, 0.98]. Whether pictures share their noise is a choice of its own for all of them
(`EditSettings.noise`): for the samplers it is the noise that they start from, or that is added to their start.

dds sees no picture but its particles: a prior with an image input is told 'no picture'. Its prompt is the caption of
what is wanted, its source prompt that of what is there.
"""

from dataclasses import dataclass
from typing import Any, Literal

Editor = Literal["csd-edit", "no-svgd", "random-noise", "sds", "dds", "ip2p", "in2n"]
KernelName = Literal["rbf", "independent"]
BaselineName = Literal["source", "noise"]

_DISTILLING = ("kernel", "baseline", "lr", "mixing", "bandwidth", "repulsion")
"""Settings that only mean something to editors that distil."""
_PICTURED = frozenset({"image_guidance_scale", "image_condition", "text_t_min", "text_t_max"})
"""Settings that only mean something to editors that see the source picture."""


@dataclass(frozen=True)
class EditorParts:
    """What an editor is made of."""

    kernels: tuple[KernelName, ...] = ()
    """Kernels that it may have, its own first; empty for editors that sample."""
    baseline: BaselineName | None = None
    """What is subtracted from the score."""
    text_only: bool = False
    """Guidance by text alone, with a prompt for the source too; else by picture and text (CSD Eq. 6)."""
    from_noise: bool = False
    """Whether sampling starts from pure noise."""
    t_range: tuple[float, float] | None = None
    """Noise levels of its own, fractions of the schedule; None takes the preset's."""

    @property
    def samples(self) -> bool:
        """Whether pictures are sampled, each by itself, instead of being optimised."""
        return not self.kernels

    @property
    def unused(self) -> frozenset[str]:
        """Names of the `EditSettings` that have no meaning for it."""
        names = set(_DISTILLING) | {"lr_decay", "lr_decay_every"} if self.samples else set[str]()
        names |= _PICTURED if self.text_only else {"source_prompt"}
        return frozenset(names | ({"t_min", "t_max"} if self.from_noise else set()))

    def defaults(self) -> dict[str, Any]:
        """Its own values of `EditSettings`, which go before the preset's."""
        low, high = self.t_range or (None, None)
        own = {"kernel": next(iter(self.kernels), None), "baseline": self.baseline, "t_min": low, "t_max": high}
        own |= {"noise": "shared" if self.samples else None}
        return {name: value for name, value in own.items() if value is not None}


EDITORS: dict[Editor, EditorParts] = {
    "csd-edit": EditorParts(("rbf",), "source"),
    "no-svgd": EditorParts(("independent",), "source"),
    "random-noise": EditorParts(("rbf",), "noise"),
    "sds": EditorParts(("independent",), "noise"),
    "dds": EditorParts(("independent", "rbf"), "source", text_only=True),
    "ip2p": EditorParts(from_noise=True),
    "in2n": EditorParts(t_range=(0.02, 0.98)),
}


def check_editor(editor: Editor, given: dict[str, Any]) -> None:
    """Raise `ValueError`, naming both settings, where one that is given contradicts the editor or is lost on it.

    Args:
        editor: The editor.
        given: Settings that are not left to the editor or the preset, by name.
    """
    parts = EDITORS[editor]
    kernel, baseline = given.get("kernel"), given.get("baseline")
    if parts.kernels and kernel is not None and kernel not in parts.kernels:
        own = " or ".join(parts.kernels)
        raise ValueError(f"kernel={kernel} contradicts editor={editor}, whose kernel is {own}: leave one of them out")
    if parts.baseline and baseline not in (None, parts.baseline):
        raise ValueError(
            f"baseline={baseline} contradicts editor={editor}, whose baseline is {parts.baseline}: leave one of them "
            "out"
        )
    # The t range may be a default of the caller's, as in `csd-edit-lite`; a sampler from pure noise just has none.
    for name in (*_DISTILLING, *sorted(_PICTURED), "source_prompt"):
        value = given.get(name)
        if name in parts.unused and value is not None and value != "":
            shown = f'"{value}"' if name == "source_prompt" else value
            raise ValueError(f"{name}={shown} has no meaning for editor={editor}: leave one of them out")
    if parts.text_only and not str(given.get("source_prompt", "")).strip():
        raise ValueError(
            f'editor={editor} needs source_prompt="...", the caption of what is there, such as "a red cube"; '
            "the prompt is then the caption of what is wanted"
        )
