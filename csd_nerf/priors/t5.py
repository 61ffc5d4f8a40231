"""The T5 text encoder of DeepFloyd IF: prompts in lower case, 77 tokens, the padding masked (diffusers' `IFPipeline`).

The pipeline can also clean prompts of web addresses, markup and the like, as the captions of its training were; what
a user types has none of that, and it needs two more libraries.
"""

# pyright: reportPrivateImportUsage=false

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from csd_nerf.priors.errors import PriorError, PriorLayoutError
from csd_nerf.priors.layout import Weights
from csd_nerf.priors.reading import read_weights, reading
from csd_nerf.priors.text import TextEncoder

LENGTH = 77
"""Tokens of an encoding; DeepFloyd IF was trained with them, though T5 reads longer texts."""


def load_t5(folder: Path, weights: Weights, *, name: str, device: torch.device, dtype: torch.dtype) -> TextEncoder:
    """The text encoder of the model in `folder`. Raises `PriorLayoutError`, and `PriorError` for missing libraries."""
    return TextEncoder(
        _load_tokenizer(folder / "tokenizer"),
        _load_model(folder, weights),
        name=name,
        device=device,
        dtype=dtype,
        length=LENGTH,
        masked=True,
        prepare=lower_case,
    )


def lower_case(prompt: str) -> str:
    """A prompt as DeepFloyd IF was trained on them."""
    return prompt.lower().strip()


def _load_tokenizer(folder: Path) -> Any:
    import transformers

    # Before transformers 5 the plain class cannot read tokenizer.json; since then both are one.
    kind = getattr(transformers, "T5TokenizerFast", transformers.T5Tokenizer)
    if not (folder / "tokenizer.json").is_file() and find_spec("sentencepiece") is None:
        raise PriorError(
            f"{folder} has no tokenizer.json, and its spiece.model needs two more packages: "
            "pip install 'csd_nerf[deepfloyd]' (or: pip install 'sentencepiece<0.2.1' protobuf)"
        )
    with reading(folder):
        return kind.from_pretrained(folder, local_files_only=True)


def _load_model(folder: Path, weights: Weights) -> nn.Module:
    """Without `from_pretrained`, which would keep random weights where some are missing and only log it.

    The 4.8 billion weights of the real one are never drawn at random: the model is built without memory.
    """
    from transformers import T5Config, T5EncoderModel

    with reading(folder / "text_encoder"):
        config = T5Config.from_pretrained(folder / "text_encoder", local_files_only=True)
        with torch.device("meta"):
            model = T5EncoderModel(config)
        state = read_weights(folder, weights)
    tied = (
        "shared.weight",
        "encoder.embed_tokens.weight",
    )  # one tensor under two names, of which files hold one or both
    for name, other in (tied, tied[::-1]):
        if name in state:
            state.setdefault(other, state[name])
    missing, _ = model.load_state_dict(state, strict=False, assign=True)
    if missing:
        raise PriorLayoutError(f"{folder / 'text_encoder'} has no weights for {', '.join(sorted(missing)[:3])}, ...")
    return model
