"""Files of a model on the Hugging Face hub, or in its local cache when the hub cannot or must not be asked."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from csd_nerf.priors.errors import PriorNotFoundError
from csd_nerf.priors.layout import INDEX, files_below

TIMEOUT = 8.0
"""Seconds to wait for the hub's first answer. One attempt: a laptop on a train should learn at once."""


@dataclass(frozen=True)
class HubModel:
    """A model that was found."""

    repository: str
    files: frozenset[str]
    """Names of its files: all of them if the hub answered, else those in the cache."""
    cached_only: bool
    """Whether it comes from the cache alone."""


def is_offline(offline: bool | None) -> bool:
    """Whether the hub must not be asked: as told, else as the environment variable HF_HUB_OFFLINE says."""
    if offline is not None:
        return offline
    return os.environ.get("HF_HUB_OFFLINE", "").strip().lower() in {"1", "on", "yes", "true"}


def find_on_hub(repository: str, *, offline: bool) -> HubModel:
    """List a model's files without fetching any. Raises `PriorNotFoundError` that says what was tried."""
    from huggingface_hub import HfApi, constants, snapshot_download

    reason = "the hub was not asked (offline)"
    if not offline:
        try:
            siblings = HfApi().model_info(repository, timeout=TIMEOUT).siblings or []
            return HubModel(repository, frozenset(file.rfilename for file in siblings), cached_only=False)
        except Exception as error:  # which HTTP library's errors these are depends on the version of huggingface_hub
            reason = f"the hub did not give it ({type(error).__name__}: {_first_line(error)})"
    try:
        folder = Path(snapshot_download(repository, allow_patterns=[INDEX], local_files_only=True))
    except Exception as error:
        raise PriorNotFoundError(
            f"hub id {repository!r}: {reason}, and it is not in the cache {constants.HF_HUB_CACHE}"
        ) from error
    return HubModel(repository, files_below(folder), cached_only=True)


def fetch(model: HubModel, files: Iterable[str]) -> Path:
    """Fetch files of a model that was found into the hub's cache, with progress bars; return its folder there."""
    from huggingface_hub import snapshot_download

    try:
        # By branch, not by commit: only then does the cache remember what an offline session should find.
        return Path(snapshot_download(model.repository, allow_patterns=list(files), local_files_only=model.cached_only))
    except Exception as error:
        raise PriorNotFoundError(
            f"hub id {model.repository!r}: the download broke off ({type(error).__name__}: {_first_line(error)}); "
            "run again to continue where it stopped"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no message").splitlines()[0]
