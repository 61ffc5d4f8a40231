import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError
from safetensors.torch import load_file, save_file

from csd_nerf.distill import ImagePrior
from csd_nerf.priors import (
    InstructPix2PixPrior,
    PriorError,
    PriorLayoutError,
    PriorNotFoundError,
    TextToImagePrior,
    load_prior,
    toy_folder,
)
from tests.tiny_prior import TEXT_LENGTH, answers, make_tiny_prior


def test_a_folder_gives_the_prior_that_its_configuration_describes(edit_folder: Path, text_folder: Path):
    edit, text = load_prior(edit_folder, device="cpu"), load_prior(str(text_folder), device="cpu")
    assert isinstance(edit, InstructPix2PixPrior) and edit.takes_image and edit.name == str(edit_folder)
    assert isinstance(text, TextToImagePrior) and not text.takes_image
    assert (edit.factor, edit.size) == (4, 32) and (text.factor, text.size) == (8, 64)
    assert isinstance(edit, ImagePrior) and isinstance(text, ImagePrior)
    assert edit.dtype == torch.float32 and edit.device == torch.device("cpu")


def test_loading_leaves_the_random_state_alone(edit_folder: Path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_prior(edit_folder, device="cpu")
    torch.testing.assert_close(torch.rand(3), expected)


def test_toy_is_found_inside_the_installed_package(
    tmp_path: Path, edit_folder: Path, monkeypatch: pytest.MonkeyPatch, silent_hub: Path
):
    (tmp_path / "__init__.py").touch()
    spec = importlib.util.spec_from_file_location("csd_nerf.data", tmp_path / "__init__.py")
    assert spec is not None
    monkeypatch.setitem(sys.modules, "csd_nerf.data", importlib.util.module_from_spec(spec))
    with pytest.raises(PriorNotFoundError, match="csd prior train"):
        load_prior("toy")
    shutil.copytree(edit_folder, tmp_path / "toy_prior")
    assert toy_folder() == tmp_path / "toy_prior"
    assert load_prior("toy", device="cpu").name == "toy"


@pytest.mark.parametrize("missing", ["model_index.json", "unet", "vae/config.json", "tokenizer", "text_encoder",
                                     "scheduler/scheduler_config.json"])  # fmt: skip
def test_a_folder_without_a_part_names_it(copied: Path, missing: str):
    path = copied / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    expected = {"unet": "unet/config.json is missing", "text_encoder": "text_encoder/model.safetensors is missing",
                "tokenizer": "tokenizer/vocab.json"}.get(missing, f"{missing} is missing")  # fmt: skip
    with pytest.raises(PriorLayoutError) as error:
        load_prior(copied)
    assert expected in str(error.value) and str(copied) in str(error.value)


def test_pickles_need_permission(tmp_path: Path, edit_prior):
    folder = make_tiny_prior(tmp_path / "pickled", safetensors=False)
    with pytest.raises(PriorLayoutError, match="unet/diffusion_pytorch_model.bin is a pickle.*allow_pickles=True"):
        load_prior(folder)
    torch.testing.assert_close(answers(load_prior(folder, device="cpu", allow_pickles=True)), answers(edit_prior))


def test_split_weights_and_variants(copied: Path, edit_prior):
    state = load_file(copied / "text_encoder/model.safetensors")
    keys = sorted(state)
    parts = (keys[: len(keys) // 2], keys[len(keys) // 2 :])
    for number, part in enumerate(parts, start=1):
        save_file({key: state[key] for key in part}, copied / f"text_encoder/model-0000{number}-of-00002.safetensors")
    (copied / "text_encoder/model.safetensors.index.json").write_text("{}")
    (copied / "text_encoder/model.safetensors").unlink()
    torch.testing.assert_close(answers(load_prior(copied, device="cpu")), answers(edit_prior))

    unet = copied / "unet/diffusion_pytorch_model.safetensors"
    unet.rename(unet.with_name("diffusion_pytorch_model.fp16.safetensors"))
    remedy = "(there is diffusion_pytorch_model.fp16.safetensors: load with variant='fp16')"
    with pytest.raises(PriorLayoutError, match=re.escape(remedy)):
        load_prior(copied)
    torch.testing.assert_close(answers(load_prior(copied, device="cpu", variant="fp16")), answers(edit_prior))

    (copied / "text_encoder/model-00002-of-00002.safetensors").unlink()
    with pytest.raises(PriorLayoutError, match="text_encoder/model.safetensors is missing"):
        load_prior(copied, variant="fp16")


def test_text_weights_of_old_and_new_transformers_are_read(copied: Path, edit_prior):
    """Version 5 names them `embeddings...`, older ones `text_model.embeddings...`."""
    file = copied / "text_encoder/model.safetensors"
    state = {key.removeprefix("text_model."): value for key, value in load_file(file).items()}
    for prefix in ("", "text_model."):
        save_file({prefix + key: value for key, value in state.items()}, file)
        torch.testing.assert_close(answers(load_prior(copied, device="cpu")), answers(edit_prior))
    state.pop("final_layer_norm.weight")
    save_file(state, file)
    with pytest.raises(PriorLayoutError, match=r"no weights for .*final_layer_norm.weight"):
        load_prior(copied)


def test_a_tokenizer_may_be_a_single_file(copied: Path, edit_prior):
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(copied / "tokenizer")
    shutil.rmtree(copied / "tokenizer")
    tokenizer.save_pretrained(copied / "tokenizer")
    torch.testing.assert_close(
        load_prior(copied, device="cpu").encode_text(["make it red"]), edit_prior.encode_text(["make it red"])
    )
    assert edit_prior.encode_text([""]).shape == (1, TEXT_LENGTH, 16)


@pytest.mark.parametrize("content", ["{", "version https://git-lfs.github.com/spec/v1\n"])
def test_a_damaged_tokenizer_names_its_folder(copied: Path, content: str):
    (copied / "tokenizer/vocab.json").write_text(content)
    with pytest.raises(PriorLayoutError, match=r"tokenizer cannot be loaded .*git-lfs"):
        load_prior(copied)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_damaged_weights_name_their_folder(copied: Path, part: str):
    next((copied / part).glob("*.safetensors")).write_text("version https://git-lfs.github.com/spec/v1\n" * 3)
    with pytest.raises(PriorLayoutError, match=rf"{part} cannot be loaded .*git-lfs"):
        load_prior(copied)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("unet/config.json", {"in_channels": 9}, "9 input channels.*inpainting"),
        ("unet/config.json", {"addition_embed_type": "text_time"}, "XL"),
        ("unet/config.json", {"sample_size": None}, "sample_size"),
        ("model_index.json", {"text_encoder_2": ["transformers", "CLIPTextModel"]}, "XL"),
        ("vae/config.json", {"_class_name": "VQModel"}, "class VQModel"),
        ("unet/config.json", {"out_channels": 8}, "returns 8 channels and its latents have 4"),
        ("unet/config.json", {"num_class_embeds": 1000}, "wants class labels .*num_class_embeds"),
        ("model_index.json", {"unet": ["diffusers", "UNet3DConditionModel"]}, "unet is of class UNet3DConditionModel"),
        ("model_index.json", {"text_encoder": ["transformers", "T5EncoderModel"]}, "text_encoder is of .*T5Enc"),
        ("scheduler/scheduler_config.json", {"beta_schedule": None}, "beta_schedule None"),
        ("scheduler/scheduler_config.json", {"prediction_type": "flow"}, "prediction_type 'flow'.*v_prediction"),
    ],
)
def test_models_that_we_cannot_run_are_refused_before_their_weights_are_read(
    copied: Path, file: str, change: dict, message: str
):
    config = json.loads((copied / file).read_text())
    (copied / file).write_text(json.dumps({**config, **change}))
    for weights in copied.rglob("*.safetensors"):
        weights.write_text("not read")
    with pytest.raises(PriorLayoutError, match=message):
        load_prior(copied)


def test_a_prior_that_cannot_edit_is_refused_before_its_weights_are_read(text_folder: Path, tmp_path: Path):
    assert not load_prior(text_folder, device="cpu").takes_image
    shutil.copytree(text_folder, tmp_path / "text")
    for weights in (tmp_path / "text").rglob("*.safetensors"):
        weights.write_text("not read")
    with pytest.raises(PriorLayoutError, match="no image input, which editing needs: use 'toy'"):
        load_prior(tmp_path / "text", device="cpu", needs_image=True)


def test_damaged_json_names_its_file(copied: Path):
    (copied / "unet/config.json").write_text("{")
    with pytest.raises(PriorLayoutError, match="unet/config.json cannot be read"):
        load_prior(copied)


def test_bad_device_and_precision_are_refused(edit_folder: Path):
    with pytest.raises((ValueError, TypeCheckError), match="fp8"):
        load_prior(edit_folder, dtype="fp8")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="device 'gpu' is unknown"):
        load_prior(edit_folder, device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="torch sees no GPU"):
            load_prior(edit_folder, device="cuda:0")


def test_a_gpu_that_is_not_there_is_refused_before_anything_is_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match=r"device 'cuda:2': torch sees 2 GPU\(s\) here, from cuda:0 on"):
        load_prior("no prior of this name", device="cuda:2")


def test_libraries_that_do_not_fit_together_are_named(edit_folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(PriorError, match=r"torch \S+, diffusers \S+, transformers \S+ do not work together.*torch25"):
        load_prior(edit_folder)
