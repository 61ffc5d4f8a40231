import math

import pytest

from csd_nerf.metrics import Score


def test_mean_of_the_values():
    assert Score("a", [1.0, 2.0, 6.0], "higher").mean == 3.0


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_nothing_and_no_number_have_no_mean(values: list[float]):
    with pytest.raises(ValueError, match="^a"):
        Score("a", values, "higher")
