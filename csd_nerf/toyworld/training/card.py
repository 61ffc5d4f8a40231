"""`CARD.md`: what the prior was trained on, how, and how good it is, with its pictures."""

import datetime
import os
import platform
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import diffusers
import torch

from csd_nerf.toyworld.judging.gates import IMAGE_GUIDANCE, STEPS
from csd_nerf.toyworld.training.card_parts import gates_section, markdown_table
from csd_nerf.toyworld.training.data import EditData
from csd_nerf.toyworld.training.history import TrainingHistory
from csd_nerf.toyworld.training.pictures import save_curve
from csd_nerf.toyworld.training.settings import TrainingSettings


@dataclass(frozen=True)
class StageRecord:
    """What one stage did."""

    steps: int
    minutes: float
    rows: list[dict[str, float | int]]
    """The log."""
    parameters: int


@dataclass(frozen=True)
class TrainingRecord:
    """What the card reports besides the settings."""

    autoencoder: StageRecord
    denoiser: StageRecord
    latent_statistics: dict[str, float]
    relative_errors: dict[float, dict[str, float]]
    """Per text guidance and kind, see `sampling.relative_errors`."""
    checked: int
    """Held-out edits behind `relative_errors`."""
    history: TrainingHistory
    """All trainings of this prior, this one included."""


def processor() -> str:
    """The CPU's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def machine(device: str) -> str:
    """Processor and core count, or the GPU's name."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{processor()}, {os.cpu_count()} cores, no GPU"


def autoencoder_work(settings: TrainingSettings, stage: StageRecord) -> str:
    """Size and training of the autoencoder in words; empty if it was taken from another prior."""
    if not stage.steps:
        return ""
    return f"{stage.parameters / 1e6:.1f} M parameters, {_work(stage, settings.autoencoder_batch)}"


def denoiser_samples(settings: TrainingSettings, stage: StageRecord) -> int:
    """Training samples of the stage."""
    return stage.steps * settings.denoiser_batch


def _facts(settings: TrainingSettings, data: EditData, record: TrainingRecord) -> list[tuple[str, str]]:
    """The rows of the card's first table."""
    size = settings.network
    first, second = record.autoencoder, record.denoiser
    psnr = f"{first.rows[-1]['psnr']:.1f} dB" if first.rows else "not measured"
    samples, history = denoiser_samples(settings, second), record.history
    before = history.denoiser_samples - samples
    started = [("trainings", f"{history.trainings}; before the last: {before} samples")] if settings.start_from else []
    latents = f"4 x {size.latent_size} x {size.latent_size} (factor {size.factor})"
    held_out = f"{int(data.held_out.sum())} pictures, {int(data.held_out_pairs.sum())} pairs held out"
    return [
        ("pictures", f"{size.image_size} x {size.image_size}; latents {latents}"),
        ("data", f"{len(data.images)} pictures, {len(data.pairs)} edit pairs; {held_out}"),
        ("autoencoder", history.autoencoder or "taken from the prior that this one goes on from"),
        ("UNet, text encoder", f"{second.parameters / 1e6:.1f} M parameters, {_work(second, settings.denoiser_batch)}"),
        ("denoiser's samples", f"{samples} ({samples / len(data.pairs):.0f} times every pair)"),
        *started,
        ("machine", machine(settings.device)),
        ("software", f"torch {torch.__version__}, diffusers {diffusers.__version__}"),
        ("date", datetime.date.today().isoformat()),
        ("held-out reconstruction", psnr),
        ("latents, unscaled", ", ".join(f"{name} {value:.3g}" for name, value in record.latent_statistics.items())),
    ]


def _work(stage: StageRecord, batch: int) -> str:
    return f"{stage.steps} steps of {batch}, {stage.minutes:.0f} minutes"


def _draw_autoencoder(path: Path, settings: TrainingSettings, stage: StageRecord) -> None:
    """The autoencoder's curve; that of the prior it was taken from, where there is one."""
    taken = None if settings.start_from is None else settings.start_from / path.name
    if taken is not None and taken.is_file():
        shutil.copyfile(taken, path)
    else:
        save_curve(path, stage.rows, ["psnr"], "autoencoder, held-out PSNR (dB)")


def _error_table(data: EditData, errors: dict[float, dict[str, float]]) -> str:
    """One row per kind of edit, one column per text guidance."""
    counts = Counter(data.kinds)
    header = ["kind", "pairs in the data", *(f"text guidance {guidance:g}" for guidance in errors)]
    rows = [
        [kind, str(counts[kind]), *(f"{column[kind]:.2f}" for column in errors.values())]
        for kind in next(iter(errors.values()))
    ]
    return markdown_table(header, rows)


def write_card(
    folder: Path, settings: TrainingSettings, data: EditData, record: TrainingRecord, notes: str = ""
) -> None:
    """Write `CARD.md` and the loss curves; the sample grid `samples.png` is put there by the caller."""
    kinds = sorted(set(data.kinds))
    losses = ["train", "held_out", *kinds]
    save_curve(folder / "loss.png", record.denoiser.rows, losses, "noise prediction, weighted squared error", True)
    _draw_autoencoder(folder / "autoencoder.png", settings, record.autoencoder)
    facts = markdown_table(["", ""], _facts(settings, data, record))
    table = _error_table(data, record.relative_errors)
    drop = settings.dropout
    text = f"""# Toy prior

A small InstructPix2Pix in diffusers' folder layout, trained on `csd_nerf.toyworld` alone: procedural 3D scenes,
their captions and their true edits. It knows these scenes and little else; it is there so that everything in this
repository runs and is tested without a GPU and without a hub.

{facts}

Command: `csd prior train`; seed {settings.seed}, size `{settings.size}`. Condition dropped in training:
{drop.no_text:.0%} no text, {drop.no_image:.0%} no image, {drop.neither:.0%} neither, {drop.caption:.0%} the target's
caption without image.

## Held-out scenes

Squared pixel error of plain sampling ({STEPS} DDIM steps, image guidance {IMAGE_GUIDANCE:g}, {record.checked} held-out
edits) divided by the error of leaving the source as it is: below 1 is an edit towards the truth. Instructions that
leave a choice ("give it a hat", "change its colour") have no single truth: another choice counts as an error.

{table}

Source, plain sampling (text guidance {next(iter(record.relative_errors)):g}), truth:

![held-out edits](samples.png)

{gates_section()}

## Training

![loss](loss.png)

![autoencoder](autoencoder.png)

## Known weaknesses

{notes or "Not yet described: look at the pictures above."}
"""
    (folder / "CARD.md").write_text(text)
