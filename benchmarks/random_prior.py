"""An InstructPix2Pix of full size with random weights, in diffusers' folder layout: for timings without its weights.

    python -m benchmarks.random_prior FOLDER

2 GB in float16. The network, the autoencoder and the text encoder have the sizes of `timbrooks/instruct-pix2pix`
(Brooks et al. 2023; Stable Diffusion 1.5 with eight input channels); tokenizer and schedule are the toy prior's.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch

from csd_nerf.priors.registry import toy_folder

CHANNELS = (320, 640, 1280, 1280)
"""Of the network's levels."""


def write(folder: Path, channels: tuple[int, ...] = CHANNELS, codec: tuple[int, ...] = (128, 256, 512, 512)) -> None:
    """Write the prior to a folder that does not exist yet."""
    from diffusers import AutoencoderKL, UNet2DConditionModel  # pyright: ignore[reportPrivateImportUsage]
    from transformers import CLIPTextConfig, CLIPTextModel

    folder.mkdir(parents=True)
    toy = toy_folder()
    for name in ("tokenizer", "scheduler"):
        shutil.copytree(toy / name, folder / name)
    shutil.copy(toy / "model_index.json", folder)
    tokens = json.loads((toy / "text_encoder" / "config.json").read_text())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    with torch.device(device):
        unet = UNet2DConditionModel(
            sample_size=64, in_channels=8, cross_attention_dim=768, block_out_channels=channels, attention_head_dim=8
        )
        vae = AutoencoderKL(
            block_out_channels=codec,
            down_block_types=("DownEncoderBlock2D",) * len(codec),
            up_block_types=("UpDecoderBlock2D",) * len(codec),
            layers_per_block=2,
            latent_channels=4,
            sample_size=512,
            scaling_factor=0.18215,
            force_upcast=False,
        )
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=49408,
                hidden_size=768,
                intermediate_size=3072,
                num_hidden_layers=12,
                num_attention_heads=12,
                max_position_embeddings=77,
                hidden_act="quick_gelu",
                **{name: tokens[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")},
            )
        )
    for name, network in (("unet", unet), ("vae", vae), ("text_encoder", text_encoder)):
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
