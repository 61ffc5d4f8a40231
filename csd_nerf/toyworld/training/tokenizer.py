"""A CLIP tokenizer whose vocabulary is the data set's words.

Byte-pair encoding is trained until every word of the texts is one token, so the small text encoder need not learn to
spell. All 256 bytes are tokens too, so any other text is still read, byte by byte. Token order is CLIP's: bytes, bytes
that end a word, merged pairs, start mark, end mark; padding repeats the end mark as in Stable Diffusion.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"


def words_of(texts: Iterable[str]) -> list[str]:
    """The distinct words of the texts as CLIP splits them: lower case, letters together, digits one by one."""
    pattern = re.compile(r"[^\W\d_]+|\d|[^\s\w]+|_+")
    return sorted({word for text in set(texts) for word in pattern.findall(text.lower())})


def byte_alphabet() -> list[str]:
    """The printable characters that stand for the 256 bytes, in CLIP's order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shifted = [byte for byte in range(256) if byte not in printable]
    return [chr(code) for code in printable] + [chr(256 + index) for index in range(len(shifted))]


def _to_alphabet(word: str) -> list[str]:
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    shifted = {byte: 256 + i for i, byte in enumerate(b for b in range(256) if b not in printable)}
    return [chr(shifted.get(byte, byte)) for byte in word.encode("utf-8")]


def learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, most frequent pair first, until each word is a single symbol.

    Replaying them in this order on any of the words gives one symbol, because that is how they were found.
    """
    spelled = [symbols[:-1] + [symbols[-1] + "</w>"] for symbols in map(_to_alphabet, words)]
    merges: list[tuple[str, str]] = []
    while True:
        counts: dict[tuple[str, str], int] = {}
        for symbols in spelled:
            for pair in zip(symbols, symbols[1:], strict=False):
                counts[pair] = counts.get(pair, 0) + 1
        if not counts:
            return merges
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        spelled = [_merge(symbols, best) for symbols in spelled]


def _merge(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    position = 0
    while position < len(symbols):
        if tuple(symbols[position : position + 2]) == pair:
            merged.append(pair[0] + pair[1])
            position += 2
        else:
            merged.append(symbols[position])
            position += 1
    return merged


def write_tokenizer(folder: Path, texts: Iterable[str], length: int) -> None:
    """Write `vocab.json`, `merges.txt` and the configuration files that `CLIPTokenizer.from_pretrained` reads."""
    merges = learn_merges(words_of(texts))
    alphabet = byte_alphabet()
    tokens = alphabet + [character + "</w>" for character in alphabet] + [a + b for a, b in merges] + [START, END]
    # Two pairs can spell the same token; the first one names it.
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    marks = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    (folder / "special_tokens_map.json").write_text(json.dumps(marks, indent=2))
    configuration = {"tokenizer_class": "CLIPTokenizer", "model_max_length": length, "do_lower_case": True, **marks}
    (folder / "tokenizer_config.json").write_text(json.dumps(configuration, indent=2))


def load_tokenizer(folder: Path) -> "CLIPTokenizer":
    """Read a tokenizer folder, without the hub."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def tokenize(tokenizer: "CLIPTokenizer", texts: list[str]) -> list[list[int]]:
    """Token ids, each padded or cut to the tokenizer's length, as the diffusers pipelines do it."""
    batch = tokenizer(texts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True)
    return batch["input_ids"]
