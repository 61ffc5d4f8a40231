"""Where the time of an edited scene goes: NeRF steps by their parts, the network, the autoencoder, rendering, the rest.

    OMP_NUM_THREADS=1 python -m benchmarks.scene_profile         # csd-edit-lite on the demo's scene, three minutes
    python -m benchmarks.scene_profile csd-edit --data FOLDER --prior FOLDER --scene-steps 500 --steps 1000

writes scene_profile.json and .md to benchmarks/results. Each part is timed without those inside of it. On a CPU it is
processor time, of which other programs on the machine change little; on a GPU time of the wall, and each part waits for
the GPU when it begins and ends, so that a whole run is slower here than without the profile.
"""

import argparse
import functools
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.models.base_model import Model
from torch import Tensor

from csd_nerf.bench.checkout import commit
from csd_nerf.bench.speed_report import machine
from csd_nerf.priors.autoencoder import Autoencoder
from csd_nerf.priors.diffusion import DiffusionPrior
from csd_nerf.scenes import run_edit
from csd_nerf.scenes.edit_datamanager import EditDataManager
from csd_nerf.scenes.edit_pipeline import EditPipeline
from csd_nerf.scenes.edit_trainer import EditTrainer
from csd_nerf.scenes.scene_editor import SceneEditor

RESULTS = Path(__file__).parent / "results"
PARTS: dict[tuple[type, str], str] = {
    (EditDataManager, "next_train"): "NeRF: rays and pixels",
    (Model, "forward"): "NeRF: forward",
    (Tensor, "backward"): "NeRF: backward",
    (Optimizers, "optimizer_scaler_step_some"): "NeRF: optimisers",
    (EditTrainer, "train_iteration"): "NeRF: the rest of a step",
    (EditPipeline, "render_training_views"): "round: rendering its views",
    (Autoencoder, "encode"): "round: encoder",
    (Autoencoder, "encode_condition"): "round: encoder",
    (DiffusionPrior, "predict_noise"): "round: network",
    (Autoencoder, "decode"): "round: decoder",
    (SceneEditor, "run_round"): "round: the rest",
    (EditTrainer, "save_checkpoint"): "checkpoints",
    (EditTrainer, "setup"): "loading",
}
"""What is timed, and how it is called; rendering calls the model too, and counts its time as its own."""
WHOLE = ("round: rendering its views",)
"""Parts that keep the time of those inside of them."""


class Stopwatch:
    """Seconds by part, each without the parts that it called."""

    def __init__(self) -> None:
        self.gpu = torch.cuda.is_available()
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._open: list[str] = []
        self._since = self.now()

    def now(self) -> float:
        """Wait for the GPU and look at the clock."""
        if not self.gpu:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time what is within."""
        if any(part in WHOLE for part in self._open):
            yield
            return
        self.calls[name] += 1
        self._account()
        self._open.append(name)
        try:
            yield
        finally:
            self._account()
            self._open.pop()

    def _account(self) -> None:
        now = self.now()
        self.seconds[self._open[-1] if self._open else "everything else"] += now - self._since
        self._since = now

    def timed(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """The function, timed as a part."""

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return function(*args, **kwargs)

        return call


def profile(run: Callable[[], Any]) -> tuple[Any, Stopwatch]:
    """What a run returns, and where its time went."""
    watch = Stopwatch()
    with ExitStack() as stack:
        for (owner, method), name in PARTS.items():
            stack.enter_context(patch.object(owner, method, watch.timed(getattr(owner, method), name)))
        with watch.part("everything else"):
            made = run()
    return made, watch


def section(entry: dict[str, Any]) -> str:
    """One run as Markdown."""
    total = sum(part["seconds"] for part in entry["parts"].values())
    rows = [
        f"| {name} | {part['seconds']:.1f} | {60 * part['seconds'] / total:.1f} | {part['calls']} |"
        for name, part in sorted(entry["parts"].items(), key=lambda item: -item[1]["seconds"])
    ]
    head = f"## {entry['method']}, prior {entry['prior']}: {entry['machine']}"
    about = f"Commit {entry['commit']}, {entry['date']}. `{entry['command']}`"
    done = f"{entry['samples']} network samples in {entry['rounds']} rounds; {entry['clock']}, {total:.0f} s in all."
    table = ["| part | seconds | of a minute | calls |", "|---|---|---|---|", *rows]
    return "\n".join([head, "", about, "", done, "", *table, ""])


def main(arguments: list[str]) -> None:
    """Profile a run, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", nargs="?", choices=("csd-edit", "csd-edit-lite"), default="csd-edit-lite")
    parser.add_argument("--data", type=Path, help="a scene; without, the demo's")
    parser.add_argument("--prompt", default="give it a hat")
    parser.add_argument("--prior", help="without, the method's own")
    parser.add_argument("--scene-steps", type=int)
    parser.add_argument("--steps", type=int, help="NeRF steps of the edit phase")
    parser.add_argument("--edit-steps", type=int, help="steps of a round")
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    given.output.mkdir(parents=True, exist_ok=True)
    with (
        resources.as_file(resources.files("csd_nerf.data") / "demo_scene") as demo_scene,
        tempfile.TemporaryDirectory() as folder,
    ):

        def run() -> Any:
            return run_edit(
                given.data or demo_scene,
                given.prompt,
                method=given.method,
                output_dir=folder,
                prior=given.prior,
                scene_steps=given.scene_steps,
                edit_steps=given.edit_steps,
                max_num_iterations=given.steps,
            )

        made, watch = profile(run)
    prior = Path(given.prior).name if given.prior else "of the method"
    to = arguments.index("--output") if "--output" in arguments else len(arguments)
    said = arguments[:to] + arguments[to + 2 :]
    words = [Path(word).name if "/" in word else f'"{word}"' if " " in word else word for word in said]
    entry = {
        "method": given.method,
        "prior": prior,
        "machine": machine(),
        "commit": commit(),
        "date": date.today().isoformat(),
        "command": " ".join(["python -m benchmarks.scene_profile", *words]),
        "clock": "time of the wall" if watch.gpu else "processor time",
        "samples": made.network_samples,
        "rounds": made.rounds,
        "parts": {name: {"seconds": watch.seconds[name], "calls": watch.calls[name]} for name in watch.seconds},
    }
    kept = given.output / "scene_profile.json"
    entries = json.loads(kept.read_text()) if kept.exists() else []
    same = ("command", "machine")
    entries = [old for old in entries if any(old[key] != entry[key] for key in same)] + [entry]
    kept.write_text(json.dumps(entries, indent=1) + "\n")
    page = "# Where the time of an edited scene goes\n\nbenchmarks/scene_profile.py says what is timed.\n\n"
    (given.output / "scene_profile.md").write_text(page + "\n".join(map(section, entries)))
    print(section(entry))


if __name__ == "__main__":
    main(sys.argv[1:])
