"""An InstructPix2Pix of full size with random weights, in diffusers' folder layout: for timings without its weights.

    python -m benchmarks.random_prior FOLDER

2 GB in float16. The network, the autoencoder and the text encoder have the sizes of `timbrooks/instruct-pix2pix`
(Brooks et al. 2023; Stable Diffusion 1.5 with eight input channels); tokenizer and schedule are the toy prior's.
"""

import argparse
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from csd_nerf.priors.registry import toy_folder


@dataclass(frozen=True)
class Sizes:
    """Of the networks; the defaults are those of `timbrooks/instruct-pix2pix`."""

    unet: tuple[int, ...] = (320, 640, 1280, 1280)
    """Channels of the UNet's levels."""
    codec: tuple[int, ...] = (128, 256, 512, 512)
    """Channels of the autoencoder's levels."""
    text_layers: int = 12


def networks(sizes: Sizes) -> dict[str, Any]:
    """UNet, autoencoder and text encoder with random weights, on the current device."""
    from diffusers import AutoencoderKL, UNet2DConditionModel  # pyright: ignore[reportPrivateImportUsage]
    from transformers import CLIPTextConfig, CLIPTextModel

    tokens = json.loads((toy_folder() / "text_encoder" / "config.json").read_text())
    unet = UNet2DConditionModel(
        sample_size=64, in_channels=8, cross_attention_dim=768, block_out_channels=sizes.unet, attention_head_dim=8
    )
    levels = len(sizes.codec)
    codec: dict[str, Any] = {
        "block_out_channels": sizes.codec,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "layers_per_block": 2,
        "latent_channels": 4,
        "sample_size": 512,
        "scaling_factor": 0.18215,
        "force_upcast": False,
    }
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408,
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=sizes.text_layers,
            num_attention_heads=12,
            max_position_embeddings=77,
            hidden_act="quick_gelu",
            **{name: tokens[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")},
        )
    )
    return {"unet": unet, "vae": AutoencoderKL(**codec), "text_encoder": text_encoder}


def write(folder: Path, sizes: Sizes | None = None) -> None:
    """Write the prior to a folder that does not exist yet. The global random state is left as it was."""
    folder.mkdir(parents=True)
    for name in ("tokenizer", "scheduler"):
        shutil.copytree(toy_folder() / name, folder / name)
    shutil.copy(toy_folder() / "model_index.json", folder)
    with torch.random.fork_rng(), torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        torch.manual_seed(0)
        made = networks(sizes or Sizes())
    for name, network in made.items():
        network.half().save_pretrained(folder / name)


def main() -> None:
    """Write it where the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    if asked.folder.exists():
        parser.error(f"{asked.folder} exists: give a new folder")
    write(asked.folder)


if __name__ == "__main__":
    main()
