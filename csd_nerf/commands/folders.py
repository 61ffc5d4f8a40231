"""Folders that a command writes to."""

import os
from pathlib import Path


def check_folder(flag: str, folder: Path) -> None:
    """Make `folder`, which `flag` gives. Raises `ValueError` where it cannot be made or written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{flag} {folder} cannot be made ({error.strerror}): give another folder") from error
    if not os.access(folder, os.W_OK):
        raise ValueError(f"{flag} {folder} cannot be written to: give another folder")
