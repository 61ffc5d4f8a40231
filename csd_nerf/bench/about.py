"""By which command a report was made, when, and of results that were computed by what."""

import os
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

import torch

from csd_nerf.bench.checkout import commits
from csd_nerf.bench.report import About


def about_this_run(results: Iterable[Mapping[str, Any]]) -> About:
    """The command of this process and its machine; commits and threads are those that the results name."""
    known = list(results)
    counts = sorted({result["threads"] for result in known})
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    if counts:
        machine += f", {' or '.join(map(str, counts))} thread{'s' if counts != [1] else ''} a cell"
    version = commits([result.get("commit", "") for result in known])
    return About(shlex.join(["csd", *sys.argv[1:]]), version, date.today().isoformat(), machine)
