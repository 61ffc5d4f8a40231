"""Errors of nerfstudio runs that a command makes, said with the command's own flags."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def flags_of_command(flags: Mapping[str, str], method: str) -> Iterator[None]:
    """A run's errors name the flags of `ns-train`: say those in `flags` as this command does, and whose others are."""
    from csd_nerf.scenes import SceneError

    try:
        yield
    except SceneError as error:
        message = str(error).removeprefix("csd_nerf: ")
        for theirs, ours in flags.items():
            message = re.sub(rf"(?<![\w-]){theirs}(?![\w-])", ours, message)
        if re.search(r"--(pipeline|optimizers|machine)\.|--(load-dir|mixed-precision)\b", message):
            message += f" (Not a flag of this command: of `ns-train {method}`, which makes the same run.)"
        raise ValueError(message) from error
