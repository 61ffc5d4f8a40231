"""The prior as a folder in diffusers' layout, which `StableDiffusionInstructPix2PixPipeline.from_pretrained` reads."""

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import torch

from csd_nerf.toyworld.training.denoiser import Denoiser
from csd_nerf.toyworld.training.networks import AutoencoderKL, DDIMScheduler

LIBRARIES = {
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def export_prior(
    folder: Path,
    autoencoder: AutoencoderKL,
    denoiser: Denoiser,
    tokenizer_folder: Path,
    scheduler: DDIMScheduler,
    half: bool = True,
) -> None:
    """Write the networks' present weights (safetensors), the tokenizer, the schedule and `model_index.json`.

    The folder is built beside its place and swapped in, so a reader never sees half a prior.
    """
    building = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    networks = {"vae": autoencoder, "unet": denoiser.unet, "text_encoder": denoiser.text_encoder}
    for name, network in networks.items():
        # transformers >= 5 loads weights in the precision they are stored in, diffusers in single precision: a text
        # encoder in halves would meet a UNet in singles. It is small, so it stays single.
        _save_network(network, building / name, half and name != "text_encoder")
    scheduler.save_pretrained(building / "scheduler")
    shutil.copytree(tokenizer_folder, building / "tokenizer")
    index = {
        "_class_name": "StableDiffusionInstructPix2PixPipeline",
        "_diffusers_version": diffusers.__version__,
        **LIBRARIES,
        "requires_safety_checker": False,
    }
    (building / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    building.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _save_network(network: Any, folder: Path, half: bool) -> None:
    """Save in half precision without touching the network being trained."""
    present = {name: value.detach().clone() for name, value in network.state_dict().items()}
    if half:
        network.half()
    network.save_pretrained(folder, safe_serialization=True)
    for file in folder.iterdir():
        # Weights are written for their owner alone; what ships is for everyone to read.
        file.chmod(0o644)
    network.float()
    with torch.no_grad():
        network.load_state_dict(present)
