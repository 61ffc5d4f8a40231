"""Which commit computes, for reports."""

import subprocess
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


def _git(place: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(["git", *arguments], cwd=place, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git on this machine
        return subprocess.CompletedProcess(arguments, 127, "", "")
