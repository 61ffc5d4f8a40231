import shutil
from copy import deepcopy
from pathlib import Path

import huggingface_hub.constants
import pytest

from csd_nerf.priors import LatentDiffusionPrior, load_prior
from tests.tiny_prior import make_tiny_prior


@pytest.fixture(scope="session")
def edit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny InstructPix2Pix. Read only."""
    return make_tiny_prior(tmp_path_factory.mktemp("edit"), in_channels=8, factor=4)


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny text-to-image model. Read only."""
    return make_tiny_prior(tmp_path_factory.mktemp("text"), in_channels=4, factor=8)


@pytest.fixture(scope="session")
def loaded_priors(edit_folder: Path, text_folder: Path) -> tuple[LatentDiffusionPrior, LatentDiffusionPrior]:
    edit, text = load_prior(edit_folder, device="cpu"), load_prior(text_folder, device="cpu")
    assert isinstance(edit, LatentDiffusionPrior) and isinstance(text, LatentDiffusionPrior)
    return edit, text


def fresh(prior: LatentDiffusionPrior) -> LatentDiffusionPrior:
    """A copy with its own networks, counters and cache; its tokenizer is shared, as it would not survive."""
    tokenizer = prior.text_encoder.tokenizer
    return deepcopy(prior, {id(tokenizer): tokenizer})


@pytest.fixture
def edit_prior(loaded_priors: tuple[LatentDiffusionPrior, LatentDiffusionPrior]) -> LatentDiffusionPrior:
    return fresh(loaded_priors[0])


@pytest.fixture
def text_prior(loaded_priors: tuple[LatentDiffusionPrior, LatentDiffusionPrior]) -> LatentDiffusionPrior:
    return fresh(loaded_priors[1])


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache."""
    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setenv("HF_HUB_CACHE", str(folder))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return folder


@pytest.fixture
def silent_hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and a hub that must not be asked."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", never)
    return cache


@pytest.fixture
def copied(tmp_path: Path, edit_folder: Path) -> Path:
    """The tiny InstructPix2Pix, to be damaged."""
    return Path(shutil.copytree(edit_folder, tmp_path / "copied"))
