"""Whether the edited training views agree with each other, before the scene averages them.

That collaborating views choose the same where an instruction leaves a choice is what CSD claims (CSD Sections 3.2,
4.3). In renders of the trained scene it cannot be told from what the NeRF does, which shows one thing from all sides
whatever its views say.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.toyworld.judging.colour import to_lab

_CHANGED, _LIGHTNESS = 0.1, 0.5


@dataclass(frozen=True)
class Agreement:
    """What the views chose."""

    choices: tuple[str | None, ...]
    """Of each view: the choice whose true picture is nearest, None where the source is nearer than any of them."""
    shown: tuple[int, ...]
    """Which views these are: the others cannot show what is asked for."""

    @property
    def share(self) -> float:
        """Share of all views that made the commonest choice; views without an edit count as disagreeing."""
        counts = Counter(choice for choice in self.choices if choice is not None)
        return max(counts.values(), default=0) / len(self.choices)

    @property
    def edited(self) -> float:
        """Share of all views that show any edit."""
        return sum(choice is not None for choice in self.choices) / len(self.choices)


def view_agreement(
    views: Float[Tensor, "n 3 h w"],
    source: Float[Tensor, "n 3 h w"],
    truths: Float[Tensor, "k n 3 h w"],
    choices: Sequence[str],
) -> Agreement:
    """Which of the true edits each view shows, 0..1 sRGB throughout.

    Nearest in Lab, lightness at half weight, in the pixels where any true edit changes that view. `choices` names the
    choice behind each true edit; several may share one, as hats of different kinds share a colour. A view that no true
    edit changes says nothing and is left out.

    Raises `ValueError` if that is so for all views.
    """
    found: list[str | None] = []
    shown_by: list[int] = []
    for index, (view, before, possible) in enumerate(zip(views, source, truths.transpose(0, 1), strict=True)):
        region = ((possible - before).abs().amax(dim=1) > _CHANGED).any(dim=0)
        if not region.any():
            continue
        shown, *others = to_lab(torch.stack([view, before, *possible]), _LIGHTNESS)[:, :, region]
        distances = torch.stack([(shown - other).square().mean() for other in others])
        nearest = int(distances.argmin())
        found.append(choices[nearest - 1] if nearest else None)
        shown_by.append(index)
    if not found:
        raise ValueError("no view shows what the instruction asks for: nothing can agree")
    return Agreement(tuple(found), tuple(shown_by))
