"""A data set of random pictures and networks that are only just there."""

import numpy as np
import pytest
import torch

from csd_nerf.toyworld.training import TrainingSettings
from csd_nerf.toyworld.training.settings import SIZES, NetworkSize

TINY = NetworkSize(
    image_size=32,
    autoencoder_channels=(8, 8, 8),
    autoencoder_layers=1,
    denoiser_channels=(16, 16),
    denoiser_layers=1,
    attention_heads=2,
    text_width=16,
    text_layers=1,
    text_length=12,
)


@pytest.fixture
def one_thread_and_tiny_networks(monkeypatch):
    monkeypatch.setitem(SIZES, "cpu", TINY)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def data_folder(tmp_path):
    random = np.random.default_rng(0)
    folder = tmp_path / "data"
    folder.mkdir()
    for index in range(2):
        count = 8
        np.savez(
            folder / f"{index:05d}.npz",
            images=random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8),
            captions=np.array([f"a red teapot number {i}" for i in range(count)]),
            pairs=np.array([(0, i) for i in range(1, count)], dtype=np.int32),
            instructions=np.array(["make it red", "let it snow"] * 3 + ["make it red"]),
            kinds=np.array(["recolour", "snow"] * 3 + ["recolour"]),
        )
    (folder / "DONE").touch()
    return folder


@pytest.fixture
def settings(tmp_path, data_folder):
    return TrainingSettings(
        output=tmp_path / "run",
        data=data_folder,
        autoencoder_minutes=0.01,
        denoiser_minutes=0.01,
        autoencoder_batch=4,
        denoiser_batch=4,
        log_every=1,
        held_out=0.3,
        autoencoder_rate=1e-3,
    )
