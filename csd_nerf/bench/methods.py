"""What is compared: a method is a set of pipeline settings, and how it spends a budget.

Every method gets the same number of UNet samples and of NeRF steps, as nearly as its step size allows; what it has used
is counted by the run itself and stands in the report. `samples_per_step` is what a view costs in one step:

    5   score of three branches (text and image, image, none) less a source branch of two (CSD-Edit; no SVGD)
    3   the score alone, injected noise subtracted (random noise; SDS), or one step of sampling InstructPix2Pix
    4   score and source score of two branches each, text guidance only (DDS)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

REFERENCE = "csd-edit"
"""The method that the others are compared with."""
UNEDITED = "unedited"
"""No method: the scene as it was trained on the photos, which shows what doing nothing would score."""
SHARED = "-shared"
"""Ends the name of a method in which all views of a round see one noise."""
_SAMPLING_STEPS = 20


@dataclass(frozen=True)
class Budget:
    """What each method may spend on one edit of one scene."""

    nerf_steps: int
    """NeRF steps after the scene was trained on its photos."""
    samples_per_view: int
    """UNet samples per training view, in all."""
    rounds: int
    """Rounds of the methods that edit in rounds."""
    batch: int
    """Views in such a round, at most."""
    views: int
    """Training views."""

    @property
    def samples(self) -> int:
        """UNet samples in all."""
        return self.samples_per_view * self.views

    @property
    def views_in_round(self) -> int:
        """Views that a round edits: a pass is cut into rounds of equal size."""
        return -(-self.views // -(-self.views // min(self.batch, self.views)))


@dataclass(frozen=True)
class Method:
    """One row of the tables."""

    name: str
    about: str
    """For the report's legend."""
    samples_per_step: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the pipeline's configuration, or of the editor's settings."""
    pace: "Pace" = field(default=lambda method, budget: {})
    """Settings that spend a budget."""
    captions: bool = False
    """Whether it is told captions of the scene before and after the edit, not an instruction."""

    def spend(self, budget: Any) -> dict[str, Any]:
        """All settings of this method under a budget, that of its benchmark."""
        return {**self.settings, **self.pace(self, budget)}


Pace = Callable[[Method, Any], dict[str, Any]]
"""How a method spends its benchmark's budget, as settings."""


def in_rounds(method: Method, budget: Budget) -> dict[str, Any]:
    """The budget's rounds, evenly over the NeRF steps; what is left to choose is the number of steps in each."""
    every = -(-budget.nerf_steps // budget.rounds)
    rounds = -(-budget.nerf_steps // every)
    steps = budget.samples / (rounds * budget.views_in_round * method.samples_per_step)
    return {
        "edit_every": every,
        "edit_batch_size": budget.views_in_round,
        "edit_steps": max(1, round(steps)),
        "t_max_passes": max(1, rounds // -(-budget.views // budget.views_in_round)),
    }


def at_once(method: Method, budget: Budget) -> dict[str, Any]:
    """One round of all views before the first NeRF step: the training views are edited once and stay so."""
    return {
        "edit_every": budget.nerf_steps + 1,
        "edit_batch_size": budget.views,
        "edit_steps": max(1, round(budget.samples_per_view / method.samples_per_step)),
    }


def one_by_one(method: Method, budget: Budget) -> dict[str, Any]:
    """One view every few NeRF steps, so often that an edit needs at most 20 sampling steps (Haque et al. 2023).

    More steps are not possible: an edit may begin at noise level 0.02, which is the 20th of 1000.
    """
    wanted = -(-budget.samples // (_SAMPLING_STEPS * method.samples_per_step))
    every = max(1, budget.nerf_steps // wanted)
    edits = -(-budget.nerf_steps // every)
    steps = round(budget.samples / (edits * method.samples_per_step))
    return {"edit_every": every, "edit_batch_size": 1, "edit_steps": min(max(1, steps), _SAMPLING_STEPS)}


def as_published(method: Method, budget: Budget) -> dict[str, Any]:
    """One view every 10 NeRF steps, 20 sampling steps (Haque et al. 2023), whatever the budget of samples."""
    return {"edit_every": 10, "edit_batch_size": 1, "edit_steps": _SAMPLING_STEPS}


def _of_editor(name: str, about: str, samples: int, pace: Pace = in_rounds, **settings: Any) -> tuple[Method, Method]:
    """An editor whose views have a noise of their own each, and the same with one noise for all views of a round.

    What the noise does must not be credited to the kernel.
    """
    captions = name.startswith("dds")
    own = Method(name, about, samples, {"editor": name, "noise": "independent", **settings}, pace, captions)
    shared = {**own.settings, "noise": "shared"}
    return own, replace(own, name=name + SHARED, about=f"{name}, with one noise for all views", settings=shared)


_IN2N = {"editor": "in2n", "t_min": 0.02, "t_max": 0.98}
"""Haque et al. 2023; csd-edit-lite has other ranges."""
_EVERY = (
    Method(UNEDITED, "the scene trained on its photos, which every method starts from", 0),
    *_of_editor(REFERENCE, "RBF kernel, source score subtracted (CSD Section 3.2)", 5),
    *_of_editor("no-svgd", "csd-edit without the kernel: no view listens to another (CSD Figure 6)", 5),
    *_of_editor("random-noise", "csd-edit, injected noise subtracted in place of the source score (CSD Figure 6)", 3),
    *_of_editor("sds", "score distillation: no kernel, injected noise subtracted (Poole et al. 2023)", 3),
    *_of_editor("dds", "delta denoising score between captions before and after the edit (Hertz et al. 2023)", 4),
    *_of_editor("dds-csd", "dds with the RBF kernel (CSD B.3)", 4, editor="dds", kernel="rbf"),
    *_of_editor("ip2p", "each photo edited once by sampling (Brooks et al. 2023)", 3, at_once),
    Method("in2n", "iterative dataset update, as often as the samples allow", 3, _IN2N, one_by_one),
    Method(
        "in2n-less-noise",
        "in2n with noise levels up to 0.7 in place of the published 0.98",
        3,
        {**_IN2N, "t_max": 0.7},
        one_by_one,
    ),
    Method(
        "in2n-every-10",
        "iterative dataset update as published, a view every 10 NeRF steps: fewer samples (Haque et al. 2023)",
        3,
        _IN2N,
        as_published,
    ),
)
METHODS: dict[str, Method] = {method.name: method for method in _EVERY}
"""All methods by name, in the order of the report. A bare name means noise of its own for each view."""
QUICK = (UNEDITED, REFERENCE, f"{REFERENCE}{SHARED}", "no-svgd", "ip2p", "in2n")
