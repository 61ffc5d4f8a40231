"""CLIP through open_clip_torch, as an `ImageTextEncoder`."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Real
from torch import Tensor
from torch.nn.functional import normalize

from csd_nerf.metrics.levels import eight_bit
from csd_nerf.metrics.types import first_line

MODEL, WEIGHTS = "ViT-bigG-14", "laion2b_s39b_b160k"
"""What the CSD paper evaluates with (Appendix C); 10 GB."""


@dataclass(frozen=True)
class Chosen:
    """Weights, and how they were trained, which must hold for their embeddings to mean what they did then."""

    weights: str
    """A tag that open_clip knows for the model, or a local file."""
    is_file: bool
    tag: str | None
    """Whose configuration holds; None for a file of a model whose tags agree, or that has none."""
    quick_gelu: bool
    """Activation x sigmoid(1.702 x), as OpenAI's own weights have it, instead of GELU."""
    preprocessing: dict[str, Any]
    """Mean, standard deviation, interpolation and way of resizing of the pictures; empty for open_clip's defaults."""

    @property
    def described(self) -> str:
        """Weights, tag and activation, for the reports."""
        names = [Path(self.weights).name] + ([f"as {self.tag}"] if self.is_file and self.tag else [])
        return ", ".join([*names, "QuickGELU" if self.quick_gelu else "GELU"])


def choose_weights(model: str, weights: str | Path | None, tag: str | None = None) -> Chosen:
    """The weights that `OpenClip` would load: a tag that open_clip knows for `model`, or a local file.

    For a file, `tag` says whose configuration it was trained with; it may be left out where all of the model's tags
    have the same. Looks nothing up but open_clip's own tables. Raises `ValueError`, naming --clip, --clip-weights or
    --clip-tag, for a model that does not exist, for weights that are neither, and for a tag that is unknown, missing
    or given without a file.
    """
    import open_clip

    if model not in open_clip.list_models():
        some = ", ".join(("ViT-B-32", "ViT-L-14", MODEL))
        raise ValueError(f"--clip {model} is unknown to open_clip: give one of its models, such as {some}")
    tags = open_clip.list_pretrained_tags_by_model(model)
    if weights is None and model == MODEL and tag is None:
        return _as_trained(model, WEIGHTS, WEIGHTS)
    is_file = weights is not None and str(weights) not in tags and Path(weights).is_file()
    if tag is not None and not is_file:
        raise ValueError(
            f"--clip-tag {tag} says how the weights in a local file were trained: give the file as --clip-weights, or "
            "leave the tag out"
        )
    if is_file:
        return _as_trained(model, str(weights), _tag_of_file(model, str(weights), tag))
    if weights is not None and str(weights) in tags:
        return _as_trained(model, str(weights), str(weights))
    given = "is missing" if weights is None else f"{weights} is neither a file nor known to open_clip"
    known = f", or one of {', '.join(tags)}" if tags else ""
    raise ValueError(f"--clip-weights {given}: give a local file of weights of {model}{known}")


class OpenClip:
    """A CLIP model of open_clip, with the activation and the picture preprocessing that it was trained with."""

    def __init__(
        self,
        model: str = MODEL,
        weights: str | Path | None = None,
        device: str = "cpu",
        batch: int = 16,
        *,
        tag: str | None = None,
    ) -> None:
        """Load `model` with `weights`: a tag that open_clip knows, or a local file; None takes the usual ones of MODEL.

        `tag` says whose configuration holds for a file. Raises `ValueError` as `choose_weights`, and `OSError` when the
        weights cannot be had; both say what can be given.
        """
        import open_clip

        chosen = choose_weights(model, weights, tag)
        # An absolute path is never taken for a tag.
        pretrained = str(Path(chosen.weights).absolute()) if chosen.is_file else chosen.weights
        try:
            with _quiet():
                if not chosen.is_file:  # first, since building 10 GB of network for nothing takes long
                    open_clip.download_pretrained(open_clip.get_pretrained_cfg(model, pretrained))
                made, _, preprocess = open_clip.create_model_and_transforms(
                    model,
                    pretrained=pretrained,
                    device=device,
                    force_quick_gelu=chosen.quick_gelu,  # open_clip only warns where its tables ask for it
                    **{f"image_{name}": value for name, value in chosen.preprocessing.items()},
                )
                self._tokenize: Any = open_clip.get_tokenizer(model)
        except Exception as error:  # of several libraries, each with its own
            raise OSError(
                f"--clip {model} with --clip-weights {chosen.weights} cannot be loaded ({first_line(error)}). Download "
                "the weights where there is a connection and give the file as --clip-weights, or choose a smaller "
                "model with --clip."
            ) from error
        self._model: Any = made.eval().requires_grad_(False)
        self._preprocess: Any = preprocess
        self._device, self._batch = device, batch
        self.name = f"{model} ({chosen.described})"

    @torch.no_grad()
    def encode_images(self, images: Real[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Embeddings of pictures in [0, 1] or in 8 bits; unit length, on the CPU.

        They pass through 8 bits, since open_clip scales, crops and normalises PIL pictures.
        """
        parts = []
        for part in images.split(self._batch):
            pixels = torch.stack([self._preprocess(_to_pil(image)) for image in part])
            parts.append(self._model.encode_image(pixels.to(self._device)).float().cpu())
        return normalize(torch.cat(parts), dim=1)

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """Embeddings of texts; unit length, on the CPU. CLIP reads the first 77 tokens (about 55 words)."""
        parts = [texts[start : start + self._batch] for start in range(0, len(texts), self._batch)]
        tokens = [self._tokenize(list(part)).to(self._device) for part in parts]
        return normalize(torch.cat([self._model.encode_text(part).float().cpu() for part in tokens]), dim=1)


def _tag_of_file(model: str, file: str, tag: str | None) -> str | None:
    """The tag whose configuration holds for a file; None where there is none, or all say the same."""
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(model)
    if tag in tags:
        return tag
    known = f"give one of {', '.join(tags)}" if tags else "it has none, leave the tag out"
    if tag is not None:
        raise ValueError(f"--clip-tag {tag} is unknown to open_clip for {model}: {known}")
    ways = [_as_trained(model, file, one) for one in tags]
    if any((way.quick_gelu, way.preprocessing) != (ways[0].quick_gelu, ways[0].preprocessing) for way in ways):
        raise ValueError(
            f"--clip-weights {file}: weights of {model} differ in activation or preprocessing, and a file does not say "
            f"which are its own: add --clip-tag with the tag that the file is of, or was trained like: {known}"
        )
    return None


def _as_trained(model: str, weights: str, tag: str | None) -> Chosen:
    """The configuration of `tag`; without one, what all tags of the model say, if there are any."""
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(model)
    asked = tag or (tags[0] if tags else None)
    said = open_clip.get_pretrained_cfg(model, asked) if asked else {}
    # Versions of open_clip before quick_gelu was in its table say it by a second model of this name.
    second = asked in ("openai", *open_clip.list_pretrained_tags_by_model(f"{model}-quickgelu"))
    quick_gelu = bool((open_clip.get_model_config(model) or {}).get("quick_gelu") or said.get("quick_gelu") or second)
    preprocessing = {name: said[name] for name in ("mean", "std", "interpolation", "resize_mode") if name in said}
    return Chosen(weights, weights not in tags, tag, quick_gelu, preprocessing)


def _to_pil(image: Real[Tensor, "3 h w"]) -> Any:
    from PIL import Image

    return Image.fromarray(eight_bit(image.cpu()).permute(1, 2, 0).numpy())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without a connection the hub's client logs each of a dozen retries, twice; the error says it once."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)
