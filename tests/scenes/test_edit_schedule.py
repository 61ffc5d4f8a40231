import json

import pytest
import torch

from csd_nerf.scenes.edit_schedule import EditSchedule


def rounds(schedule: EditSchedule, count: int) -> list[list[int]]:
    batches = []
    for _ in range(count):
        batches.append(schedule.next_batch())
        schedule.finish_round()
    return batches


@pytest.mark.parametrize(
    ("views", "batch", "sizes"),
    [(24, 16, [12, 12]), (17, 16, [9, 8]), (16, 16, [16]), (5, 16, [5]), (1, 16, [1]), (50, 16, [13, 13, 12, 12])],
)
def test_a_pass_edits_every_view_once_in_rounds_of_equal_size(views: int, batch: int, sizes: list[int]):
    schedule = EditSchedule(views, batch, every=10, seed=3)
    assert schedule.rounds_per_pass == len(sizes)
    first, second = rounds(schedule, len(sizes)), rounds(schedule, len(sizes))
    for one_pass in (first, second):
        assert [len(part) for part in one_pass] == sizes
        assert sorted(view for part in one_pass for view in part) == list(range(views))
    assert schedule.passes == 2
    if views > 4:
        assert first != second, "each pass has an order of its own"


def test_order_and_random_numbers_follow_from_the_seed():
    schedules = [EditSchedule(20, 8, every=10, seed=seed) for seed in (1, 1, 2)]
    numbers = [torch.rand(3, generator=schedule.round_generator()).tolist() for schedule in schedules]
    orders = [rounds(schedule, 3) for schedule in schedules]
    assert orders[0] == orders[1] != orders[2]
    assert numbers[0] == numbers[1] != numbers[2]
    assert torch.rand(3, generator=schedules[0].round_generator()).tolist() != numbers[0], "each round has its own"


def test_next_batch_is_the_same_until_the_round_is_finished():
    schedule = EditSchedule(20, 8, every=10, seed=0)
    assert schedule.next_batch() == schedule.next_batch()
    assert schedule.passes == 0


def test_resuming_between_rounds_changes_nothing():
    whole = EditSchedule(20, 8, every=10, seed=5)
    expected = rounds(whole, 7)
    first = EditSchedule(20, 8, every=10, seed=5)
    done = rounds(first, 4)
    second = EditSchedule(20, 8, every=10, seed=5)
    second.restore(json.loads(json.dumps(first.state())))
    assert done + rounds(second, 3) == expected


def test_rounds_are_due_by_a_counter_of_their_own():
    schedule = EditSchedule(4, 4, every=3, seed=0)
    assert schedule.due, "editing begins with a round"
    schedule.finish_round()
    due = []
    for _ in range(3):
        schedule.steps_since_round += 1
        due.append(schedule.due)
    assert due == [False, False, True]
    schedule.finish_round()
    assert not schedule.due
    schedule.requested = True
    assert schedule.due


def test_a_new_pass_can_begin_early():
    schedule = EditSchedule(10, 5, every=1, seed=0)
    rounds(schedule, 1)
    schedule.new_pass()
    assert sorted(view for part in rounds(schedule, 2) for view in part) == list(range(10))


def test_state_of_another_scene_is_refused():
    schedule = EditSchedule(10, 5, every=1, seed=0)
    with pytest.raises(ValueError, match="10 training views, the data now has 12"):
        EditSchedule(12, 5, every=1, seed=0).restore(schedule.state())
