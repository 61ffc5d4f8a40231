"""A captured network answers as the network does."""

from pathlib import Path

import pytest
import torch

from csd_nerf.priors import load_prior
from csd_nerf.priors.cuda_graphs import CudaGraphs
from tests.tiny_prior import answers


def test_networks_elsewhere_are_refused(edit_folder: Path):
    prior = load_prior(edit_folder, device="cpu")
    with pytest.raises(ValueError, match="on a CUDA device; it is on cpu"):
        CudaGraphs(prior.unet)


def test_another_form_of_the_network_is_called_in_its_place_and_counted_alike(edit_folder: Path):
    prior = load_prior(edit_folder, device="cpu")
    seen = []

    def network(*arguments: object, **options: object) -> object:
        seen.append(arguments)
        return prior.unet(*arguments, **options)

    other = prior.through(network)
    expected, _ = answers(prior)
    before = other.samples
    found, _ = answers(other)
    assert torch.equal(found, expected) and len(seen) == 1 and other.samples == before + 1


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_replayed_answers_are_those_of_the_network(edit_folder: Path, dtype):
    prior = load_prior(edit_folder, device="cuda", dtype=dtype)
    graphs = CudaGraphs(prior.unet, shapes=2)
    captured = prior.through(graphs)
    for rows in (1, 4, 2, 4, 1):  # more shapes than are kept
        x = torch.randn(rows, 4, 8, 8)
        text = prior.encode_text(["make it red"] * rows)
        for t in (20, 900):
            from csd_nerf.distill import Condition

            expected = prior.predict_noise(x, torch.tensor(t), Condition(text))
            torch.testing.assert_close(captured.predict_noise(x, torch.tensor(t), Condition(text)), expected)
