"""Files that are whole or absent: written beside their place, forced to the disk, then renamed; and their folders.

A process that is killed, or a disk that fills up, leaves the previous version untouched.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def in_place_when_done(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; what is there in the end moves into place, unless an error ends the context."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp makes files that only their owner reads
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Call `write` with a temporary path beside `path`, then move the file into place."""
    with in_place_when_done(path) as temporary:
        write(temporary)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8."""
    with in_place_when_done(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def make_folder(folder: Path, name: str) -> None:
    """Make a folder that is to be written to; `name` is what errors call it.

    Raises `ValueError` where it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{name} {folder} cannot be made ({error.strerror}): give another folder") from error
    if not os.access(folder, os.W_OK):
        raise ValueError(f"{name} {folder} cannot be written to: give another folder")
