"""LPIPS as the distance of the kernel between views (CSD D.2)."""

import socket

import torch

from csd_nerf.distill.kernels import EmbeddingKernel
from csd_nerf.scenes.compatibility import DOWNLOAD_TIMEOUT
from csd_nerf.scenes.terminal import say


def perceptual_kernel(device: torch.device) -> EmbeddingKernel:
    """The kernel `exp(-LPIPS(x, y)^2 / h)`, h = med^2 / log N; with ST-LPIPS where LPIPS cannot be had, and said."""
    from csd_nerf.perceptual_networks import load_perceptual_network

    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        network = load_perceptual_network("auto", device)
    finally:
        socket.setdefaulttimeout(timeout)
    if network.name != "LPIPS":
        say(f"The kernel between views compares them by {network.name} ({network.note}).")
    return EmbeddingKernel(network.embed)
