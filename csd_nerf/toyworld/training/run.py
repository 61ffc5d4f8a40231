"""The whole training: data, autoencoder, cached latents, denoiser, export. Every stage resumes where it stopped."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from csd_nerf.toyworld.training import autoencoder as autoencoding
from csd_nerf.toyworld.training import denoiser as denoising
from csd_nerf.toyworld.training import provenance
from csd_nerf.toyworld.training.autoencoder import encode_moments, latent_statistics, peak_signal_to_noise, reconstruct
from csd_nerf.toyworld.training.card import (
    StageRecord,
    TrainingRecord,
    autoencoder_work,
    denoiser_samples,
    write_card,
)
from csd_nerf.toyworld.training.checkpoint import load_checkpoint, save_checkpoint
from csd_nerf.toyworld.training.data import EditData, prepare_edits, read_photos
from csd_nerf.toyworld.training.denoiser import Denoiser, LatentPairs, make_evaluation, make_latent_pairs
from csd_nerf.toyworld.training.export import export_prior
from csd_nerf.toyworld.training.history import read_history
from csd_nerf.toyworld.training.loop import LoopSettings, TrainingLoop
from csd_nerf.toyworld.training.networks import (
    AutoencoderKL,
    DDIMScheduler,
    build_autoencoder,
    build_denoiser,
    build_scheduler,
    build_text_encoder,
    scaling_factor,
)
from csd_nerf.toyworld.training.pictures import save_grid
from csd_nerf.toyworld.training.sampling import TEXT_GUIDANCE, relative_errors, sample_edits
from csd_nerf.toyworld.training.settings import TrainingSettings
from csd_nerf.toyworld.training.start import check_start, copy_tokenizer, load_autoencoder, load_denoiser
from csd_nerf.toyworld.training.tokenizer import load_tokenizer, write_tokenizer


def loop_settings(
    settings: TrainingSettings, name: str, minutes: float, rate: float, origin: dict[str, str]
) -> LoopSettings:
    """The loop's share of the run's settings."""
    return LoopSettings(
        name=name,
        folder=settings.output,
        minutes=minutes,
        rate=rate,
        checkpoint_minutes=settings.checkpoint_minutes,
        picture_minutes=settings.picture_minutes,
        log_every=settings.log_every,
        seed=settings.seed,
        resume=settings.resume,
        origin={"networks (--size)": repr(settings.network), **origin},
    )


def _finish(loop: TrainingLoop) -> StageRecord:
    """Leave the averaged weights in the networks, frozen, and record the stage."""
    with loop.average.applied():
        averaged = {name: value.detach().clone() for name, value in loop.networks.state_dict().items()}
    loop.networks.load_state_dict(averaged)
    loop.networks.eval().requires_grad_(False)
    return StageRecord(loop.step, loop.budget.used / 60, loop.rows, _count(loop.networks))


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def train_autoencoder(settings: TrainingSettings, data: EditData) -> tuple[AutoencoderKL, StageRecord]:
    """Stage 1; the returned network has the averaged weights and is frozen."""
    if settings.start_from is not None:
        return _taken_autoencoder(settings, data, settings.start_from)
    torch.manual_seed(settings.seed)
    autoencoder = build_autoencoder(settings.network)
    autoencoder.to(settings.device)  # pyright: ignore[reportArgumentType]
    photos = read_photos(settings.photos, settings.network.image_size)
    checked = _checked_pictures(data)
    origin = {"data (--data)": provenance.of_data(data), "photos (--photos)": provenance.of_tensor(photos)}
    loop = TrainingLoop(
        autoencoder,
        loop_settings(settings, "autoencoder", settings.autoencoder_minutes, settings.autoencoder_rate, origin),
    )
    denoiser = settings.output / "denoiser.pt"
    if settings.resume and denoiser.exists() and not loop.budget.exhausted:
        raise ValueError(
            f"--autoencoder-minutes {settings.autoencoder_minutes:g}: the autoencoder has been trained for "
            f"{loop.budget.used / 60:.3g} minutes and {denoiser} on its latents, which more training would change. "
            "Give at most these minutes, or delete that file to train both on, or choose another --output"
        )

    def evaluate() -> dict[str, float]:
        return {"psnr": peak_signal_to_noise(reconstruct(autoencoder, checked), checked)}

    def draw(step: int) -> None:
        path = settings.output / f"autoencoder_{step:06d}.png"
        save_grid(path, [checked[:32], reconstruct(autoencoder, checked[:32])], ["picture", "decoded"], per_row=4)

    loop.run(autoencoding.make_loss(autoencoder, data.images[~data.held_out], photos, settings), evaluate, draw)
    record = _finish(loop)
    draw(loop.step)
    return autoencoder, record


def _checked_pictures(data: EditData, most: int = 64) -> torch.Tensor:
    """Held-out pictures, evenly chosen."""
    pictures = data.images[data.held_out]
    return pictures[torch.linspace(0, len(pictures) - 1, min(most, len(pictures))).long()]


def _taken_autoencoder(settings: TrainingSettings, data: EditData, prior: Path) -> tuple[AutoencoderKL, StageRecord]:
    """The autoencoder of the prior to start from, measured but not trained."""
    autoencoder = load_autoencoder(prior, settings.network)
    autoencoder.to(settings.device).eval().requires_grad_(False)  # pyright: ignore[reportArgumentType]
    checked = _checked_pictures(data)
    quality = {"psnr": peak_signal_to_noise(reconstruct(autoencoder, checked), checked), "minutes": 0.0}
    return autoencoder, StageRecord(0, 0.0, [quality], _count(autoencoder))


@dataclass(frozen=True)
class CheckedEdits:
    """Held-out edits, a few of every kind, that samples are compared on."""

    rows: list[int]
    """Indices of the edits."""
    kinds: list[str]
    instructions: list[str]


def choose_checked(data: EditData, per_kind: int) -> CheckedEdits:
    """The first held-out edits of every kind."""
    held_out = data.held_out_pairs.tolist()
    rows = []
    for kind in sorted(set(data.kinds)):
        rows += [i for i, other in enumerate(data.kinds) if other == kind and held_out[i]][:per_kind]
    return CheckedEdits(rows, [data.kinds[i] for i in rows], [data.instructions[i] for i in rows])


@dataclass(frozen=True)
class Sampler:
    """Samples the checked edits with the networks' present weights."""

    autoencoder: AutoencoderKL
    denoiser: Denoiser
    scheduler: DDIMScheduler
    data: EditData
    latents: LatentPairs

    def compare(
        self, per_kind: int, picture: Path | None = None, text_guidance: float = TEXT_GUIDANCE
    ) -> dict[str, float]:
        """The relative errors per kind of `per_kind` edits each; optionally draw source, sample and truth."""
        checked = choose_checked(self.data, per_kind)
        rows = torch.tensor(checked.rows)
        sources, truths = (self.data.images[column] for column in self.data.pairs[rows].unbind(1))
        edited = sample_edits(
            self.autoencoder,
            self.denoiser,
            self.scheduler,
            sources,
            tokens=self.latents.instructions[rows],
            empty=self.latents.empty,
            text_guidance=text_guidance,
        )
        if picture is not None:
            names = ["source", "sampled", "truth"]
            save_grid(picture, [sources, edited, truths], names, checked.instructions, per_row=3)
        return relative_errors(sources, edited, truths, checked.kinds)


def train_denoiser(
    settings: TrainingSettings, data: EditData, autoencoder: AutoencoderKL, moments: torch.Tensor
) -> tuple[Sampler, StageRecord]:
    """Stage 2; the returned sampler's networks have the averaged weights and are frozen."""
    size = settings.network
    folder = settings.output / "tokenizer"
    begun = settings.resume and (settings.output / "denoiser.pt").exists()
    if not (begun and folder.exists()):  # before that it follows the texts of the data, whatever they were last time
        if settings.start_from is not None:
            copy_tokenizer(settings.start_from, folder, data.texts)
        else:
            write_tokenizer(folder, data.texts, size.text_length)
    tokenizer = load_tokenizer(folder)
    torch.manual_seed(settings.seed + 1)
    text_encoder = build_text_encoder(size, tokenizer)
    denoiser = Denoiser(build_denoiser(size), text_encoder)
    if settings.start_from is not None:
        load_denoiser(denoiser, settings.start_from)
    denoiser.to(settings.device)
    scheduler = build_scheduler()
    latents = make_latent_pairs(data, moments, scaling_factor(autoencoder), tokenizer)
    held_out = data.held_out_pairs
    origin = {
        "data (--data)": provenance.of_data(data),
        "first weights (--start-from, --seed)": provenance.of_network(denoiser),
        "weights of the autoencoder": provenance.of_network(autoencoder),
        "words (tokenizer)": provenance.of_files(folder, ["vocab.json", "merges.txt"]),
    }
    loop = TrainingLoop(
        denoiser, loop_settings(settings, "denoiser", settings.denoiser_minutes, settings.denoiser_peak, origin)
    )
    sampler = Sampler(autoencoder, denoiser, build_scheduler(), data, latents)
    kinds = [kind for kind, out in zip(data.kinds, held_out.tolist(), strict=True) if out]
    evaluate = make_evaluation(denoiser, latents.subset(held_out), kinds, scheduler, settings)

    def draw(step: int) -> None:
        errors = sampler.compare(2, settings.output / f"denoiser_{step:06d}.png")
        print("relative errors", {kind: round(value, 3) for kind, value in errors.items()}, flush=True)
        export_prior(settings.output / "export_early", autoencoder, denoiser, folder, scheduler, settings.half_weights)

    loop.run(denoising.make_loss(denoiser, latents.subset(~held_out), scheduler, settings), evaluate, draw)
    return sampler, _finish(loop)


def cached_moments(settings: TrainingSettings, data: EditData, autoencoder: AutoencoderKL) -> torch.Tensor:
    """Encode all pictures, and set the autoencoder's scaling factor so that scaled latents have unit variance.

    The result is kept in `latents.pt`, with hashes of weights and data to tell whether it fits.
    """
    path = settings.output / "latents.pt"
    fits = {"weights": provenance.of_network(autoencoder), "data": provenance.of_data(data)}
    stored = load_checkpoint(path) if settings.resume and path.exists() else {}
    if {name: stored.get(name) for name in fits} == fits:
        moments = stored["moments"].float()
    else:
        stored = {**fits, "moments": encode_moments(autoencoder, data.images).half()}
        save_checkpoint(path, stored)
        moments = stored["moments"].float()  # as whoever resumes will read them
    statistics = latent_statistics(moments)
    if settings.start_from is None:
        autoencoder.register_to_config(scaling_factor=1 / statistics["std"])
    print("latents", {name: round(value, 4) for name, value in statistics.items()}, flush=True)
    return moments


def train_prior(settings: TrainingSettings, notes: str = "") -> Path:
    """Train (or go on training) the toy prior and export it.

    Args:
        settings: the run; a run with the same output folder continues.
        notes: the card's paragraph on known weaknesses.

    Returns:
        The exported folder, `settings.output / "export"`.

    Raises:
        ValueError: the output folder was begun with other data, photos, sizes or a shorter autoencoder training.
        FloatingPointError: a loss is not finite.
    """
    check_start(settings)
    settings.output.mkdir(parents=True, exist_ok=True)
    data = prepare_edits(settings)
    autoencoder, first = train_autoencoder(settings, data)
    moments = cached_moments(settings, data, autoencoder)
    sampler, second = train_denoiser(settings, data, autoencoder, moments)
    folder = settings.output / "export"
    export_prior(
        folder, autoencoder, sampler.denoiser, settings.output / "tokenizer", sampler.scheduler, settings.half_weights
    )
    sampler.compare(2, folder / "samples.png")
    errors = {guidance: sampler.compare(12, text_guidance=guidance) for guidance in (TEXT_GUIDANCE, 5.0)}
    checked = len(choose_checked(data, 12).rows)
    history = read_history(settings.start_from).then(
        autoencoder_work(settings, first), denoiser_samples(settings, second), second.minutes
    )
    history.write(folder)
    record = TrainingRecord(first, second, latent_statistics(moments), errors, checked, history)
    write_card(folder, settings, data, record, notes)
    return folder
