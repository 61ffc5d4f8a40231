"""Scores of pictures and texts in an embedding space that both share (CLIP, Radford et al. 2021).

E_I and E_T are the encoders of pictures and texts, their outputs of unit length; <a, b> is the inner product.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Real
from torch import Tensor
from torch.nn.functional import normalize

from csd_nerf.metrics.types import ImageTextEncoder, Score


def directional_similarity(
    encoder: ImageTextEncoder,
    sources: Real[Tensor, "n 3 _h _w"],
    edited: Real[Tensor, "m 3 _p _q"],
    source_text: str,
    target_text: str,
) -> Score:
    """CLIP directional similarity: does the picture change as the words do? Higher is better, 1 at most.

    cos(E_I(edited) - E_I(source), E_T(target text) - E_T(source text)), per picture (Gal et al. 2022, StyleGAN-NADA;
    Brooks et al. 2023, InstructPix2Pix; CSD Tables 1 and 2). The texts describe the pictures before and after; they
    are not the instruction. A picture that did not change at all scores 0.

    Raises `ValueError` when the texts have the same embedding, since there is then no direction, and when there are not
    as many edited pictures as sources (n = m).
    """
    _check_pairs(sources, edited)
    before, after = encoder.encode_texts([source_text, target_text])
    direction = after - before
    if direction.norm() < 1e-6:
        raise ValueError(
            f"the texts {source_text!r} and {target_text!r} mean the same to {encoder.name}: give descriptions of the "
            "pictures before and after the edit"
        )
    change = encoder.encode_images(edited) - encoder.encode_images(sources)
    values = normalize(change, dim=1, eps=1e-6) @ normalize(direction, dim=0)
    return Score("CLIP directional similarity", values.tolist(), "higher", encoder.name)


def image_similarity(
    encoder: ImageTextEncoder, sources: Real[Tensor, "n 3 _h _w"], edited: Real[Tensor, "m 3 _p _q"]
) -> Score:
    """CLIP image similarity: how much of the source is left. Higher is nearer, 1 at most.

    <E_I(source), E_I(edited)>, per picture (CSD Figures 4 and 6).

    Raises `ValueError` unless n = m.
    """
    _check_pairs(sources, edited)
    values = (encoder.encode_images(sources) * encoder.encode_images(edited)).sum(dim=1)
    return Score("CLIP image similarity", values.tolist(), "higher", encoder.name)


def image_consistency(
    encoder: ImageTextEncoder, images: Real[Tensor, "n 3 _h _w"], pairs: Sequence[tuple[int, int]] | None = None
) -> Score:
    """CLIP image consistency: do neighbours look alike? Higher is better, 1 at most.

    <E_I(x_a), E_I(x_b)> over consecutive frames of a video or neighbouring views of a scene (CSD Tables 1 and 2). Blind
    to what CLIP does not see, such as a colour that drifts slowly; the warp error is not. Pictures that are no
    neighbours, such as loose ones in a folder, say nothing of consistency.

    Args:
        encoder: CLIP.
        images: at least two pictures.
        pairs: which (a, b) are neighbours; default: each picture and the next one.

    Raises:
        ValueError: fewer than two pictures.
    """
    if len(images) < 2:
        raise ValueError("CLIP image consistency compares neighbours: give at least two pictures")
    first, second = zip(*(pairs or [(i, i + 1) for i in range(len(images) - 1)]), strict=True)
    embedded = encoder.encode_images(images)
    values = (embedded[list(first)] * embedded[list(second)]).sum(dim=1)
    return Score("CLIP image consistency", values.tolist(), "higher", f"{encoder.name}, {len(values)} pairs")


def text_similarity(
    encoder: ImageTextEncoder, images: Real[Tensor, "n 3 _h _w"], text: str, *, of: str = "colour"
) -> Score:
    """CLIP text similarity: do the pictures show what the words say? Higher is better, 1 at most.

    <E_I(x), E_T(text)>, per picture (Radford et al. 2021), on colour pictures or on depth drawn in grey, near is light
    (CSD Table 3, "Color" and "Geo").

    Args:
        encoder: CLIP.
        images: colour pictures, or depth as `depth_pictures` draws it.
        text: describes what they should show.
        of: which of the two it is, for the report.
    """
    similarity = TextSimilarity(encoder, text, of)
    similarity.add(images)
    return similarity.score()


class TextSimilarity:
    """`text_similarity` of pictures that come in parts: nothing of them is kept but their scores."""

    def __init__(self, encoder: ImageTextEncoder, text: str, of: str = "colour") -> None:
        """The text is embedded once."""
        self._encoder, self._of = encoder, of
        self._text = encoder.encode_texts([text])[0]
        self._values: list[float] = []

    def add(self, images: Real[Tensor, "n 3 _h _w"]) -> None:
        """More pictures."""
        self._values += (self._encoder.encode_images(images) @ self._text).tolist()

    def score(self) -> Score:
        """The score of what was added. Raises `ValueError` where nothing was."""
        return Score(f"CLIP text similarity ({self._of})", self._values, "higher", self._encoder.name)


def r_precision(
    encoder: ImageTextEncoder,
    images: Real[Tensor, "n 3 _h _w"],
    truths: Sequence[int],
    texts: Sequence[str],
) -> Score:
    """CLIP R-precision: is a picture's own text the one it is nearest to? Higher is better, 1 at most.

    The share of pictures whose text `texts[truths[i]]` has the largest <E_I(x_i), E_T(text)> of all `texts`, the
    retrieval set (Park et al. 2021; Jain et al. 2022, Dream Fields; LDP Table 1). It depends on the retrieval set,
    whose size is in the note. A tie with another text counts as a miss.

    Raises `ValueError` when `truths` does not fit `images` and `texts`, a text stands in the set twice, or there is
    only one.
    """
    if len(texts) < 2:
        raise ValueError("CLIP R-precision needs other texts to retrieve from: give at least two")
    if len(truths) != len(images) or any(not 0 <= index < len(texts) for index in truths):
        raise ValueError(f"{len(images)} pictures need as many indices into the {len(texts)} texts")
    if len(set(texts)) != len(texts):
        raise ValueError("a text stands in the retrieval set twice: take one of them out")
    similarity = encoder.encode_images(images) @ encoder.encode_texts(texts).T
    index = torch.as_tensor(list(truths), device=similarity.device)[:, None]
    own = similarity.gather(1, index)
    others = similarity.scatter(1, index, -torch.inf).amax(dim=1, keepdim=True)
    hits = (own > others)[:, 0].float()
    return Score("CLIP R-precision", hits.tolist(), "higher", f"{encoder.name}, {len(texts)} texts")


def depth_pictures(depths: Float[Tensor, "n h w"]) -> Float[Tensor, "n 3 h w"]:
    """Depth in grey, near is light.

    1 - (d - low) / (high - low), cut to [0, 1], from the 2nd to the 98th percentile of each picture's own depths, so
    that a few far or floating points do not flatten the rest. A picture of one depth is white.
    """
    ordered = depths.flatten(1).sort(dim=1).values  # torch.quantile refuses more than 16 M values
    last = ordered.shape[1] - 1
    low, high = (ordered[:, round(share * last)][:, None, None] for share in (0.02, 0.98))
    near = 1 - ((depths - low) / (high - low).clamp_min(1e-8)).clamp(0, 1)
    return near[:, None].expand(-1, 3, -1, -1)


def _check_pairs(sources: Tensor, edited: Tensor) -> None:
    if len(sources) != len(edited):
        raise ValueError(f"{len(sources)} pictures before the edit, but {len(edited)} after it")
