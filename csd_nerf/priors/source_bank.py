"""A bank of the network's answers about the source on the disk, see `csd_nerf.distill.banked`.

One file holds the answers of one step. It is written beside its place and then renamed, and carries a digest of what is
in it: a file that is torn, damaged or of another version is removed and counts as missing. The folder keeps to a limit;
what was not read for the longest time goes first. Several processes may share it; each may then exceed the limit by a
tenth before it sees what the others have written.
"""

import hashlib
import json
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from csd_nerf.distill.banked import Answers
from csd_nerf.distill.types import ImagePrior
from csd_nerf.whole_files import make_folder

log = logging.getLogger("csd_nerf.priors")
_FORMAT = "csd_nerf source bank 1"
_ROOM = 0.9
"""Share of the limit that is left when files have been removed."""


class SourceBank:
    """An `AnswerBank` in a folder."""

    def __init__(self, folder: Path, fingerprint: bytes, *, limit: int = 4 << 30) -> None:
        """`limit` bounds the folder, in bytes. Raises `ValueError` for a folder that cannot be made or written to."""
        make_folder(folder, "source bank")
        self.fingerprint = fingerprint
        self.hits = self.misses = 0
        """How many answers were known, and how many were not."""
        self._folder, self._limit = folder, limit
        self._size = sum(size for _, size, _ in self._files())
        self._written = 0  # since the folder was last looked through: others may have written as much
        self._told: set[str] = set()

    def read(self, key: str) -> Answers | None:
        """The answers under a key, float32; None if there are none."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                self._tell("source bank: %s cannot be read (%s); its answers are computed", path, error.strerror)
            self.misses += 1
            return None
        try:
            answers = _unpack(content, key)
        except Exception as error:  # whatever is wrong with its content, it can be computed again
            log.warning("source bank: %s is damaged (%s) and is made anew", path, error)
            _remove(path)
            self.misses += 1
            return None
        with suppress(OSError):  # another user's file: it only looks older than it is
            os.utime(path)
        self.hits += 1
        return answers

    def write(self, key: str, answers: Answers) -> None:
        """Keep answers, unless they are not finite or alone exceed the limit. That, or a full disk, is told once."""
        if not all(bool(torch.isfinite(answer).all()) for answer in answers):
            return
        content = _pack(answers, key)
        if len(content) > self._limit:
            megabytes = len(content) / 1e6
            self._tell(
                "source bank: the answers of one step are %.1f MB, more than it may hold; none are kept", megabytes
            )
            return
        path = self._path(key)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(exist_ok=True)
            temporary.write_bytes(content)
            os.replace(temporary, path)
        except OSError as error:
            self._tell("source bank: %s cannot be written (%s); answers are not kept", path, error.strerror)
            return
        finally:
            _remove(temporary)
        self._size += len(content)
        self._written += len(content)
        if self._size > self._limit or self._written > (1 - _ROOM) * self._limit:
            self._make_room()

    def _tell(self, what: str, *values: object) -> None:
        if what not in self._told:
            log.warning(what, *values)
        self._told.add(what)

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.safetensors"

    def _files(self) -> list[tuple[float, int, Path]]:
        """Time of the last reading, size and path, also of what killed processes left."""
        found = []
        for path in [*self._folder.glob("??/*.safetensors"), *self._folder.glob("??/.*.tmp")]:
            with suppress(FileNotFoundError):  # another process removed it
                about = path.stat()
                found.append((about.st_mtime, about.st_size, path))
        return found

    def _make_room(self) -> None:
        files = sorted(self._files())
        self._size, self._written = sum(size for _, size, _ in files), 0
        if self._size <= self._limit:
            return
        for _, size, path in files:
            if self._size <= _ROOM * self._limit:
                break
            if _remove(path):
                self._size -= size


@runtime_checkable
class Fingerprinted(Protocol):
    """A prior whose answers can be kept."""

    name: str

    def fingerprint(self) -> bytes:
        """A digest of all but its inputs that its answers depend on."""
        ...


def open_bank(folder: Path | None, prior: ImagePrior, gigabytes: float) -> SourceBank | None:
    """The bank of a prior's answers in `folder`, None without one.

    Raises `ValueError` for a limit that is not above 0, a folder that cannot be made, or a prior without a fingerprint.
    """
    if folder is None:
        return None
    if not 0 < gigabytes < float("inf"):
        raise ValueError(f"a limit of {gigabytes} GB: give more than 0")
    if not isinstance(prior, Fingerprinted):
        raise ValueError(f"answers of prior {prior.name!r} cannot be kept: it has no fingerprint; leave the bank out")
    return SourceBank(folder, prior.fingerprint(), limit=int(gigabytes * 1e9))


def _remove(path: Path) -> bool:
    """Remove a file; False where the folder does not let us: a disk that fails ends no edit."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _pack(answers: Answers, key: str) -> bytes:
    """As half-precision numbers where these are exactly what the network gave, else as they are."""
    from safetensors.torch import save

    tensors = {str(index): _small(answer.detach().cpu()).contiguous() for index, answer in enumerate(answers)}
    return save(tensors, {"format": _FORMAT, "key": key, "digest": _digest(tensors)})


def _unpack(content: bytes, key: str) -> Answers:
    from safetensors.torch import load

    length = int.from_bytes(content[:8], "little")
    about = json.loads(content[8 : 8 + length])["__metadata__"]
    tensors = load(content)
    if (about["format"], about["key"], about["digest"]) != (_FORMAT, key, _digest(tensors)):
        raise ValueError("its content is not what was written")
    return [tensors[str(index)].float() for index in range(len(tensors))]


def _small(answer: Tensor) -> Tensor:
    for dtype in (torch.float16, torch.bfloat16):
        half = answer.to(dtype)
        if torch.equal(half.to(answer.dtype), answer):
            return half
    return answer


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
