"""What makes the views of `csd demo` agree: csd-edit-lite with one choice changed at a time.

    python -m benchmarks.lite FOLDER         # about three minutes a run; writes benchmarks/results/lite.*

FOLDER keeps the runs; those that are there already are not run again.
"""

import json
import platform
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch

from csd_nerf.bench.checkout import commit
from csd_nerf.commands.demo import run_demo
from csd_nerf.scenes.trainer_config import EditTrainerConfig

RESULTS = Path(__file__).parent / "results"
SEEDS = (0, 1)
VARIANTS: dict[str, dict[str, Any]] = {
    "csd-edit-lite": {},
    "field with view dependence": {"view_dependence": True},
    "guidance scale 4": {"guidance_scale": 4.0},
    "noise level does not fall": {"t_min_first": None, "t_max_end": None},
    "independent kernel (no SVGD)": {"kernel": "independent"},
    "independent noise": {"noise": "independent"},
}
COLUMNS = {
    "colour spread": "colour spread over views",
    "of the true edit": "colour spread of the true edit",
    "PSNR to it": "psnr to it",
    "change elsewhere": "mean change elsewhere",
}


def changed(settings: dict[str, Any]) -> Callable[[EditTrainerConfig], None]:
    """What applies a variant's settings to a run's options."""

    def apply(config: EditTrainerConfig) -> None:
        for name, value in settings.items():
            setattr(config.pipeline, name, value)

    return apply


def main(folder: Path) -> None:
    """Run what is missing, then write the table."""
    rows = []
    for seed in SEEDS:
        for name, settings in VARIANTS.items():
            output = folder / name.replace(" ", "_") / str(seed)
            if not (output / "metrics.json").is_file():
                run_demo(None, None, output, seed=seed, configure=changed(settings))
            metrics = json.loads((output / "metrics.json").read_text())
            rows.append({"variant": name, "seed": seed, "commit": commit(), **metrics["truth"]})
    RESULTS.mkdir(exist_ok=True)
    machine = f"{platform.machine()}, torch {torch.__version__}"
    report = {"date": date.today().isoformat(), "machine": machine, "rows": rows}
    (RESULTS / "lite.json").write_text(json.dumps(report, indent=1) + "\n")
    print("| variant | seed | nearest true edit |", " | ".join(COLUMNS), "|")
    print("|---|---|---|" + "---|" * len(COLUMNS))
    for row in rows:
        values = " | ".join(f"{row[key]:.3f}" for key in COLUMNS.values())
        print(f"| {row['variant']} | {row['seed']} | {row['nearest true edit']} | {values} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
