"""How many views csd-edit-lite needs to reconstruct a toy scene: PSNR to held-out photos before any edit.

    OMP_NUM_THREADS=1 python -m benchmarks.reconstruction SCENE... [--views 24 32 40 48]

About 90 s a number; adds what is missing to benchmarks/results/reconstruction.json.
"""

import argparse
import json
import platform
from dataclasses import asdict
from datetime import date
from pathlib import Path

from csd_nerf.bench.checkout import commit
from csd_nerf.bench.compute import compute
from csd_nerf.bench.plan import QUICK
from csd_nerf.bench.results import RESULT
from csd_nerf.toyworld.scene import scene_from_seed

RESULTS = Path(__file__).parent / "results" / "reconstruction.json"


def psnr(seed: int, views: int) -> float:
    """PSNR in dB of a scene that was trained on `views` photos, with the benchmark's budget."""
    spec = {
        "kind": "scene",
        "scene": asdict(scene_from_seed(seed)),
        "size": QUICK.size,
        "views": views,
        "held_out": QUICK.held_out,
        "steps": QUICK.scene_steps,
    }
    return json.loads(compute(spec, {"prior": "toy"}, ())[RESULT])["PSNR to the photos"]


def main() -> None:
    """Measure what is missing; each number is written as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=int, nargs="+")
    parser.add_argument("--views", type=int, nargs="+", default=[24, 32, 40, 48])
    asked = parser.parse_args()
    rows = json.loads(RESULTS.read_text()) if RESULTS.is_file() else []
    for seed in asked.scenes:
        for views in asked.views:
            if any(row["scene"] == seed and row["views"] == views for row in rows):
                continue
            row = {"scene": seed, "views": views, "psnr": round(psnr(seed, views), 2), "commit": commit()}
            rows.append(row | {"date": str(date.today()), "machine": platform.machine()})
            RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
            print(f"scene {seed}, {views} views: {rows[-1]['psnr']} dB", flush=True)


if __name__ == "__main__":
    main()
