"""What a stage was trained from, as hashes in its checkpoint: resumed on other material it would mix two trainings."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from csd_nerf.toyworld.training.data import EditData


def of_tensor(values: Tensor) -> str:
    """Hash of a tensor's shape, type and bytes."""
    flat = values.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{tuple(flat.shape)} {flat.dtype}".encode())
    if flat.numel():
        digest.update(flat.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def of_network(network: nn.Module) -> str:
    """Hash of a network's weights."""
    weights = {name: of_tensor(value) for name, value in network.state_dict().items()}
    return _of_text(weights)


def of_data(data: EditData) -> str:
    """Hash of a data set: pictures, texts, pairs, and which of them are held out."""
    texts = [data.captions, data.instructions, data.kinds]
    return _of_text([of_tensor(data.images), of_tensor(data.pairs), of_tensor(data.held_out), *texts])


def of_files(folder: Path, names: list[str]) -> str:
    """Hash of some files of a folder."""
    return _of_text({name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names})


def check_origin(checkpoint: Path, stored: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Raise `ValueError` if a checkpoint was trained from something else; a checkpoint that does not say is taken."""
    changed = [name for name in wanted if stored.get(name, wanted[name]) != wanted[name]]
    if changed:
        raise ValueError(
            f"{checkpoint} was trained with other {', '.join(changed)} than this command has: give the flags of that "
            "training, or delete the file to train this stage anew, or choose another --output"
        )


def _of_text(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
