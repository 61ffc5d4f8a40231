"""Layers in the latent space of Stable Diffusion, as far as no network is needed: does the layer become the edit?

    python -m benchmarks.layers_real FOLDER TAESD RIVER   # half an hour of one core; benchmarks/results/layers/real.md

As in `synthesis_real` only the tiny autoencoder of that space is real. The place of the diffusion model is taken by an
exact score, N(m, 0.3^2) with m the latents of the photo with an orange sky, that is, of a true edit: composite and
opacity can then be measured against it. FOLDER keeps what is done, and gets a sheet.
"""

import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.keeping import commits, kept
from benchmarks.layers import NOTHING, RESULTS
from benchmarks.synthesis_real import codec
from csd_nerf.distill import Condition, LossWeights, NoiseSchedule, edit_size, resize
from csd_nerf.images.layers import LayerSettings, edit_layers
from csd_nerf.images.picture_files import read_picture
from csd_nerf.images.writing import contact_sheet
from csd_nerf.metrics.pixel_scores import psnr
from csd_nerf.priors import GaussianPrior
from csd_nerf.priors.autoencoder import Autoencoder

SIDE, STEPS, SKY = 192, 250, 0.38
"""Pixels are SIDE^2; the sky is the share SKY of the height."""
ORANGE = (1.3, 0.7, 0.35)
VEIL = 30.0
"""Weight of Text2LIVE's regulariser, where it is on."""
CASES = {
    "LSD": (NOTHING, 0.0),
    "LSD, sparse": (NOTHING, VEIL),
    "LSD + FM 0.02": (replace(NOTHING, feature_matching=0.02), 0.0),
    "LSD + KL 0.1": (replace(NOTHING, kl=0.1), 0.0),
    "LSD + FM 0.02 + KL 0.1, sparse": (LossWeights(feature_matching=0.02, kl=0.1), VEIL),
    "the paper's lambdas": (LayerSettings().losses, 0.0),
}


class ExactPrior:
    """N(mean, 0.3^2) in the space of an autoencoder, whatever the prompt: a `ViewPrior`."""

    name, takes_image, factor, size, device = "exact", False, 8, SIDE, torch.device("cpu")

    def __init__(self, autoencoder: Autoencoder, mean: Tensor) -> None:
        self.autoencoder, self.schedule = autoencoder, NoiseSchedule.scaled_linear()
        self._score = GaussianPrior(mean, 0.3, self.schedule)

    def predict_noise(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return self._score.predict_noise(x_t, t, condition)

    def encode(self, images: Tensor) -> Tensor:
        return self.autoencoder.encode(images)

    def encode_attached(self, images: Tensor) -> Tensor:
        return self.autoencoder.encode_attached(images)

    def decode(self, latents: Tensor) -> Tensor:
        return self.autoencoder.decode(latents)

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        return torch.zeros(len(prompts), 1, 1)

    def encode_condition(self, images: Tensor, *, scaled_sample: torch.Generator | None = None) -> Tensor:
        raise ValueError("an exact prior takes no picture")


def main(folder: Path, taesd: Path, river: Path) -> None:
    """Compute what is missing, then write the table and the sheet."""
    picture, vae = read_picture(river).image, codec(taesd)
    height, width = picture.shape[-2:]
    photo = resize(picture[None], edit_size(height, width, SIDE, 8))[0]
    sky = torch.zeros(photo.shape[-2:])
    sky[: round(SKY * len(sky))] = 1
    truth = torch.where(sky.bool(), photo * torch.tensor(ORANGE)[:, None, None], photo).clamp(0, 1)
    prior = ExactPrior(vae, vae.encode(truth[None])[0])
    sheet = [("photo, true edit,\nsky", [photo, truth, sky.expand(3, -1, -1)])]
    rows: dict[str, dict[str, float | None]] = {"the photo": {"PSNR": psnr(photo[None], truth[None]).mean}}
    made = []
    for name, (losses, sparsity) in CASES.items():
        settings = LayerSettings(
            losses=losses, lambda_sparsity=sparsity, steps=STEPS, lr_end=0.1, width=32, scales=4, t_min=0.02
        )

        def edit(settings: LayerSettings = settings) -> dict:
            found = edit_layers(prior, photo, "an orange sky", settings)
            ratio = None if found.losses is None else found.losses.ratio
            return {"composite": found.composite, "layer": found.layer, "alpha": found.alpha, "ratio": ratio}

        found = kept(folder / f"{name.replace(' ', '_').replace(',', '').replace(chr(39), '')}.pt", edit)
        made.append(found)
        alpha, inside = found["alpha"], sky > 0.5
        rows[name] = {
            "PSNR": psnr(found["composite"][None], truth[None]).mean,
            "opacity in the sky": float(alpha[inside].mean()),
            "opacity elsewhere": float(alpha[~inside].mean()),
            "FM / LSD": found["ratio"],
        }
        print(name, rows[name], flush=True)
        sheet.append((name.replace(", ", ",\n"), [found["composite"], found["layer"], alpha.expand(3, -1, -1)]))
        contact_sheet(sheet).save(folder / "layers.png")
        write(rows, commits(made), photo)


def write(rows: dict[str, dict[str, float | None]], come_from: str, photo: Tensor) -> None:
    """The table of what there is."""
    columns = ("PSNR", "opacity in the sky", "opacity elsewhere", "FM / LSD")
    lines = [
        "# A layer over a photo, in Stable Diffusion's latent space",
        "",
        f"`python -m benchmarks.layers_real`, {come_from}, {date.today().isoformat()}, {platform.machine()}, one "
        f"thread, torch {torch.__version__}, float32. A river, {photo.shape[-1]} x {photo.shape[-2]} pixels, "
        f"seed 0, {STEPS} steps; the score is exact and points to the photo with an orange sky. *Sparse*: Text2LIVE's "
        f"regulariser of the opacity, weight {VEIL:g}.",
        "",
        "| layer | " + " | ".join(columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for name, row in rows.items():
        shown = [
            "" if row.get(key) is None else f"{row[key]:.{1 if key in ('PSNR', 'FM / LSD') else 2}f}" for key in columns
        ]
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    lines += ["", "PSNR, in dB, is that of the composite to the true edit. FM / LSD: lengths of the two gradients."]
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "real.md").write_text("\n".join(lines) + "\n")
    (RESULTS / "real.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
