"""The one exception of the 3D consumers, for input and circumstances that the user can mend."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class SceneError(SystemExit, ValueError):
    """Something that the user can mend; the message names the flag or the file at fault and the remedy.

    It is a `ValueError` to Python callers. Uncaught, it ends the process with its message and status 1 instead of a
    traceback, since `ns-train` itself prints a page of them.
    """

    def __init__(self, message: str) -> None:
        super().__init__(f"csd_nerf: {message}")


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn the `OSError`s of writing `path` into a `SceneError` that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SceneError(
                f"no space left on the disk while writing {path}. Files written before are intact: free some space, "
                "then resume with --load-dir <run>/nerfstudio_models."
            ) from error
        raise SceneError(f"cannot write {path} ({error.strerror or error}): choose another --output-dir.") from error
