"""Whether we can run a model, from its small JSON files: before gigabytes of weights are fetched or read."""

from pathlib import Path
from typing import Any, get_args

from csd_nerf.priors.autoencoder import TINY
from csd_nerf.priors.errors import PriorLayoutError
from csd_nerf.priors.latent_diffusion import PredictionType
from csd_nerf.priors.layout import INDEX, SCHEDULER, read_json
from csd_nerf.priors.schedules import schedule_from_config

_CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL", TINY),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
_UNET_EXTRAS = {
    "class_embed_type": "class labels (an upscaler, a depth model)",
    "num_class_embeds": "class labels (an upscaler, a depth model)",
    "encoder_hid_dim_type": "image prompts",
}


def check_configurations(folder: Path, where: str, *, needs_image: bool = False) -> bool:
    """Whether the network has an image input (InstructPix2Pix) or not (text-to-image).

    `where` is what the user called the model. Raises `PriorLayoutError` for what we cannot run, and with `needs_image`
    for models without an image input.
    """
    _check_classes(folder, where)
    _check_scheduler(folder, where)
    takes_image = _takes_image(folder, where)
    if takes_image and _vae_class(folder) == TINY:
        raise PriorLayoutError(
            f"{where} pairs an InstructPix2Pix with a tiny autoencoder ({TINY}): its latents come already scaled, but "
            "the image condition is the unscaled mode of the posterior, so that its scale would be wrong: use the "
            "AutoencoderKL that the model was trained with"
        )
    if needs_image and not takes_image:
        raise PriorLayoutError(
            f"prior {where!r} has no image input, which editing needs: use 'toy', 'instruct-pix2pix' or another "
            "InstructPix2Pix in diffusers layout"
        )
    return takes_image


def _check_classes(folder: Path, where: str) -> None:
    index, unet = read_json(folder / INDEX), read_json(folder / "unet" / "config.json")
    if _indexed(index, "text_encoder_2") is not None or unet.get("addition_embed_type"):
        raise PriorLayoutError(f"{where} is a Stable Diffusion XL model, whose extra conditions are not supported")
    for name, what in _UNET_EXTRAS.items():
        if unet.get(name) is not None:
            raise PriorLayoutError(f"{where}: its network wants {what} ({name} in unet/config.json), not supported")
    found = {part: _indexed(index, part) for part in _CLASSES} | {"vae": _vae_class(folder)}
    for part, kind in found.items():
        if kind is not None and kind not in _CLASSES[part]:
            raise PriorLayoutError(f"{where}: its {part} is of class {kind}; supported are {', '.join(_CLASSES[part])}")


def _indexed(index: dict[str, Any], part: str) -> str | None:
    """Class of a part, as in `"unet": ["diffusers", "UNet2DConditionModel"]`; None where the index does not say."""
    entry = index.get(part)
    return entry[-1] if isinstance(entry, list) and entry else None


def _vae_class(folder: Path) -> str:
    return read_json(folder / "vae" / "config.json").get("_class_name", "AutoencoderKL")


def _check_scheduler(folder: Path, where: str) -> None:
    scheduler = read_json(folder / SCHEDULER)
    schedule_from_config(scheduler)
    kind, known = scheduler.get("prediction_type", "epsilon"), get_args(PredictionType)
    if kind not in known:
        raise PriorLayoutError(f"{where}: {SCHEDULER} has prediction_type {kind!r}; supported are {', '.join(known)}")


def _takes_image(folder: Path, where: str) -> bool:
    """With c latent channels a text-to-image model has c input channels and an InstructPix2Pix 2 c."""
    unet = read_json(folder / "unet" / "config.json")
    if unet.get("sample_size") is None:
        raise PriorLayoutError(f"{where}: unet/config.json does not say its sample_size")
    channels, latent = unet.get("in_channels"), read_json(folder / "vae" / "config.json").get("latent_channels", 4)
    if unet.get("out_channels", latent) != latent:
        raise PriorLayoutError(
            f"{where}: its network returns {unet['out_channels']} channels and its latents have {latent}; models that "
            "estimate a variance, too, are not supported"
        )
    if channels not in (latent, 2 * latent):
        raise PriorLayoutError(
            f"{where}: its network has {channels} input channels and its latents {latent}; {2 * latent} make an "
            f"InstructPix2Pix and {latent} a text-to-image model, anything else (inpainting, depth) is not supported"
        )
    return channels == 2 * latent
