"""What a DeepFloyd folder must hold, and what is said where it does not."""

# pyright: reportPrivateImportUsage=false
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from csd_nerf.priors import DeepFloydPrior, PriorError, PriorLayoutError, PriorNotFoundError, load_prior
from tests.tiny_deepfloyd import make_tiny_deepfloyd
from tests.tiny_prior import make_tiny_prior

PROMPT = " A Photo of the RED cube "


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only."""
    return make_tiny_deepfloyd(tmp_path_factory.mktemp("deepfloyd") / "tiny")


@pytest.fixture
def copied(tmp_path: Path, folder: Path) -> Path:
    """To be damaged."""
    return Path(shutil.copytree(folder, tmp_path / "copied"))


@pytest.fixture
def prior(folder: Path) -> DeepFloydPrior:
    return load(folder)


def load(folder: Path, **options: Any) -> DeepFloydPrior:
    prior = load_prior(folder, device="cpu", **options)
    assert isinstance(prior, DeepFloydPrior)
    return prior


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("unet/diffusion_pytorch_model.safetensors", "not a pixel diffusion model.*\n.*diffusion_pytorch_model"),
        ("unet/config.json", "not a pixel diffusion model.*\n  - unet/config.json is missing$"),
        ("text_encoder/model.safetensors", "text_encoder/model.safetensors is missing"),
        ("tokenizer/tokenizer.json", r"tokenizer/tokenizer.json \(or tokenizer/spiece.model\) is missing"),
        ("scheduler/scheduler_config.json", "scheduler/scheduler_config.json is missing"),
    ],
)
def test_a_folder_without_a_part_names_it(copied: Path, missing: str, message: str):
    (copied / missing).unlink()
    with pytest.raises(PriorLayoutError, match=message):
        load_prior(copied)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("unet/config.json", {"in_channels": 6, "class_embed_type": "timestep"}, "6 input and 6 .*stage I,"),
        ("unet/config.json", {"out_channels": 4}, "3 input and 4 output channels"),
        ("unet/config.json", {"sample_size": None}, "sample_size"),
        ("unet/config.json", {"encoder_hid_dim": 4096}, "gives 12 numbers per token .*network takes 4096"),
        ("model_index.json", {"text_encoder": ["transformers", "CLIPTextModel"]}, "no vae/config.json .*CLIPTextModel"),
        ("scheduler/scheduler_config.json", {"prediction_type": "flow"}, "prediction_type 'flow'"),
        ("scheduler/scheduler_config.json", {"beta_schedule": None}, "beta_schedule None"),
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


def test_an_edit_is_refused_before_weights_are_read(copied: Path):
    for weights in copied.rglob("*.safetensors"):
        weights.write_text("not read")
    with pytest.raises(PriorLayoutError, match="has no image input, which editing needs: use 'toy'"):
        load_prior(copied, needs_image=True)


def test_a_latent_model_without_its_autoencoder_is_not_taken_for_one_of_pixels(tmp_path: Path):
    folder = make_tiny_prior(tmp_path / "latent", in_channels=4)
    shutil.rmtree(folder / "vae")
    with pytest.raises(PriorLayoutError, match="latent diffusion model.*\n.*vae/config.json is missing"):
        load_prior(folder)


def test_split_weights_of_a_variant(copied: Path, prior: DeepFloydPrior):
    """As DeepFloyd's text encoder is stored: model.fp16-00001-of-00002.safetensors."""
    whole = copied / "text_encoder/model.safetensors"
    state = load_file(whole)
    keys = sorted(state)
    for number, part in enumerate((keys[:9], keys[9:]), start=1):
        piece = copied / f"text_encoder/model.fp16-0000{number}-of-00002.safetensors"
        save_file({key: state[key] for key in part}, piece)
    (copied / "text_encoder/model.safetensors.index.fp16.json").write_text("{}")
    whole.unlink()
    with pytest.raises(PriorLayoutError, match=r"there is model\.fp16\.safetensors: load with variant='fp16'\)"):
        load_prior(copied)
    torch.testing.assert_close(load(copied, variant="fp16").encode_text([PROMPT]), prior.encode_text([PROMPT]))
    (copied / "text_encoder/model.fp16-00001-of-00002.safetensors").unlink()
    with pytest.raises(PriorLayoutError, match="text_encoder/model.safetensors is missing"):
        load_prior(copied, variant="fp16")


@pytest.mark.parametrize("kept", ["shared.weight", "encoder.embed_tokens.weight"])
def test_the_embedding_is_found_under_either_name(copied: Path, prior: DeepFloydPrior, kept: str):
    file = copied / "text_encoder/model.safetensors"
    state = load_file(file)
    names = {"shared.weight", "encoder.embed_tokens.weight"}
    embedding = state[next(name for name in names if name in state)]
    save_file({**{name: value for name, value in state.items() if name not in names}, kept: embedding}, file)
    torch.testing.assert_close(load(copied).encode_text([PROMPT]), prior.encode_text([PROMPT]))


def test_missing_weights_are_named(copied: Path):
    file = copied / "text_encoder/model.safetensors"
    state = load_file(file)
    state.pop("encoder.final_layer_norm.weight")
    save_file(state, file)
    with pytest.raises(PriorLayoutError, match=r"no weights for encoder.final_layer_norm.weight"):
        load_prior(copied)


def test_a_tokenizer_that_needs_sentencepiece_says_what_to_install(copied: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    (copied / "tokenizer/spiece.model").write_bytes(b"\n")
    assert load(copied).encode_text([PROMPT]).shape == (1, 77, 12), "tokenizer.json is enough"
    (copied / "tokenizer/tokenizer.json").unlink()
    with pytest.raises(PriorError, match=r"spiece.model .*pip install 'csd_nerf\[deepfloyd\]' .*sentencepiece"):
        load_prior(copied)


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_damaged_weights_name_their_folder(copied: Path, part: str):
    next((copied / part).glob("*.safetensors")).write_text("version https://git-lfs.github.com/spec/v1\n" * 3)
    with pytest.raises(PriorLayoutError, match=rf"{part} cannot be loaded .*git-lfs"):
        load_prior(copied)


def test_by_name_it_comes_from_the_hub_and_the_licence_is_mentioned(cache: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    def gated(_: object, repository: str, **__: object) -> None:
        asked.append(repository)
        raise PermissionError("401 Client Error: gated")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", gated)
    with pytest.raises(PriorNotFoundError, match="401 Client Error.*\n.*accept their licence on https.*hf auth login"):
        load_prior("deepfloyd")
    assert asked == ["DeepFloyd/IF-I-XL-v1.0"]


def test_a_sentencepiece_tokenizer_is_read_where_the_package_is(copied: Path, tmp_path: Path):
    """All that the hub's DeepFloyd has."""
    sentencepiece = pytest.importorskip("sentencepiece")
    (tmp_path / "text").write_text("a photo of the red cube\nthe blue hat of a cube\nsnow\n" * 20)
    files = {"input": str(tmp_path / "text"), "model_prefix": str(tmp_path / "spiece")}
    size = {"vocab_size": 30, "hard_vocab_limit": False, "model_type": "unigram", "minloglevel": 2}
    special = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    sentencepiece.SentencePieceTrainer.train(**files, **size, **special)
    shutil.copy(tmp_path / "spiece.model", copied / "tokenizer/spiece.model")
    (copied / "tokenizer/tokenizer.json").unlink()
    tokenizer = load(copied).text_encoder.tokenizer
    expected = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "spiece.model")).encode("the red hat")
    assert tokenizer("the red hat")["input_ids"] == [*expected, 1]
