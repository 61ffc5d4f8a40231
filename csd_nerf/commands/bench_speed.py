"""`csd bench speed`: what a distillation step costs. Heavy libraries load when it runs."""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from csd_nerf.whole_files import make_folder

if TYPE_CHECKING:
    from csd_nerf.priors.registry import DType


@dataclass(frozen=True)
class SpeedRun:
    """One call of the command, its flags checked."""

    prior: str
    precision: "DType"
    particles: Sequence[int]
    rounds: int
    compiled: bool
    output: Path
    """Folder of speed.json, to which measurements are added, and speed.md."""

    def __post_init__(self) -> None:
        """Raise `ValueError`, naming the flag, for what cannot be measured."""
        for n in self.particles:
            if n < 3:
                raise ValueError(f"--particles {n}: give 3 or more, the released code has no kernel for 2")
        if self.rounds < 1:
            raise ValueError(f"--rounds {self.rounds}: give at least 1")

    def run(self) -> int:
        """Measure; each number of particles is written as soon as it is there."""
        import torch

        from csd_nerf.bench import speed_report
        from csd_nerf.bench.checkout import commit
        from csd_nerf.bench.matching_speed import DECODER, decoder, measure_matching
        from csd_nerf.bench.speed import measure
        from csd_nerf.priors import load_prior

        make_folder(self.output, "--output")
        kept = self._kept()
        usual = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        # Reduced precision of float32 products would make the contestants' gradients differ, and flatter the rate.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        prior = load_prior(self.prior, dtype=self.precision, needs_image=True)
        machine = {
            "device": prior.device.type,
            "machine": speed_report.machine(),
            "commit": commit(),
            "date": date.today().isoformat(),
            "rounds": self.rounds,
            "command": shlex.join(["csd", *sys.argv[1:]]),
        }
        about = machine | {
            "prior": Path(self.prior).name,
            "precision": str(prior.dtype).removeprefix("torch."),
            "parameters": sum(weight.numel() for weight in prior.unet.parameters()) / 1e6,
        }
        for n in self.particles:
            measured = measure(prior, n, rounds=self.rounds, compiled=self.compiled)
            kept = self._add(kept, speed_report.record(measured, about))
        # A decoder that must not run in half precision has a GPU's float32 as torch sets it.
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = usual
        channels, side = (DECODER, 64) if prior.device.type == "cuda" else (tuple(c // 4 for c in DECODER), 24)
        found = measure_matching(decoder(prior.device, channels), side, self.rounds)
        what = f"a decoder of {', '.join(map(str, reversed(channels)))} channels on {side} x {side} latents"
        if prior.device.type == "cuda" and torch.backends.cudnn.allow_tf32:
            what += ", convolutions in TF32"
        self._add(kept, speed_report.matching_record(found, machine, what))
        return 0

    def _add(self, kept: list[dict[str, Any]], entry: dict[str, Any]) -> list[dict[str, Any]]:
        """Write and show a measurement in the place of an earlier one of the same."""
        from csd_nerf.bench import speed_report

        same = ("prior", "precision", "machine", "particles", "decoder")
        kept = [old for old in kept if any(old.get(name) != entry.get(name) for name in same)] + [entry]
        self._write(kept, speed_report.page(kept))
        text = "\n".join(speed_report.section(entry))
        Console().print(text, markup=False, highlight=False, soft_wrap=True)
        return kept

    def _kept(self) -> list[dict[str, Any]]:
        """Earlier measurements: those of the same prior, precision, machine and particles are replaced."""
        from csd_nerf.bench import speed_report

        path = self.output / "speed.json"
        if not path.is_file():
            return []
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            speed_report.page(kept)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"--output: {path} is damaged ({error}): remove it or give another folder") from error
        return kept

    def _write(self, kept: list[dict[str, Any]], page: str) -> None:
        from csd_nerf.whole_files import write_text

        for name, text in (("speed.json", json.dumps(kept, indent=1) + "\n"), ("speed.md", page)):
            write_text(self.output / name, text)
