"""The account of tensors' memory, against sizes that are known."""

import torch

from csd_nerf.bench.allocations import TensorMemory


def test_what_lives_at_the_same_time_counts_and_what_was_there_before_does_not():
    before = torch.ones(1000)
    with TensorMemory() as memory:
        one = before + 1
        view = before[10:]
        two = one * 2
        del one
        three = two + 1
        assert memory.live == 8000
        two.add_(three)
    assert memory.peak == 8000 and memory.largest == 4000 and len(view) == 990


def test_temporaries_of_one_expression_are_seen():
    x = torch.ones(100)
    with TensorMemory() as memory:
        y = (x + 1) * (x + 2)
    assert memory.peak == 1200 and memory.live == 400 and y.numel() == 100


def test_a_large_intermediate_is_found():
    x = torch.ones(8, 32)
    with TensorMemory() as memory:
        total = (x[:, None] - x[None, :]).square().sum()
    assert memory.largest == 8 * 8 * 32 * 4 and memory.peak == 2 * memory.largest and float(total) == 0
