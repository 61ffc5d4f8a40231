"""An exported prior as the beginning of a training: more time, more scenes or another style for what is there.

Its autoencoder and its words stay as they are, so that what its UNet has learned of the latents stays true.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from csd_nerf.toyworld.training.networks import AutoencoderKL, build_autoencoder
from csd_nerf.toyworld.training.settings import NetworkSize, TrainingSettings
from csd_nerf.toyworld.training.tokenizer import load_tokenizer, words_of

PARTS = ("vae", "unet", "text_encoder", "tokenizer")


def check_start(settings: TrainingSettings) -> None:
    """Raise `ValueError` if the folder to start from is not a prior in diffusers' layout."""
    folder = settings.start_from
    if folder is not None and (missing := [part for part in PARTS if not (folder / part).is_dir()]):
        raise ValueError(
            f"--start-from {folder} has no {', '.join(missing)}: give the folder of a trained prior, such as the "
            "`export` of another run, or leave the flag out"
        )


def load_autoencoder(folder: Path, size: NetworkSize) -> AutoencoderKL:
    """The prior's autoencoder with its scaling factor, in single precision. Raises `ValueError` for another size."""
    autoencoder = build_autoencoder(size)
    stored: Any = AutoencoderKL.load_config(folder / "vae", local_files_only=True)
    autoencoder.register_to_config(scaling_factor=stored["scaling_factor"])
    load_weights(autoencoder, folder / "vae")
    return autoencoder


def load_weights(network: Any, folder: Path) -> None:
    """Read a network's weights, of any precision. Raises `ValueError` where they do not fit.

    transformers 5 has dropped the prefix `text_model.` that older versions write.
    """
    stored: dict[str, Tensor] = {}
    for file in folder.glob("*.safetensors"):
        stored.update(load_file(file))
    state = _without_prefix(stored)
    wanted: dict[str, Tensor] = network.state_dict()
    found = {key: state.get(key.removeprefix("text_model.")) for key in wanted}
    unfit = [key for key, value in found.items() if value is None or value.shape != wanted[key].shape]
    if unfit:
        raise ValueError(
            f"--start-from: the weights in {folder} are those of another network than --size asks for "
            f"({unfit[0]}{' and others' if len(unfit) > 1 else ''}): give the --size it was trained with"
        )
    network.load_state_dict({key: value.float() for key, value in found.items() if value is not None})


def _without_prefix(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix("text_model."): value for key, value in stored.items()}


def copy_tokenizer(prior: Path, folder: Path, texts: list[str]) -> None:
    """Take over the prior's words. Raises `ValueError` if a word of the data is not one of its tokens."""
    vocabulary = load_tokenizer(prior / "tokenizer").get_vocab()
    unknown = [word for word in words_of(texts) if f"{word}</w>" not in vocabulary]
    if unknown:
        raise ValueError(
            f"--start-from {prior} does not know {len(unknown)} of the data's words ({', '.join(unknown[:5])}): train "
            "from nothing, or give it data of its own words"
        )
    shutil.copytree(prior / "tokenizer", folder, dirs_exist_ok=True)


@torch.no_grad()
def load_denoiser(denoiser: nn.Module, folder: Path) -> None:
    """Read UNet and text encoder of a prior into a `Denoiser`."""
    load_weights(denoiser.unet, folder / "unet")
    load_weights(denoiser.text_encoder, folder / "text_encoder")
