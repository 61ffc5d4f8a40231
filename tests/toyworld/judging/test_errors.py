import numpy as np
import pytest
import torch

from csd_nerf.toyworld.judging.errors import bootstrap_interval, relative_errors, squared_errors


def flat(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.uint8)[:, None, None, None].expand(-1, 2, 2, 3)


def test_errors_of_a_kind_are_added_up_before_they_are_divided():
    sources, edited, truths = flat(0, 0, 7), flat(8, 0, 7), flat(10, 2, 7)
    assert squared_errors(edited, truths).tolist() == [48, 48, 0]  # 12 values, each off by two
    # (4 + 4) / (100 + 4); an edit that changes nothing has no relative error
    assert relative_errors(sources, edited, truths, ["a", "a", "b"]) == {"a": pytest.approx(8 / 104)}


def test_interval_of_edits_that_are_all_alike_is_a_point():
    assert bootstrap_interval(torch.full((5,), 3.0), torch.full((5,), 4.0)) == (0.75, 0.75)


def test_interval_has_the_width_that_theory_gives():
    """Equal denominators: the ratio is a mean, with a normal law of deviation s / sqrt(n)."""
    ours = torch.from_numpy(np.random.default_rng(1).normal(1.0, 0.2, 400)).clamp_min(0)
    low, high = bootstrap_interval(ours, torch.full((400,), 2.0, dtype=torch.float64))
    deviation = float(ours.std()) / 2 / 20
    middle = float(ours.mean()) / 2
    assert low == pytest.approx(middle - 1.96 * deviation, abs=0.2 * deviation)
    assert high == pytest.approx(middle + 1.96 * deviation, abs=0.2 * deviation)


@pytest.mark.parametrize("count", [0, 3])
def test_no_interval_where_nothing_changes(count: int):
    with pytest.raises(ValueError, match="at least one edit"):
        bootstrap_interval(torch.ones(count), torch.zeros(count))
