"""Whether an instruction says nothing but what the toy world words: a word too many may ask for something else."""

from collections.abc import Iterator, Sequence

from csd_nerf.toyworld.captions import INSTRUCTIONS
from csd_nerf.toyworld.scene import COLOURS, HAT_KINDS, MATERIALS
from csd_nerf.toyworld.style_nets import PAINTINGS

_SAME = {"an": "a", "color": "colour", "wooden": "wood"}
"""Words that are read as others."""


def wordings(kind: str, objects: Sequence[str]) -> Iterator[str]:
    """Every instruction of a kind, a key of `INSTRUCTIONS`, for scenes that show one of `objects`."""
    hats = ["hat", *HAT_KINDS, *(f"{colour} {hat}" for colour in COLOURS for hat in ("hat", *HAT_KINDS))]
    fills = {"colour": COLOURS, "material": MATERIALS[1:], "hat": hats, "painting": PAINTINGS.values()}
    fills["object"] = objects
    for template in INSTRUCTIONS[kind]:
        texts = [template]
        for name, values in fills.items():
            slot = f"{{{name}}}"
            texts = [text.replace(slot, one) for text in texts for one in (values if slot in text else ("",))]
        yield from (text.replace(" a orange", " an orange") for text in texts)


def not_understood(instruction: str, kind: str, objects: Sequence[str]) -> str:
    """What an instruction of a kind says beside its nearest wording; empty if there is nothing.

    Words may be missing: "add hat" is understood as "add a hat".
    """
    said = instruction.lower().replace(",", " ").split()
    rests = [_left_over(said, wording.split()) for wording in wordings(kind, objects)]
    # Of wordings that are equally near, that which the instruction begins with: in "make it red blue" blue is too much.
    return " ".join(min(rests, key=lambda rest: (len(rest), rest != said[len(said) - len(rest) :]), default=said))


def _left_over(said: Sequence[str], wording: Sequence[str]) -> list[str]:
    """The words of `said` that are not part of its longest common subsequence with `wording`, in order."""
    kept: list[list[tuple[int, ...]]] = [[()] * (len(wording) + 1) for _ in range(len(said) + 1)]
    for i, word in enumerate(said):
        for j, other in enumerate(wording):
            longest = max(kept[i][j + 1], kept[i + 1][j], key=len)
            same = _SAME.get(word, word) == _SAME.get(other, other)
            kept[i + 1][j + 1] = max(longest, (*kept[i][j], i) if same else (), key=len)
    return [word for i, word in enumerate(said) if i not in kept[-1][-1]]
