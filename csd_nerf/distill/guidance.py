"""Classifier-free guidance, always in the form `uncond + s (cond - uncond)`.

Text (CSD Eq. 5):             e(0) + s_y (e(y) - e(0))
Image and text (CSD Eq. 6):   e(0, 0) + s_s (e(src, 0) - e(0, 0)) + s_y (e(src, y) - e(src, 0))
Image only (CSD-Edit's baseline):  e(0, 0) + s_s (e(src, 0) - e(0, 0))
Picture and text as one:      e(0, 0) + s_s (e(src, y) - e(0, 0)), which is Eq. 6 with s_y = s_s
Several prompts (CSD D.1):    e(src, y) is replaced by sum_k a_k e(src, y_k); since the weights a_k of a particle sum to
                              1, this equals the paper's sum of guided estimates and shares their common branches.

`0` is the empty prompt or, where one is given, the negative prompt; for the picture it is all zeros. Prompts of zero
weight are not evaluated, nor are those among several that say what `0` says: their estimate is there already. With a
text scale of 0 no prompt is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from csd_nerf.distill.types import Condition, Estimate, Guidance, Query, Target


def _prompt_rows(target: Target, n: int) -> list[Tensor]:
    """For each prompt the particles in which it has a share."""
    if target.weights is None:
        if len(target.texts) != 1:
            raise ValueError(f"{len(target.texts)} prompts were given without their weights")
        return [torch.arange(n, device=target.null_text.device)]
    return [torch.nonzero(row)[:, 0] for row in target.weights]


def _no_image(image: Tensor) -> Tensor:
    """Zeros in the place of an image condition: one row in memory for all."""
    return image.new_zeros((1, *image.shape[1:])).expand_as(image)


def _text_queries(
    x_t: Float[Tensor, "n c h w"], target: Target, image: Float[Tensor, "n c2 h w"] | None, *, null_known: bool = True
) -> tuple[tuple[Query, ...], list[tuple[Tensor, Tensor | None]]]:
    """One query per prompt over the particles that it concerns, with those rows and their weights.

    Where the estimate for the null text with this picture is known, a prompt that says the same is left out.
    """
    queries, shares = [], []
    for k, (text, rows) in enumerate(zip(target.texts, _prompt_rows(target, len(x_t)), strict=True)):
        says_nothing = target.weights is not None and torch.equal(text[rows], target.null_text[rows])
        if len(rows) == 0 or (null_known and says_nothing):
            continue
        condition = Condition(text[rows], None if image is None else image[rows])
        queries.append(Query(x_t[rows], condition))
        shares.append((rows, None if target.weights is None else target.weights[k, rows]))
    return tuple(queries), shares


def _compose(
    answers: Sequence[Tensor], shares: list[tuple[Tensor, Tensor | None]], without: Float[Tensor, "n c h w"]
) -> Float[Tensor, "n c h w"]:
    """sum_k a_k e(y_k) - e(0), written as sum_k a_k (e(y_k) - e(0)); `without` is e(0)."""
    if len(answers) == 1 and shares[0][1] is None:
        return answers[0] - without
    total = torch.zeros_like(without)
    for answer, (rows, weight) in zip(answers, shares, strict=True):
        change = answer - without[rows]
        total[rows] += change if weight is None else weight[:, None, None, None].to(answer) * change
    return total


@dataclass(frozen=True)
class TextGuidance:
    """CSD Eq. 5: two network samples per particle. Priors that take a picture see 'no picture'."""

    scale: float = 7.5

    def estimate(self, x_t: Float[Tensor, "n c h w"], t: Int[Tensor, ""], target: Target) -> Estimate:
        """Guided noise estimate of `x_t` towards the prompts of `target`."""
        image = None if target.image is None else torch.zeros_like(target.image)
        queries, shares = _text_queries(x_t, target, image) if self.scale else ((), [])

        def combine(answers: Sequence[Tensor]) -> Tensor:
            null, *texts = answers
            return null + self.scale * _compose(texts, shares, null)

        return Estimate((Query(x_t, Condition(target.null_text, image)), *queries), combine)


@dataclass(frozen=True)
class ImageTextGuidance:
    """CSD Eq. 6, InstructPix2Pix: three network samples per particle."""

    text_scale: float = 7.5
    image_scale: float = 1.5

    def estimate(self, x_t: Float[Tensor, "n c h w"], t: Int[Tensor, ""], target: Target) -> Estimate:
        """Guided noise estimate of `x_t` towards the prompts of `target`, given its source pictures."""
        image = _require_image(target)
        queries, shares = _text_queries(x_t, target, image) if self.text_scale else ((), [])
        only_image = Query(x_t, Condition(target.null_text, image))
        nothing = Query(x_t, Condition(target.null_text, _no_image(image)))

        def combine(answers: Sequence[Tensor]) -> Tensor:
            null, pictured, *texts = answers
            instructed = _compose(texts, shares, pictured)
            return null + self.image_scale * (pictured - null) + self.text_scale * instructed

        return Estimate((nothing, only_image, *queries), combine)


@dataclass(frozen=True)
class ImageGuidance:
    """CSD-Edit's baseline branch: guidance by the picture alone, two network samples per particle.

    With the same text in both text branches Eq. 6 loses its text term, so the third sample would be a copy.
    """

    image_scale: float = 1.5

    def estimate(self, x_t: Float[Tensor, "n c h w"], t: Int[Tensor, ""], target: Target) -> Estimate:
        """Noise estimate of `x_t` given its source picture, without an instruction."""
        image = _require_image(target)
        only_image = Query(x_t, Condition(target.null_text, image))
        nothing = Query(x_t, Condition(target.null_text, _no_image(image)))

        def combine(answers: Sequence[Tensor]) -> Tensor:
            null, pictured = answers
            return null + self.image_scale * (pictured - null)

        return Estimate((nothing, only_image), combine)


@dataclass(frozen=True)
class JointGuidance:
    """Picture and instruction as one condition: Eq. 6 with s_y = s_s, where the middle branch cancels.

    Two network samples per particle.
    """

    scale: float = 1.5

    def estimate(self, x_t: Float[Tensor, "n c h w"], t: Int[Tensor, ""], target: Target) -> Estimate:
        """Guided noise estimate of `x_t` given its source picture together with its prompts."""
        image = _require_image(target)
        queries, shares = _text_queries(x_t, target, image, null_known=False)
        nothing = Query(x_t, Condition(target.null_text, _no_image(image)))

        def combine(answers: Sequence[Tensor]) -> Tensor:
            null, *texts = answers
            return null + self.scale * _compose(texts, shares, null)

        return Estimate((nothing, *queries), combine)


@dataclass(frozen=True)
class GuidanceInterval:
    """One guidance at timesteps `low` to `high`, both included, and another, cheaper one elsewhere.

    Guidance does most of its work at middle noise levels (Kynkaanniemi et al. 2024, which leaves it out at others).
    """

    inside: Guidance
    outside: Guidance
    low: int
    high: int

    def estimate(self, x_t: Float[Tensor, "n c h w"], t: Int[Tensor, ""], target: Target) -> Estimate:
        """The estimate of the guidance that is meant for `t`."""
        chosen = self.inside if self.low <= int(t) <= self.high else self.outside
        return chosen.estimate(x_t, t, target)


def _require_image(target: Target) -> Tensor:
    if target.image is None:
        raise ValueError("this guidance needs an image condition; the prior has none: use TextGuidance")
    return target.image
