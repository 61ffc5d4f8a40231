import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch

from csd_nerf.priors import (
    PriorLayoutError,
    PriorNotFoundError,
    load_prior,
)
from tests.tiny_prior import answers

REPOSITORY = "timbrooks/instruct-pix2pix"
THREE_WAYS = ("toy (embedded)", "local folder in diffusers layout", "hub id")


def put_into_cache(cache: Path, source: Path) -> Path:
    commit = "0123456789abcdef0123456789abcdef01234567"
    model = cache / ("models--" + REPOSITORY.replace("/", "--"))
    shutil.copytree(source, model / "snapshots" / commit)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    return model / "snapshots" / commit


def unreachable(*_: object, **__: object) -> None:
    raise ConnectionError("Name or service not known\nmore")


def test_an_unknown_name_lists_the_three_ways(silent_hub: Path):
    for name in ("instruct-pix2pics", "./nowhere", "/no/such/folder", "~/nowhere", ""):
        with pytest.raises(PriorNotFoundError) as error:
            load_prior(name)
        assert all(way in str(error.value) for way in (repr(name), *THREE_WAYS))
    with pytest.raises(PriorNotFoundError, match="Did you mean 'instruct-pix2pix'"):
        load_prior("instruct-pix2pics")


@pytest.mark.parametrize("by_environment", [True, False])
def test_offline_never_asks_the_hub(silent_hub: Path, monkeypatch: pytest.MonkeyPatch, by_environment: bool):
    if by_environment:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(PriorNotFoundError) as error:
        load_prior("instruct-pix2pix", offline=None if by_environment else True)
    tried = (REPOSITORY, "offline", str(silent_hub))
    assert all(text in str(error.value) for text in (*tried, *THREE_WAYS))


def test_an_unreachable_hub_fails_at_once_and_says_why(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    with pytest.raises(PriorNotFoundError) as error:
        load_prior("some/model")
    message = str(error.value)
    assert "ConnectionError: Name or service not known)" in message and all(way in message for way in THREE_WAYS)


@pytest.mark.parametrize("offline", [True, False])
def test_the_cache_serves_when_the_hub_does_not(
    silent_hub: Path, edit_folder: Path, edit_prior, monkeypatch: pytest.MonkeyPatch, offline: bool
):
    if not offline:
        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    snapshot = put_into_cache(silent_hub, edit_folder)
    prior = load_prior("instruct-pix2pix", device="cpu", offline=offline)
    assert prior.name == "instruct-pix2pix"
    torch.testing.assert_close(answers(prior), answers(edit_prior))
    (snapshot / "vae/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(PriorLayoutError, match=r"(?s)vae/diffusion_pytorch_model.safetensors is missing.*connect once"):
        load_prior("instruct-pix2pix", offline=offline)


def serve(monkeypatch: pytest.MonkeyPatch, source: Path, target: Path, extra: tuple[str, ...] = ()) -> list[list[str]]:
    """A hub that answers; returns the lists of files that were asked for."""
    files = [path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()]
    asked: list[list[str]] = []

    def snapshot_download(repo_id: str, *, allow_patterns: list[str], local_files_only: bool) -> str:
        assert repo_id == REPOSITORY and not local_files_only
        asked.append(allow_patterns)
        for name in allow_patterns:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, target / name)
        return str(target)

    siblings = [SimpleNamespace(rfilename=name) for name in (*files, *extra)]
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: SimpleNamespace(siblings=siblings))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def test_only_what_is_needed_is_downloaded(tmp_path: Path, edit_folder: Path, monkeypatch: pytest.MonkeyPatch):
    unneeded = ("README.md", "instruct-pix2pix.ckpt", "safety_checker/model.safetensors",
                "unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.fp16.safetensors",
                "text_encoder/pytorch_model.bin")  # fmt: skip
    asked = serve(monkeypatch, edit_folder, tmp_path, unneeded)
    load_prior(REPOSITORY, device="cpu", offline=False)
    assert not [name for name in asked[0] if name.endswith((".safetensors", ".bin"))]
    weights = {name for name in asked[1] if name not in asked[0]}
    networks = ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model")
    assert weights == {f"{name}.safetensors" for name in networks}


def test_a_wrong_model_is_refused_before_its_weights_are_downloaded(
    tmp_path: Path, copied: Path, monkeypatch: pytest.MonkeyPatch
):
    config = json.loads((copied / "unet/config.json").read_text())
    (copied / "unet/config.json").write_text(json.dumps({**config, "in_channels": 9}))
    asked = serve(monkeypatch, copied, tmp_path / "target")
    with pytest.raises(PriorLayoutError, match="9 input channels"):
        load_prior("instruct-pix2pix", offline=False)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("vae/config.json", {"_class_name": "VQModel"}, "class VQModel"),
        ("vae/config.json", {"_class_name": "AutoencoderTiny"}, "tiny autoencoder"),
        ("scheduler/scheduler_config.json", {"prediction_type": "flow"}, "prediction_type 'flow'"),
        ("scheduler/scheduler_config.json", {"beta_schedule": None}, "beta_schedule None"),
        ("model_index.json", {"text_encoder": ["transformers", "T5EncoderModel"]}, "T5EncoderModel"),
    ],
)
def test_no_weights_are_downloaded_for_what_the_configurations_refuse(
    tmp_path: Path, copied: Path, monkeypatch: pytest.MonkeyPatch, file: str, change: dict, message: str
):
    config = json.loads((copied / file).read_text())
    (copied / file).write_text(json.dumps({**config, **change}))
    asked = serve(monkeypatch, copied, tmp_path / "target")
    with pytest.raises(PriorLayoutError, match=message):
        load_prior("instruct-pix2pix", offline=False)
    assert len(asked) == 1 and not [name for name in asked[0] if name.endswith(".safetensors")]


def test_no_weights_are_downloaded_for_a_prior_that_cannot_edit_or_a_batch_size_of_0(
    tmp_path: Path, text_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = serve(monkeypatch, text_folder, tmp_path / "target")
    with pytest.raises(PriorLayoutError, match="'timbrooks/instruct-pix2pix' has no image input"):
        load_prior(REPOSITORY, offline=False, needs_image=True)
    assert len(asked) == 1
    with pytest.raises(ValueError, match="batch_size=0"):
        load_prior(REPOSITORY, offline=False, batch_size=0)
    assert len(asked) == 1


def test_a_model_in_the_cache_that_we_cannot_run_is_no_broken_download(silent_hub: Path, copied: Path):
    """Connecting would not help."""
    config = json.loads((copied / "unet/config.json").read_text())
    (copied / "unet/config.json").write_text(json.dumps({**config, "in_channels": 9}))
    put_into_cache(silent_hub, copied)
    with pytest.raises(PriorLayoutError, match="9 input channels") as error:
        load_prior("instruct-pix2pix", offline=True)
    assert "connect once" not in str(error.value)


def test_a_download_that_breaks_off_says_so(tmp_path: Path, edit_folder: Path, monkeypatch: pytest.MonkeyPatch):
    serve(monkeypatch, edit_folder, tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(PriorNotFoundError, match="broke off.*run again to continue"):
        load_prior("instruct-pix2pix", offline=False)
