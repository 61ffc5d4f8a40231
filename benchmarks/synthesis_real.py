"""Feature matching and the KL regulariser in the real latent space of Stable Diffusion, as far as no network is needed.

Only the tiny autoencoder of that space is at hand, no diffusion model. Its place is taken by a prior whose score is
exact, N(m, 0.3^2) with m the latents of a photo: `eps_hat` then points to the photo, and what the losses make of it in
the decoder can be measured against it. For the KL regulariser m is the photo's latents times 1.5, as a prior gives that
exaggerates.
"""

from pathlib import Path

import torch
from torch import Tensor

from csd_nerf.bench.statistics import bootstrap
from csd_nerf.distill import (
    Distiller,
    IndependentKernel,
    IndependentNoise,
    InjectedNoise,
    LatentLosses,
    LatentStep,
    LossWeights,
    NoiseSchedule,
    Target,
    TextGuidance,
    UniformTimesteps,
    kl_regulariser,
    optimize_parameters,
    resize,
)
from csd_nerf.images.picture_files import read_picture
from csd_nerf.images.synthesis_run import FreeParameters
from csd_nerf.priors import DecoderFeatures, GaussianPrior
from csd_nerf.priors.autoencoder import Autoencoder
from csd_nerf.toyworld.judging.colour import to_lab

SIDE, COUNT, STEPS, LOOKS = 96, 6, 60, (15, 30, 60)
_NONE = Target((torch.zeros(1, 1, 1),), torch.zeros(1, 1, 1))


def codec(folder: Path) -> Autoencoder:
    from diffusers import AutoencoderTiny  # pyright: ignore[reportPrivateImportUsage]

    vae = AutoencoderTiny.from_pretrained(folder)
    return Autoencoder(vae, device=torch.device("cpu"), dtype=torch.float32)


def photos(folder: Path) -> list[Tensor]:
    """Squares from the middle of every 80th photo."""
    found = []
    for path in sorted(folder.glob("*.jpg"))[::80][:COUNT]:
        image = read_picture(path).image
        side = min(image.shape[-2:])
        top, left = (image.shape[-2] - side) // 2, (image.shape[-1] - side) // 2
        found.append(resize(image[None, :, top : top + side, left : left + side], (SIDE, SIDE))[0])
    return found


def descend(vae: Autoencoder, mean: Tensor, losses: LossWeights, seed: int) -> tuple[dict[int, Tensor], list[float]]:
    """Latents after some of the steps, and |grad FM| / |grad LSD| of each step."""
    generator = torch.Generator().manual_seed(seed)
    prior = GaussianPrior(mean, 0.3, NoiseSchedule.scaled_linear())
    distiller = Distiller(
        prior,
        TextGuidance(1.0),
        IndependentKernel(),
        InjectedNoise(),
        noise=IndependentNoise(),
        timesteps=UniformTimesteps(0.02, 0.98),
    )
    shown = FreeParameters(torch.randn(1, *mean.shape, generator=generator))
    optimizer = torch.optim.AdamW(shown.parameters(), lr=0.1)
    seen, ratios = {}, []

    def on_step(done: int, step: LatentStep) -> None:
        if step.losses.ratio is not None:
            ratios.append(step.losses.ratio)
        if done in LOOKS:
            seen[done] = shown.latents.detach().clone()

    guide = LatentLosses(distiller, losses, DecoderFeatures(vae))
    optimize_parameters(guide, shown, _NONE, optimizer, STEPS, generator, on_step=on_step)
    return seen, ratios


def measure_real(taesd: Path, folder: Path, work: Path) -> list[str]:
    """Lines of the report."""
    vae, pictures = codec(taesd), photos(folder)
    latents = [vae.encode(picture[None])[0] for picture in pictures]
    spreads = [float(one.std()) for one in latents]
    values = [float(kl_regulariser(one[None]).value) for one in latents]
    path = work / "real.pt"
    if not path.is_file():
        torch.save(_psnrs(vae, latents), path)
    psnrs, ratio = torch.load(path, weights_only=True)
    lines = [
        f"In the latent space of Stable Diffusion (tiny autoencoder, {len(latents)} photos of {SIDE} x {SIDE} pixels):",
        "",
        f"- Latents of photos have a standard deviation of {_shown(spreads)} and L_KL = {_shown(values)}: the "
        "regulariser's N(0, 1) is somewhat wider than they are.",
        f"- With lambda_1 = 3 the gradient of feature matching is {ratio:.1f} times that of LSD (median over steps).",
        "",
        "Exact score of N(photo, 0.3^2), AdamW 0.1: PSNR in dB of the decoded latents to the decoded photo",
        "",
        "| losses | " + " | ".join(f"step {step}" for step in LOOKS) + " | chroma, share of the photo's |",
        "|---|" + "---|" * (len(LOOKS) + 1),
    ]
    for name, (by_step, chroma) in psnrs.items():
        lines.append(f"| {name} | " + " | ".join(_shown(by_step[step], 1) for step in LOOKS) + f" | {_shown(chroma)} |")
    return lines


def _psnrs(vae: Autoencoder, latents: list[Tensor]):
    none, real, rows, all_ratios = LossWeights(feature_matching=0.0, kl=0.0), {}, {}, []
    cases = {
        "LSD": (1.0, none),
        "LSD + FM (0.1)": (1.0, LossWeights(feature_matching=0.1, kl=0.0)),
        "LSD + FM (3)": (1.0, LossWeights(feature_matching=3.0, kl=0.0)),
        "FM alone": (1.0, LossWeights(feature_matching=1.0, kl=0.0, lsd=0.0)),
        "LSD, exaggerated 1.5 times": (1.5, none),
        "LSD + KL (1), exaggerated": (1.5, LossWeights(feature_matching=0.0, kl=1.0)),
        "LSD + KL (0.1), exaggerated": (1.5, LossWeights(feature_matching=0.0, kl=0.1)),
    }
    for name, (scale, losses) in cases.items():
        by_step, chroma = {step: [] for step in LOOKS}, []
        for number, mean in enumerate(latents):
            real = vae.decode(mean[None])
            seen, ratios = descend(vae, scale * mean, losses, seed=number)
            all_ratios += ratios if losses.feature_matching == 3.0 else []
            for step in LOOKS:
                error = (vae.decode(seen[step]) - real).square().mean()
                by_step[step].append(float(-10 * error.log10()))
            chroma.append(_chroma(vae.decode(seen[STEPS])) / _chroma(real))
        rows[name] = (by_step, chroma)
        print(name, flush=True)
    return rows, float(torch.tensor(all_ratios).median())


def _chroma(images: Tensor) -> float:
    return float(to_lab(images)[:, 1:].square().sum(dim=1).sqrt().mean())


def _shown(values: list[float], digits: int = 2) -> str:
    interval = bootstrap(values)
    return f"{interval.mean:.{digits}f} ({interval.low:.{digits}f} to {interval.high:.{digits}f})"
