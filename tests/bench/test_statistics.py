"""Bootstrap intervals against values that are known without drawing."""

import numpy as np
import pytest

from csd_nerf.bench.statistics import (
    Interval,
    bootstrap,
    bootstrap_sets,
    by_scene,
    mean_of,
    mean_of_pairs,
    paired_difference,
)


def test_interval_of_many_scenes_is_that_of_the_normal_distribution():
    """mean +- 1.96 sd / sqrt(n), by the central limit theorem."""
    values = np.random.default_rng(3).normal(5.0, 2.0, 400).tolist()
    found = bootstrap(values)
    assert found.low is not None and found.high is not None
    half = 1.96 * np.std(values) / 20
    assert found.mean == pytest.approx(np.mean(values))
    assert found.low == pytest.approx(found.mean - half, abs=0.02)
    assert found.high == pytest.approx(found.mean + half, abs=0.02)


def test_interval_of_two_scenes_is_their_range():
    """Both are drawn twice a quarter of the time each, so that the 2.5 % quantiles are the values themselves."""
    assert bootstrap([1.0, 3.0]) == Interval(2.0, 1.0, 3.0, 2)


def test_one_scene_has_no_interval_and_none_no_mean():
    assert bootstrap([4.0]) == Interval(4.0, None, None, 1)
    with pytest.raises(ValueError, match="nothing to average"):
        bootstrap([])


def test_equal_values_have_no_width_and_draws_repeat():
    assert bootstrap([2.0] * 5) == Interval(2.0, 2.0, 2.0, 5)
    values = np.random.default_rng(0).normal(size=20).tolist()
    assert bootstrap(values) == bootstrap(values)
    assert bootstrap(values, seed=1) != bootstrap(values, seed=2)


def test_a_scene_counts_once_however_many_cells_it_has():
    values = {(1, "hat", 0): 1.0, (1, "hat", 1): 3.0, (1, "colour", 0): 5.0, (2, "hat", 0): 11.0}
    assert by_scene(values) == {1: 3.0, 2: 11.0}


def test_paired_differences_leave_the_scenes_out():
    """Scenes differ by ten, methods by one in each."""
    ours = {(scene, "hat", 0): 10.0 * scene + 1 for scene in range(6)}
    theirs = {(scene, "hat", 0): 10.0 * scene for scene in range(1, 9)}
    assert paired_difference(ours, theirs) == Interval(1.0, 1.0, 1.0, 5)
    assert paired_difference(ours, {(77, "hat", 0): 1.0}) is None


def test_one_training_has_the_interval_of_its_members():
    """The same draws as those of `bootstrap`."""
    values = np.random.default_rng(1).normal(size=30).tolist()
    found, expected = bootstrap_sets([mean_of(values)], 30, resamples=500), bootstrap(values, resamples=500)
    assert (found.mean, found.low, found.high) == pytest.approx((expected.mean, expected.low, expected.high))


def test_several_trainings_are_drawn_anew():
    """Members that are all alike leave the trainings' spread: of two, both are drawn twice a quarter of the time."""
    assert bootstrap_sets([mean_of([1.0] * 4), mean_of([3.0] * 4)], 4) == Interval(2.0, 1.0, 3.0, 4)
    members = np.random.default_rng(2).normal(size=40)
    one = bootstrap_sets([mean_of(members.tolist())], 40)
    shifted = bootstrap_sets([mean_of((members + by).tolist()) for by in (-1.0, 0.0, 1.0)], 40)
    assert None not in (one.low, one.high, shifted.low, shifted.high)
    assert shifted.mean == pytest.approx(one.mean)
    assert shifted.high - shifted.low > 1 + one.high - one.low  # pyright: ignore[reportOperatorIssue]


def test_pairs_of_a_member_with_itself_do_not_count():
    """All distances alike: no draw may bring them down. Distances |a_i - a_j|: the mean of them without weights."""
    same = 5.0 * (1 - np.eye(6))
    found = bootstrap_sets([mean_of_pairs(same)], 6)
    assert (found.mean, found.low, found.high) == pytest.approx((5.0, 5.0, 5.0))
    assert bootstrap_sets([mean_of_pairs(same[:2, :2])], 2) == Interval(5.0, 5.0, 5.0, 2), "half the draws have no pair"
    places = np.random.default_rng(0).normal(size=7)
    matrix = abs(places[:, None] - places)
    assert mean_of_pairs(matrix)(np.ones((1, 7)))[0] == pytest.approx(matrix[np.triu_indices(7, 1)].mean())
    weighed = mean_of_pairs(matrix)(np.array([[2.0, 1, 0, 0, 0, 0, 0]]))[0]
    assert weighed == pytest.approx(matrix[0, 1]), "0 with 1 twice, 0 with itself not"


def test_a_single_member_has_no_interval_and_no_training_no_mean():
    assert bootstrap_sets([mean_of([4.0])], 1) == Interval(4.0, None, None, 1)
    with pytest.raises(ValueError, match="nothing to average"):
        bootstrap_sets([], 3)
