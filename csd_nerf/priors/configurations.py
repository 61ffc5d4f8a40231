"""Whether we can run a model, from its small JSON files: before gigabytes of weights are fetched or read."""

from pathlib import Path
from typing import Any, Literal, get_args

from csd_nerf.priors.autoencoder import TINY
from csd_nerf.priors.diffusion import PredictionType
from csd_nerf.priors.errors import PriorLayoutError
from csd_nerf.priors.layout import INDEX, SCHEDULER, files_below, is_of_pixels, read_json
from csd_nerf.priors.schedules import schedule_from_config

Kind = Literal["instruct-pix2pix", "text-to-image", "deepfloyd"]
"""Which of our priors runs a model."""

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


_PIXEL_CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "text_encoder": ("T5EncoderModel",),
    "tokenizer": ("T5Tokenizer", "T5TokenizerFast"),
}


def check_configurations(folder: Path, where: str, *, needs_image: bool = False) -> Kind:
    """What kind of model it is: with an image input (InstructPix2Pix), without (text-to-image), of pixels (DeepFloyd).

    `where` is what the user called the model. Raises `PriorLayoutError` for what we cannot run, and with `needs_image`
    for models without an image input.
    """
    kind = _check_pixels(folder, where) if is_of_pixels(files_below(folder)) else _check_latents(folder, where)
    if needs_image and kind != "instruct-pix2pix":
        raise PriorLayoutError(
            f"prior {where!r} has no image input, which editing needs: use 'toy', 'instruct-pix2pix' or another "
            "InstructPix2Pix in diffusers layout"
        )
    return kind


def _check_latents(folder: Path, where: str) -> Kind:
    _check_classes(folder, where)
    _check_scheduler(folder, where)
    takes_image = _takes_image(folder, where)
    if takes_image and _vae_class(folder) == TINY:
        raise PriorLayoutError(
            f"{where} pairs an InstructPix2Pix with a tiny autoencoder ({TINY}): its latents come already scaled, but "
            "the image condition is the unscaled mode of the posterior, so that its scale would be wrong: use the "
            "AutoencoderKL that the model was trained with"
        )
    return "instruct-pix2pix" if takes_image else "text-to-image"


def _check_pixels(folder: Path, where: str) -> Kind:
    """DeepFloyd IF, stage I: 3 channels in, and out 3 or, with a variance, 6."""
    index, unet = read_json(folder / INDEX), read_json(folder / "unet" / "config.json")
    found = {part: _indexed(index, part) for part in _PIXEL_CLASSES}
    if found["text_encoder"] is None:  # models that were fine-tuned with finished encodings leave it out
        found["text_encoder"] = (read_json(folder / "text_encoder" / "config.json").get("architectures") or [None])[0]
    for part, kind in found.items():
        if kind is not None and kind not in _PIXEL_CLASSES[part]:
            raise PriorLayoutError(
                f"{where} has no vae/config.json and its {part} is of class {kind}: a latent diffusion model needs its "
                f"autoencoder, and one of pixels (DeepFloyd IF) {', '.join(_PIXEL_CLASSES[part])}"
            )
    _check_scheduler(folder, where)
    channels = unet.get("in_channels"), unet.get("out_channels")
    if unet.get("class_embed_type") is not None or channels not in ((3, 3), (3, 6)):
        raise PriorLayoutError(
            f"{where}: its network has {channels[0]} input and {channels[1]} output channels; supported is DeepFloyd "
            "IF's stage I, which has 3 and 6 (stages II and III enlarge pictures)"
        )
    if unet.get("sample_size") is None:
        raise PriorLayoutError(f"{where}: unet/config.json does not say its sample_size")
    width = read_json(folder / "text_encoder" / "config.json").get("d_model")
    wanted = unet.get("encoder_hid_dim") or unet.get("cross_attention_dim")
    if width != wanted:
        raise PriorLayoutError(
            f"{where}: its text encoder gives {width} numbers per token (d_model in text_encoder/config.json) and its "
            f"network takes {wanted} (unet/config.json)"
        )
    return "deepfloyd"


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
