"""Passes of a prompt: every view is told the same, whatever happens between the rounds."""

from dataclasses import replace
from typing import Any

import pytest

from csd_nerf.scenes.edit_options import EditPipelineConfig
from csd_nerf.scenes.edit_session import EditSession

CONFIG = EditPipelineConfig(prompt="x", edit_every=10, edit_batch_size=8, t_max=0.7, t_max_end=0.5)


def begin(views: int = 20, **changes: Any) -> EditSession:
    session = EditSession.begin(replace(CONFIG, **changes), views)
    session.phase = "edit"
    return session


def edit(session: EditSession, rounds: int) -> list[tuple[int, list[int]]]:
    """For each round its pass and views."""
    made = []
    for _ in range(rounds):
        made.append((session.prompt_passes, session.schedule.next_batch()))
        session.finish_round(made[-1][1], 1.0, 1)
        for _ in range(10):
            session.count_step(0.1)
    return made


def test_all_views_are_edited_in_a_pass_before_the_next():
    made = edit(begin(), 6)
    assert [number for number, _ in made] == [0, 0, 0, 1, 1, 1]
    assert sorted(view for _, views in made[:3] for view in views) == list(range(20))


def test_a_prompt_changed_in_the_middle_of_a_pass_begins_one():
    session = begin()
    edit(session, 2)
    session.use(replace(session.instruction, prompt="y"))
    made = edit(session, 4)
    assert [number for number, _ in made] == [0, 0, 0, 1]
    assert sorted(view for _, views in made[:3] for view in views) == list(range(20))
    session.use(replace(session.instruction, guidance_scale=3.0))
    assert session.prompt_passes == 1 and session.rounds_for(2) == 2, "the same prompt goes on"


@pytest.mark.parametrize(("batch", "left"), [(8, 5), (2, 17), (20, 2)])
def test_a_resumed_run_goes_on_in_its_pass_whatever_the_batch(batch: int, left: int):
    before = begin()
    edit(before, 1)  # 7 of 20 views
    session = begin(edit_batch_size=batch)
    session.restore(before.state(), keep_pause=False)
    assert session.rounds_for(2) == left, "the rest of a pass, and a whole one"
    made = edit(session, session.rounds_for(1))
    assert {number for number, _ in made} == {0} and session.prompt_passes == 1
    assert sorted(view for _, views in made for view in views) == sorted(before.schedule.remaining)


def test_a_run_resumed_with_another_prompt_begins_a_pass():
    before = begin()
    edit(before, 4)
    session = begin(prompt="y")
    session.restore(before.state(), keep_pause=False)
    assert session.prompt_passes == 0 and session.rounds_for(1) == 3


def test_checkpoints_that_count_rounds_are_read():
    before = begin()
    edit(before, 3)
    state = before.state()
    state["prompt_rounds"] = 3
    del state["prompt_views"]
    session = begin()
    session.restore(state, keep_pause=False)
    assert session.prompt_passes == 1 and session.rounds_for(2) == 3


@pytest.mark.parametrize("rounds", [0, 1, 3, 4])
@pytest.mark.parametrize("steps", [0, 4])
def test_steps_for_rounds_are_steps_in_which_they_are_made(rounds: int, steps: int):
    session = begin()
    edit(session, rounds)
    if rounds:  # a checkpoint is written right after a round
        session.finish_round(session.schedule.next_batch(), 1.0, 1)
        for _ in range(steps):
            session.count_step(0.1)
    for wanted in (1, 2, 7):
        assert session.rounds_left(session.steps_for(wanted)) == wanted
