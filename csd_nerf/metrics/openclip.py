"""CLIP through open_clip_torch, as an `ImageTextEncoder`."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from csd_nerf.metrics.types import first_line

MODEL, WEIGHTS = "ViT-bigG-14", "laion2b_s39b_b160k"
"""What the CSD paper evaluates with (Appendix C); 10 GB."""


def choose_weights(model: str, weights: str | Path | None) -> str:
    """The weights that `OpenClip` would load: a tag that open_clip knows for `model`, or a local file.

    Looks nothing up but open_clip's own tables. Raises `ValueError`, naming --clip or --clip-weights, for a model that
    does not exist, and for weights that are neither.
    """
    import open_clip

    if model not in open_clip.list_models():
        some = ", ".join(("ViT-B-32", "ViT-L-14", MODEL))
        raise ValueError(f"--clip {model} is unknown to open_clip: give one of its models, such as {some}")
    tags = open_clip.list_pretrained_tags_by_model(model)
    if weights is None and model == MODEL:
        return WEIGHTS
    if weights is not None and (str(weights) in tags or Path(weights).is_file()):
        return str(weights)
    given = "is missing" if weights is None else f"{weights} is neither a file nor known to open_clip"
    known = f", or one of {', '.join(tags)}" if tags else ""
    raise ValueError(f"--clip-weights {given}: give a local file of weights of {model}{known}")


class OpenClip:
    """A CLIP model of open_clip, with the picture preprocessing that it was trained with."""

    def __init__(
        self, model: str = MODEL, weights: str | Path | None = None, device: str = "cpu", batch: int = 16
    ) -> None:
        """Load `model` with `weights`: a tag that open_clip knows, or a local file; None takes the usual ones of MODEL.

        Raises `ValueError` as `choose_weights`, and `OSError` when the weights cannot be had; both say what can be
        given.
        """
        import open_clip

        weights = choose_weights(model, weights)
        try:
            with _quiet():
                if not Path(weights).is_file():  # first, since building 10 GB of network for nothing takes long
                    open_clip.download_pretrained(open_clip.get_pretrained_cfg(model, weights))
                made, _, preprocess = open_clip.create_model_and_transforms(model, pretrained=weights, device=device)
                self._tokenize: Any = open_clip.get_tokenizer(model)
        except Exception as error:  # of several libraries, each with its own
            raise OSError(
                f"--clip {model} with --clip-weights {weights} cannot be loaded ({first_line(error)}). Download the "
                "weights where there is a connection and give the file as --clip-weights, or choose a smaller model "
                "with --clip."
            ) from error
        self._model: Any = made.eval().requires_grad_(False)
        self._preprocess: Any = preprocess
        self._device, self._batch = device, batch
        self.name = f"{model} ({Path(weights).name})"

    @torch.no_grad()
    def encode_images(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Embeddings of pictures in [0, 1]; unit length, on the CPU.

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


def _to_pil(image: Float[Tensor, "3 h w"]) -> Any:
    from PIL import Image

    return Image.fromarray((255 * image.cpu().clamp(0, 1)).round().byte().permute(1, 2, 0).numpy())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without a connection the hub's client logs each of a dozen retries, twice; the error says it once."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)
