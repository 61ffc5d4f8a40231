import shlex
from pathlib import Path
from typing import Any

import pytest

from csd_nerf.scenes.edit_options import EditPipelineConfig
from csd_nerf.scenes.edit_session import EditSession
from csd_nerf.scenes.run_summary import announce, summarize
from csd_nerf.scenes.terminal import RoundProgress, say
from tests.scenes.edit_fixtures import NegativePrior


def commands(said: str) -> dict[str, list[str]]:
    lines = [shlex.split(line) for line in said.splitlines() if line.startswith("  ns-")]
    return {" ".join(words[:2]) if words[0] == "ns-render" else words[0]: words for words in lines}


@pytest.mark.parametrize(
    ("views", "held_out", "offered"),
    [
        (1, 0, {"ns-viewer"}),
        (9, 0, {"ns-viewer", "ns-render interpolate"}),
        (18, 2, {"ns-viewer", "ns-render interpolate", "ns-render spiral"}),
    ],
)
def test_commands_that_work_for_the_scene(
    views: int, held_out: int, offered: set[str], capsys: pytest.CaptureFixture[str]
):
    run = Path("/out puts/[a] 'b'")
    session = EditSession.begin(EditPipelineConfig(prompt="x"), views)
    summarize(session, run, run / "scene/step-000000001.ckpt", held_out)
    said = capsys.readouterr().out
    assert commands(said).keys() == offered
    assert all(str(run / "config.yml") in words for words in commands(said).values()), "quoted for the shell"
    assert f"--load-dir {shlex.quote(str(run / 'scene'))}" in said


@pytest.mark.parametrize(
    ("steps", "editor", "told"), [(30, "csd-edit", True), (40, "csd-edit", False), (30, "in2n", False)]
)
def test_a_run_that_ends_in_its_first_pass_says_how_long_it_should_be(
    steps: int, editor: Any, told: bool, capsys: pytest.CaptureFixture[str]
):
    config = EditPipelineConfig(prompt="x", editor=editor, edit_every=10, edit_batch_size=8, t_max=0.7, t_max_end=0.5)
    session = EditSession.begin(config, views=12)
    announce("csd-edit", config, session, NegativePrior(), steps)
    assert ("2 passes end after 4 more rounds. With 3 " in (said := capsys.readouterr().out)) == told
    assert ("--max-num-iterations 40 makes them all" in said) == told


def test_brackets_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]):
    say("csd_nerf[torch25] [a] [/b] [bold]x[/]")
    with RoundProgress("Round [1]", lambda text: None) as progress:
        progress.update(1, 2)
    assert capsys.readouterr().out == "csd_nerf[torch25] [a] [/b] [bold]x[/]\n"
