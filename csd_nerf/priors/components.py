"""From files in diffusers' layout to frozen networks.

diffusers and transformers are imported here and in `t5` alone, and inside functions: they take seconds.
"""

# pyright: reportPrivateImportUsage=false
# diffusers fills its top level at run time, which pyright cannot follow; its submodules move between versions.

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from csd_nerf.priors.autoencoder import TINY, Autoencoder
from csd_nerf.priors.diffusion import Networks
from csd_nerf.priors.errors import PriorError, PriorLayoutError
from csd_nerf.priors.latent_diffusion import Components
from csd_nerf.priors.layout import SCHEDULER, Layout, Weights, read_json
from csd_nerf.priors.reading import read_weights, reading
from csd_nerf.priors.schedules import schedule_from_config
from csd_nerf.priors.t5 import load_t5
from csd_nerf.priors.text import TextEncoder


def load_components(folder: Path, layout: Layout, *, name: str, device: torch.device, dtype: torch.dtype) -> Components:
    """Load all parts from `folder`, whose configurations were checked. The global random state is left as it was."""
    _check_libraries()
    assert layout.vae is not None
    scheduler = read_json(folder / SCHEDULER)
    with torch.random.fork_rng(devices=[]), _without_progress_bars():
        text_model = _load_text_encoder(folder, layout.text_encoder)
        return Components(
            unet=_load_unet(folder, layout.unet),
            autoencoder=Autoencoder(_load_vae(folder, layout.vae), device=device, dtype=dtype),
            text_encoder=TextEncoder(
                _load_tokenizer(folder / "tokenizer"), text_model, name=name, device=device, dtype=dtype
            ),
            schedule=schedule_from_config(scheduler),
            prediction_type=scheduler.get("prediction_type", "epsilon"),
            device=device,
            dtype=dtype,
        )


def load_networks(folder: Path, layout: Layout, *, name: str, device: torch.device, dtype: torch.dtype) -> Networks:
    """The same for a model of pixels, which has no autoencoder; its text encoder is a T5."""
    _check_libraries()
    scheduler = read_json(folder / SCHEDULER)
    with torch.random.fork_rng(devices=[]), _without_progress_bars():
        return Networks(
            unet=_load_unet(folder, layout.unet, dtype),
            text_encoder=load_t5(folder, layout.text_encoder, name=name, device=device, dtype=dtype),
            schedule=schedule_from_config(scheduler),
            prediction_type=scheduler.get("prediction_type", "epsilon"),
            device=device,
            dtype=dtype,
        )


def _check_libraries() -> None:
    """Import what loading needs. New versions of both libraries fail in an old torch without saying that it is old."""
    try:
        from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel  # noqa: F401
        from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer  # noqa: F401
    except Exception as error:
        installed = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers"))
        raise PriorError(
            f"{installed} do not work together ({type(error).__name__}: {str(error).splitlines()[-1]}): update torch, "
            "or for torch 2.5 run pip install 'csd_nerf[torch25]' (in a checkout: pip install -e '.[torch25]')"
        ) from error


def _load_unet(folder: Path, weights: Weights, dtype: torch.dtype = torch.float32) -> nn.Module:
    from diffusers import UNet2DConditionModel

    with reading(folder / "unet"):
        return UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=dtype, **_options(weights))


def _load_vae(folder: Path, weights: Weights) -> nn.Module:
    from diffusers import AutoencoderKL, AutoencoderTiny

    tiny = read_json(folder / "vae" / "config.json").get("_class_name") == TINY
    with reading(folder / "vae"):
        return (AutoencoderTiny if tiny else AutoencoderKL).from_pretrained(folder / "vae", **_options(weights))


def _options(weights: Weights) -> dict[str, Any]:
    return {"use_safetensors": not weights.pickled, "variant": weights.variant, "local_files_only": True}


def _load_tokenizer(folder: Path) -> Any:
    import transformers

    kind = transformers.CLIPTokenizer
    with reading(folder):
        if not {"vocab.json", "merges.txt"} <= {file.name for file in folder.iterdir()}:
            # Before transformers 5 the plain class cannot read tokenizer.json, which is all that version 5 writes.
            kind = getattr(transformers, "CLIPTokenizerFast", kind)
        return kind.from_pretrained(folder, local_files_only=True)


def _load_text_encoder(folder: Path, weights: Weights) -> nn.Module:
    """Read the weights ourselves: transformers 5 dropped the prefix `text_model.` that older versions write and expect.

    With a wrong prefix an older version would keep random weights and only log it.
    """
    from transformers import CLIPTextConfig, CLIPTextModel

    with reading(folder / "text_encoder"):
        model = CLIPTextModel(CLIPTextConfig.from_pretrained(folder / "text_encoder", local_files_only=True))
        stored = read_weights(folder, weights)
    wanted, prefix = set(model.state_dict()), "text_model."
    state = {key.removeprefix(prefix): value for key, value in stored.items()}
    if any(key.startswith(prefix) for key in wanted):
        state = {prefix + key: value for key, value in state.items()}
    missing, _ = model.load_state_dict({key: state[key] for key in wanted & set(state)}, strict=False)
    if missing:
        raise PriorLayoutError(f"{folder / 'text_encoder'} has no weights for {', '.join(sorted(missing)[:3])}, ...")
    return model


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Both libraries draw a bar per network, also for one that loads in a blink."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    shown = [library for library in (diffusers_logging, transformers_logging) if library.is_progress_bar_enabled()]
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in shown:
            library.enable_progress_bar()
