"""The metrics by the names that the command line gives them: what each needs, computes, and means."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from csd_nerf.metrics import clip_scores, frechet, pixel_scores, warp
from csd_nerf.metrics.perceptual import SMALLEST_FOR_LPIPS, PerceptualDistance
from csd_nerf.metrics.pictures import Pictures, in_words
from csd_nerf.metrics.types import ImageTextEncoder, Score

FEW_FOR_FID = 2048
"""Below as many pictures as features the covariances are singular: FID is then computed only when asked for."""


@dataclass(frozen=True)
class Comparison:
    """What is compared."""

    before: Pictures
    after: Pictures
    truth: Pictures | None = None
    """What `after` should be, picture by picture."""
    source_text: str | None = None
    """Describes the pictures before."""
    target_text: str | None = None
    """Describes the pictures after."""
    retrieval: tuple[str, ...] = ()
    """Texts for R-precision."""

    def own_texts(self) -> tuple[list[str], list[int]] | None:
        """The retrieval set and each picture's own text in it; None if the two do not fit.

        The target text is every picture's own, and joins the set where it is missing; without one, the set must have a
        text for each picture, in order.
        """
        texts = list(self.retrieval)
        if self.target_text is not None:
            texts += [self.target_text] if self.target_text not in texts else []
            return texts, [texts.index(self.target_text)] * len(self.after)
        return (texts, list(range(len(texts)))) if len(texts) == len(self.after) else None


@dataclass(frozen=True)
class Models:
    """The networks that the chosen metrics need; None where none does."""

    encoder: ImageTextEncoder | None = None
    perceptual: PerceptualDistance | None = None
    inception: frechet.Features | None = None


@dataclass(frozen=True)
class Row:
    """One line of a report."""

    metric: str
    """Its name on the command line."""
    of: str
    """Which pictures: `after`, `before`, `before to after`, `after to truth`, ..."""
    score: Score


@dataclass(frozen=True)
class Metric:
    """One metric."""

    name: str
    """On the command line."""
    explained_by: tuple[Callable[..., object], ...]
    """Whose docstrings state formula, direction and reference."""
    missing: Callable[[Comparison], str | None]
    """What keeps it from being computed, and the remedy."""
    compute: Callable[[Comparison, Models], list[Row]]
    network: str | None = None
    """Field of `Models` that it needs."""
    unusual: Callable[[Comparison], str | None] = lambda c: None
    """Why it is computed only when it is named."""

    def explanation(self) -> str:
        """Formula, direction and reference."""
        paragraphs = "\n\n".join(inspect.getdoc(one) or "" for one in self.explained_by).split("\n\n")
        paragraphs = [text for text in paragraphs if not text.startswith(("Raises", "Args:"))]
        if self.network == "encoder":
            paragraphs.append(
                "E_I and E_T are CLIP's encoders of pictures and texts (Radford et al. 2021), of unit length; <a, b> "
                "is their inner product. The score's note names model, weights and activation."
            )
        return "\n\n".join(paragraphs)


def unpaired(c: Comparison) -> str | None:
    """Why `before` and `after` cannot be compared one by one."""
    if len(c.before) == len(c.after):
        return None
    return f"{c.before.source} has {len(c.before)} pictures, {c.after.source} has {len(c.after)}: give as many"


def _unlike(c: Comparison, smallest: int = 1) -> str | None:
    """Why `before` and `after` cannot be compared pixel by pixel."""
    if c.before.size != c.after.size:
        sizes = f"{in_words(c.before.size)} before, {in_words(c.after.size)} after"
        return unpaired(c) or f"the pictures have {sizes}: bring them to one size"
    return unpaired(c) or _too_small(c, smallest)


def _too_small(c: Comparison, smallest: int) -> str | None:
    if min(c.after.size) >= smallest:
        return None
    return f"pictures of {in_words(c.after.size)} are too small: give at least {smallest} a side"


def _no_target(c: Comparison) -> str | None:
    return None if c.target_text else "add --target-text, a description of the pictures after the edit"


def _no_texts(c: Comparison) -> str | None:
    if c.source_text and c.target_text:
        return None
    return "add --source-text and --target-text, descriptions of the pictures before and after the edit"


def _no_truth(c: Comparison) -> str | None:
    return None if c.truth is not None else "add --truth, a folder of the pictures that it should have become"


def _single(c: Comparison) -> str | None:
    return None if len(c.after) > 1 else "a single picture has no neighbour: give several"


def _no_set(c: Comparison) -> str | None:
    if not c.retrieval:
        return "add --retrieval-set, a file with a text in each line"
    if (own := c.own_texts()) is None:
        return (
            f"--retrieval-set has {len(c.retrieval)} texts for {len(c.after)} pictures: add --target-text, or give the "
            "text of each picture in its order"
        )
    return None if len(own[0]) > 1 else "--retrieval-set has no other text to retrieve: add some"


def _no_warp(c: Comparison) -> str | None:
    if c.after.kind == "views":
        return _single(c)
    return _single(c) or _unlike(c, warp.SMALLEST_FOR_FLOW)


def _encoder(models: Models) -> ImageTextEncoder:
    assert models.encoder is not None
    return models.encoder


def _direction(c: Comparison, models: Models) -> list[Row]:
    assert c.source_text and c.target_text
    score = clip_scores.directional_similarity(
        _encoder(models), c.before.images, c.after.images, c.source_text, c.target_text
    )
    return [Row("clip-direction", "before to after", score)]


def _image(c: Comparison, models: Models) -> list[Row]:
    score = clip_scores.image_similarity(_encoder(models), c.before.images, c.after.images)
    return [Row("clip-image", "before to after", score)]


def _consistency(c: Comparison, models: Models) -> list[Row]:
    return [
        Row("clip-consistency", of, clip_scores.image_consistency(_encoder(models), one.images, one.neighbours))
        for of, one in (("after", c.after), ("before", c.before))
        if len(one) > 1
    ]


def _text(c: Comparison, models: Models) -> list[Row]:
    assert c.target_text
    return [
        Row("clip-text", of, clip_scores.text_similarity(_encoder(models), one.images, c.target_text))
        for of, one in (("after", c.after), ("before", c.before))
    ]


def _depth(c: Comparison, models: Models) -> list[Row]:
    assert c.target_text
    rows = []
    for of, one in (("after", c.after), ("before", c.before)):
        assert one.loaded.views is not None
        drawn = clip_scores.depth_pictures(one.loaded.views.depths)
        score = clip_scores.text_similarity(_encoder(models), drawn, c.target_text, of="depth")
        rows.append(Row("clip-depth", of, score))
    return rows


def _r_precision(c: Comparison, models: Models) -> list[Row]:
    own = c.own_texts()
    assert own is not None
    texts, truths = own
    return [Row("r-precision", "after", clip_scores.r_precision(_encoder(models), c.after.images, truths, texts))]


def _lpips(c: Comparison, models: Models) -> list[Row]:
    assert models.perceptual is not None
    pairs = [] if _unlike(c) else [("before to after", models.perceptual(c.after.images, c.before.images))]
    if c.truth is not None:
        pairs.append(("after to truth", models.perceptual(c.after.images, c.truth.images)))
    return [Row("lpips", of, score) for of, score in pairs]


def _fid(c: Comparison, models: Models) -> list[Row]:
    assert models.inception is not None
    of, references = ("after to truth", c.truth) if c.truth is not None else ("before to after", c.before)
    return [Row("fid", of, frechet.fid(c.after.images, references.images, models.inception))]


def _to_truth(name: str, score: Callable[..., Score]) -> Callable[[Comparison, Models], list[Row]]:
    """The score of `after`, and of `before`, which is that of leaving the pictures as they are."""

    def compute(c: Comparison, models: Models) -> list[Row]:
        assert c.truth is not None
        compared = [("after to truth", c.after)] + ([] if _unlike(c) else [("before to truth", c.before)])
        return [Row(name, of, score(one.images, c.truth.images)) for of, one in compared]

    return compute


def _warp(c: Comparison, models: Models) -> list[Row]:
    rows = []
    for of, one in (("after", c.after), ("before", c.before)):
        if one.loaded.views is not None:
            score = warp.warp_error_3d(one.images, one.loaded.views, pairs=one.neighbours)
        else:
            score = warp.warp_error_video(one.images, c.before.images)
        rows.append(Row("warp", of, score))
    return rows


def _few(c: Comparison) -> str | None:
    count = min(len(c.after), len(c.truth or c.before))
    return f"of {count} pictures it says little: name it in --metrics" if count < FEW_FOR_FID else None


def _loose(c: Comparison) -> str | None:
    loose = c.after.kind == "pictures"
    return "pictures in a folder may not be frames of a video: if they are, name it in --metrics" if loose else None


METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            "clip-direction",
            (clip_scores.directional_similarity,),
            lambda c: _no_texts(c) or unpaired(c),
            _direction,
            "encoder",
        ),
        Metric("clip-image", (clip_scores.image_similarity,), unpaired, _image, "encoder"),
        Metric("clip-consistency", (clip_scores.image_consistency,), _single, _consistency, "encoder", _loose),
        Metric("clip-text", (clip_scores.text_similarity,), _no_target, _text, "encoder"),
        Metric(
            "clip-depth",
            (clip_scores.text_similarity, clip_scores.depth_pictures),
            lambda c: _no_target(c) if c.after.kind == "views" else "only runs have depth: give --load-config",
            _depth,
            "encoder",
        ),
        Metric("r-precision", (clip_scores.r_precision,), _no_set, _r_precision, "encoder"),
        Metric(
            "lpips",
            (PerceptualDistance,),
            lambda c: _too_small(c, SMALLEST_FOR_LPIPS) or (_unlike(c) if c.truth is None else None),
            _lpips,
            "perceptual",
        ),
        Metric(
            "fid",
            (frechet.fid,),
            lambda c: (
                "it needs several pictures on either side" if min(len(c.after), len(c.truth or c.before)) < 2 else None
            ),
            _fid,
            "inception",
            _few,
        ),
        Metric("psnr", (pixel_scores.psnr,), _no_truth, _to_truth("psnr", pixel_scores.psnr)),
        Metric(
            "ssim",
            (pixel_scores.ssim,),
            lambda c: _no_truth(c) or _too_small(c, pixel_scores.SMALLEST_FOR_SSIM),
            _to_truth("ssim", pixel_scores.ssim),
        ),
        Metric("warp", (warp.warp_error_3d, warp.warp_error_video), _no_warp, _warp, unusual=_loose),
    )
}
"""Every metric by its name, in the order of reports."""
