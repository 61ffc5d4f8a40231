"""The viewer's panel: what it shows, reads, and does with mistakes."""

from typing import Any

import pytest
import torch
import viser
from nerfstudio.viewer.utils import parse_object
from nerfstudio.viewer.viewer_elements import ViewerElement

from csd_nerf.scenes.edit_options import EditPipelineConfig, Instruction
from csd_nerf.scenes.edit_session import EditSession
from csd_nerf.scenes.panel_values import with_panel_values
from csd_nerf.scenes.viewer_panel import EditPanel

OPTIONS = EditPipelineConfig(prompt="make it snow")


@pytest.mark.parametrize(
    ("wanted", "used", "complaint"),
    [
        (Instruction("new", "old", 3.0, 2.0, 7), Instruction("new", "old", 3.0, 2.0, 7), ""),
        (Instruction(" ", guidance_scale=3.0), Instruction("before", guidance_scale=3.0), "The prompt is empty: the"),
        (Instruction("new", edit_steps=0), Instruction("new"), "Not used: Edit steps 0: give at least 1; 200 is kept."),
        (
            Instruction("new", "old", -1.0, -2.0, 9),
            Instruction("new", "old", edit_steps=9),
            "Not used: Guidance -1.0: give 0 or more (3 to 15 is usual); 7.5 is kept. Not used: Image guidance -2.0",
        ),
    ],
)
def test_a_mistake_in_the_panel_does_not_end_the_run(wanted: Instruction, used: Instruction, complaint: str):
    instruction, said = with_panel_values(OPTIONS, wanted, Instruction("before"))
    assert instruction == used
    assert (complaint in said) if complaint else said == ""


def make_panel() -> EditPanel:
    return EditPanel(EditSession.begin(OPTIONS, views=4), image_guidance_scale=1.5)


def test_the_panel_shows_and_reads_the_instruction():
    panel = make_panel()
    assert panel.read() == OPTIONS.instruction()
    other = Instruction("make it night", "blur", 5.0, 2.5, 30)
    panel.show(other)
    assert panel.read() == other


def test_an_emptied_number_field_counts_as_unchanged():
    panel = make_panel()
    for field in (panel.c_guidance_scale, panel.d_image_guidance_scale, panel.e_edit_steps):
        field.default_value = ""  # as the browser sends it  # pyright: ignore[reportAttributeAccessIssue]
    assert panel.read() == OPTIONS.instruction()


def test_edit_now_says_that_it_ends_the_training_on_the_photos():
    panel = make_panel()
    assert "training on the photos ends" in panel.f_edit_now.hint
    panel.f_edit_now.cb_hook(panel.f_edit_now)
    assert panel.i_progress.content.startswith("Training on the photos ends, and a round begins, after the current")
    panel._session.phase = "edit"
    panel.f_edit_now.cb_hook(panel.f_edit_now)
    assert panel.i_progress.content.startswith("Will be done after the current")


def test_nerfstudios_viewer_finds_and_shows_the_panel(monkeypatch: pytest.MonkeyPatch):
    class Pipeline(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.csd_edit = make_panel()

    pipeline = Pipeline()
    assert list(pipeline.parameters()) == [] and pipeline.state_dict() == {}
    elements = [element for _, element in parse_object(pipeline, ViewerElement, "Custom Elements")]
    names = [element.name for element in elements]
    assert names[0] == "Prompt" and names[-1] == "Last round"
    assert {"Guidance", "Image guidance", "Edit steps", "Edit now", "Pause edits", "Restore originals"} < set(names)
    server = viser.ViserServer(port=0, verbose=False)
    limits = {}

    def add_number(label: str, value: float, *, original: Any = server.gui.add_number, **choices: Any):
        limits[label] = (choices["min"], choices["step"])
        return original(label, value, **choices)

    monkeypatch.setattr(server.gui, "add_number", add_number)
    try:
        for element in elements:
            element.install(server)
        panel = pipeline.csd_edit
        assert panel.read() == OPTIONS.instruction()
        panel.a_prompt.gui_handle.value = "typed in the browser"
        assert panel.read().prompt == "typed in the browser"
        assert limits == {"Guidance": (0, 0.1), "Image guidance": (0, 0.1), "Edit steps": (1, 1)}
        panel.say("Round 1: step 3 of 10")
        panel.show_contact_sheet(1, torch.zeros(8, 8, 3, dtype=torch.uint8))
        shown = [element._handle for element in (panel.i_progress, panel.j_contact_sheet)]
        assert shown[0] is not None and shown[0].content == "Round 1: step 3 of 10"
        assert shown[1] is not None and "data:image/jpeg" in shown[1].content
    finally:
        server.stop()
