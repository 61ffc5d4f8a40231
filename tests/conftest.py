import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def make_tiny_scene(folder: Path, views: int = 12, size: int = 32) -> Path:
    """Colour gradients seen from an orbit, in nerfstudio's format: enough for everything to run, not to learn from."""
    (folder / "images").mkdir(parents=True)
    row, column = np.mgrid[0:size, 0:size] / size
    frames = []
    for view, angle in enumerate(np.linspace(0, 2 * np.pi, views, endpoint=False)):
        picture = np.stack([column, row, np.full_like(row, 0.5 + 0.5 * np.cos(angle))], axis=-1)
        name = f"images/{view:03d}.png"
        Image.fromarray((255 * picture).astype(np.uint8)).save(folder / name)
        position = np.array([2 * np.cos(angle), 2 * np.sin(angle), 0.5])
        backward = position / np.linalg.norm(position)
        right = np.cross([0.0, 0.0, 1.0], backward)
        right /= np.linalg.norm(right)
        pose = np.eye(4)
        pose[:3] = np.stack([right, np.cross(backward, right), backward, position], axis=-1)
        frames.append({"file_path": name, "transform_matrix": pose.tolist()})
    camera = {"camera_model": "OPENCV", "fl_x": 1.2 * size, "fl_y": 1.2 * size, "cx": size / 2, "cy": size / 2}
    (folder / "transforms.json").write_text(json.dumps({**camera, "w": size, "h": size, "frames": frames}))
    return folder


@pytest.fixture(scope="session")
def tiny_scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve views of 32 x 32 pixels. Read only."""
    return make_tiny_scene(tmp_path_factory.mktemp("scene") / "tiny")
