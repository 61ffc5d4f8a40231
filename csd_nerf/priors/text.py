"""Prompts to encodings, and what a user should be told about a prompt."""

import logging
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from csd_nerf.priors.autoencoder import freeze, frozen

log = logging.getLogger("csd_nerf.priors")

SMALL_VOCABULARY = 10_000
"""Tokenizers with fewer tokens than this know only the words that their prior was trained on (CLIP has 49,408)."""
_PROMPTS_PER_CALL = 64


class TextEncoder:
    """A frozen CLIP or T5 text encoder that encodes every prompt once.

    Prompts are padded to the tokenizer's length and longer ones are cut, both as in the diffusers pipelines. The empty
    prompt is the null text.
    """

    def __init__(
        self,
        tokenizer: Any,
        model: nn.Module,
        *,
        name: str,
        device: torch.device,
        dtype: torch.dtype,
        cache_size: int = 1024,
        length: int | None = None,
        masked: bool | None = None,
        prepare: Callable[[str], str] = str,
    ) -> None:
        """Move the model to its device and precision.

        Args:
            tokenizer: Of transformers.
            model: Its answer's first part is the encoding.
            name: The prior's, for messages.
            device: Of the model and the encodings.
            dtype: Precision of the model.
            cache_size: How many encodings are kept.
            length: Tokens of an encoding; None for as many as tokenizer and model were made for (CLIP).
            masked: Whether the model must not see the padding; None as its configuration says (CLIP).
            prepare: What is done to prompts first, as in the prior's training.
        """
        self.tokenizer, self.name, self.device = tokenizer, name, device
        self.model = freeze(model, device, dtype)
        self._prepare = prepare
        config = self.model.config
        self.length: int = length or min(int(tokenizer.model_max_length), int(config.max_position_embeddings))
        self._masked: bool = getattr(config, "use_attention_mask", False) if masked is None else masked
        self._cache: dict[str, Tensor] = {}
        self._cache_size = cache_size
        self._small = len(tokenizer) < SMALL_VOCABULARY
        self._told: set[str] = set()

    def __call__(self, prompts: Sequence[str]) -> Float[Tensor, "n l d"]:
        """Encodings, float32, one per prompt."""
        if not prompts or isinstance(prompts, str):
            raise ValueError(f"there is no list of prompts to encode: got {prompts!r}")
        known = {prompt: self._cache[prompt] for prompt in prompts if prompt in self._cache}
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in known]
        for first in range(0, len(new), _PROMPTS_PER_CALL):
            group = new[first : first + _PROMPTS_PER_CALL]
            for prompt in group:
                self._warn(prompt)
            known.update(zip(group, self._encode(group), strict=True))
        self._remember(known)
        return torch.stack([known[prompt] for prompt in prompts])

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        """Words of the prompt that a prior with a small vocabulary has never seen, in order; lower case.

        Such a vocabulary holds its training words whole, so a word that falls apart into pieces is a new one. A large
        vocabulary spells rare words on purpose: there the answer is always empty.
        """
        if not self._small:
            return ()
        words = dict.fromkeys(re.findall(r"[^\W\d_]+", prompt.lower()))
        return tuple(word for word in words if not self._is_one_token(word))

    def cut_text(self, prompt: str) -> str:
        """The end of the prompt that does not fit into the tokenizer's length; empty if all of it does."""
        tokens = self.tokenizer(self._prepare(prompt), add_special_tokens=False, truncation=False, verbose=False)[
            "input_ids"
        ]
        room = self.length - self.tokenizer.num_special_tokens_to_add()
        return self.tokenizer.decode(tokens[room:]).strip()

    def _is_one_token(self, word: str) -> bool:
        pieces = self.tokenizer.tokenize(word)
        return len(pieces) == 1 and pieces[0] != self.tokenizer.unk_token

    def _warn(self, prompt: str) -> None:
        unknown = [word for word in self.unknown_words(prompt) if word not in self._told]
        if unknown:
            self._told.update(unknown)
            words = ", ".join(repr(word) for word in unknown)
            log.warning(
                "prior %r was trained on few words and does not know %s: expect little or no effect of %s",
                self.name,
                words,
                "it" if len(unknown) == 1 else "them",
            )
        cut = self.cut_text(prompt)
        if cut:
            log.warning("the prompt is longer than prior %r can read; cut off: %r", self.name, cut)

    def _encode(self, prompts: list[str]) -> list[Tensor]:
        texts = [self._prepare(prompt) for prompt in prompts]
        batch = self.tokenizer(
            texts, padding="max_length", max_length=self.length, truncation=True, return_tensors="pt"
        )
        mask = batch["attention_mask"].to(self.device) if self._masked else None
        with frozen(self.device):
            encoded = self.model(batch["input_ids"].to(self.device), attention_mask=mask)[0]
        return list(encoded.float())

    def _remember(self, encodings: dict[str, Tensor]) -> None:
        self._cache.update(encodings)
        while len(self._cache) > self._cache_size:
            self._cache.pop(next(iter(self._cache)))
