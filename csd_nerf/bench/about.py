"""By which command a report was made, when, and of results that were computed by what."""

import shlex
import sys
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

from csd_nerf.bench.checkout import commits
from csd_nerf.bench.report import About


def about_this_run(results: Iterable[Mapping[str, Any]]) -> About:
    """The command of this process; commits, machines and threads are those that the results name."""
    known = list(results)
    counts = sorted({result["threads"] for result in known})
    where = sorted({(result.get("machine"), result.get("torch")) for result in known} - {(None, None), ("", "")})
    machine = " and ".join(f"{kind}, torch {version}" for kind, version in where) or "an unknown machine"
    if counts:
        machine += f", {' or '.join(map(str, counts))} thread{'s' if counts != [1] else ''} a cell"
    version = commits([result.get("commit", "") for result in known])
    return About(shlex.join(["csd", *sys.argv[1:]]), version, date.today().isoformat(), machine)
