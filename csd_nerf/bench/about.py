"""Who made a report, when and on what."""

import os
import platform
import shlex
import sys
from collections.abc import Iterable
from datetime import date

import torch

from csd_nerf.bench.checkout import commit
from csd_nerf.bench.report import About


def about_this_run(threads: Iterable[int]) -> About:
    """The command of this process, the checkout, the machine; `threads` are those that cells were computed with."""
    counts = sorted(set(threads))
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    if counts:
        machine += f", {' or '.join(map(str, counts))} thread{'s' if counts != [1] else ''} a cell"
    return About(shlex.join(["csd", *sys.argv[1:]]), commit(), date.today().isoformat(), machine)
