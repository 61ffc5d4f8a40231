"""A tiny diffusion model with random weights, in diffusers' folder layout: the tests' stand-in for a real one."""

# pyright: reportPrivateImportUsage=false
# diffusers fills its top level at run time, which pyright cannot follow.

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch

from csd_nerf.distill import Condition, ImagePrior

WORDS = tuple("a make it red blue the cube turn into pencil sketch give hat snow night".split())
"""Words that the tiny tokenizer knows as single tokens; any other word falls apart into pieces."""
TEXT_LENGTH = 16
"""Tokens of a prompt, with the start and the end mark."""


def make_tiny_prior(
    folder: Path | str,
    in_channels: int = 8,
    factor: int = 4,
    seed: int = 0,
    *,
    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon",
    scaling_factor: float = 0.6,
    safetensors: bool = True,
    words: Iterable[str] = WORDS,
) -> Path:
    """Write a random prior to `folder` and return it; the same seed gives the same weights.

    `in_channels` 8 makes an InstructPix2Pix, 4 a text-to-image model. `factor` (a power of two) is the number of pixels
    per latent pixel; the model's own picture size is `8 * factor`. The schedule is Stable Diffusion's.
    """
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = _write_tokenizer(folder / "tokenizer", words)
    levels = factor.bit_length()
    codec: dict[str, Any] = {
        "block_out_channels": (8,) * levels,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "latent_channels": 4,
        "sample_size": 8 * factor,
        "scaling_factor": scaling_factor,
        "force_upcast": False,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=8,
            in_channels=in_channels,
            out_channels=4,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=16,
            attention_head_dim=2,
            norm_num_groups=4,
        )
        vae = AutoencoderKL(**codec)
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(vocabulary),
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=TEXT_LENGTH,
                bos_token_id=vocabulary["<|startoftext|>"],
                eos_token_id=vocabulary["<|endoftext|>"],
                pad_token_id=vocabulary["<|endoftext|>"],
            )
        )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )
    unet.save_pretrained(folder / "unet", safe_serialization=safetensors)
    vae.save_pretrained(folder / "vae", safe_serialization=safetensors)
    if safetensors:
        text_encoder.save_pretrained(folder / "text_encoder")
    else:  # transformers 5 no longer writes pickles itself
        text_encoder.config.save_pretrained(folder / "text_encoder")
        torch.save(text_encoder.state_dict(), folder / "text_encoder" / "pytorch_model.bin")
    scheduler.save_pretrained(folder / "scheduler")
    edits = in_channels == 8
    index = {
        "_class_name": "StableDiffusionInstructPix2PixPipeline" if edits else "StableDiffusionPipeline",
        "_diffusers_version": "0.30.0",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))
    return folder


def _write_tokenizer(folder: Path, words: Iterable[str]) -> dict[str, int]:
    """A byte-level CLIP tokenizer whose merges build exactly the given words; returns its vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(code) for code in range(33, 127)]
    tokens = dict.fromkeys(letters + [letter + "</w>" for letter in letters])
    merges: dict[tuple[str, str], None] = {}
    for word in words:
        piece = word[0] if len(word) > 1 else word + "</w>"
        for place, letter in enumerate(word[1:], start=2):
            ending = letter + "</w>" if place == len(word) else letter
            merges[piece, ending] = None
            piece += ending
            tokens[piece] = None
    vocabulary = {token: index for index, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges) + "\n")
    special = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
    }
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": TEXT_LENGTH, "do_lower_case": True, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return vocabulary


def answers(prior: ImagePrior) -> tuple[torch.Tensor, torch.Tensor]:
    """A fingerprint of all three networks."""
    x = torch.linspace(-1, 1, 4 * 8 * 8).view(1, 4, 8, 8)
    noise = prior.predict_noise(x, torch.tensor(300), Condition(prior.encode_text(["make it red"])))
    return noise, prior.decode(x)
