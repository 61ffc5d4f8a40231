"""A CLIP model of a few thousand random weights, as a local file, since no real one can be had everywhere."""

import json
from pathlib import Path

import torch

NAME = "tiny-for-tests"
_CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def make_tiny_clip(folder: Path) -> Path:
    """Make the model known to open_clip as NAME; returns its file of weights."""
    import open_clip

    (folder / f"{NAME}.json").write_text(json.dumps(_CONFIG))
    open_clip.add_model_config(folder / f"{NAME}.json")
    torch.manual_seed(0)
    model = open_clip.create_model(NAME)
    torch.save(model.state_dict(), folder / "tiny.pt")
    return folder / "tiny.pt"
