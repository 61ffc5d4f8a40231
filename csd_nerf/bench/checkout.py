"""Which commit computes, for reports."""

import subprocess
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

_DECIDES = ("csd_nerf", "data", "method_configs", "benchmarks/*.py")
"""What results come from; tables and pages may have changed, they are what is being written."""


def commit(place: Path = Path(__file__).parent) -> str:
    """Short hash of the checkout that `place` is in; `-dirty` if tracked code or weights differ from it."""
    head = _git(place, "rev-parse", "--short", "HEAD")
    if head.returncode:
        return "unknown (not a checkout)"
    root = Path(_git(place, "rev-parse", "--show-toplevel").stdout.strip())
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", *_DECIDES).stdout
    return head.stdout.strip() + ("-dirty" if changed.strip() else "")


@lru_cache
def commit_at_start() -> str:
    """The commit when this process first asked: what it has loaded stays, though the checkout may go on."""
    return commit()


def commits(known: Sequence[str]) -> str:
    """The commits of several results in words, the most frequent first; "" is one that is not on record.

    For instance "commits 6a96384 and 1234abc (of 31 cells no commit is on record)".
    """
    counts = Counter(known)
    lost = counts.pop("", 0)
    *first, last = [name for name, _ in counts.most_common()] or ["no commit is on record"]
    said = f"{', '.join(first)} and {last}" if first else last
    if not counts:
        return said
    said = f"commit{'s' * bool(first)} {said}"
    return f"{said} (of {lost} cell{'s' * (lost != 1)} no commit is on record)" if lost else said


def _git(place: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(["git", *arguments], cwd=place, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git on this machine
        return subprocess.CompletedProcess(arguments, 127, "", "")
