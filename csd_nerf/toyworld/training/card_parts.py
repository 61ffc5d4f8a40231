"""Pieces of `CARD.md` that are written at different times: tables, and the section on gates between its markers."""

from collections.abc import Sequence

_BEGIN, _END = "<!-- gates: begin -->", "<!-- gates: end -->"
_EMPTY = "Not yet measured: `csd prior check FOLDER --write-card` does it."


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; with empty strings as its header it has none to see."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "|" + "|".join(f" {cell} " if cell not in ("", "---") else cell or " " for cell in line) + "|" for line in lines
    )


def gates_section(body: str = _EMPTY) -> str:
    """The section between its markers."""
    return f"{_BEGIN}\n## Gates\n\n{body.strip()}\n{_END}"


def replace_gates(card: str, body: str) -> str:
    """A card with another section on gates; one that has none gets it before "Training", or at its end.

    Raises:
        ValueError: the card has one marker without the other.
    """
    begin, end = card.find(_BEGIN), card.find(_END)
    if begin < 0 and end < 0:
        before, training, after = card.partition("\n## Training\n")
        return f"{before.rstrip()}\n\n{gates_section(body)}\n{training}{after}"
    if begin < 0 or end < begin:
        raise ValueError(f"the card has only one of the markers '{_BEGIN}' and '{_END}': give it both, or none")
    return card[:begin] + gates_section(body) + card[end + len(_END) :]
