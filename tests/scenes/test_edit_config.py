"""Flags, defaults, and the viewer's panel."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
import torch
import viser
import yaml
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.viewer.utils import parse_object
from nerfstudio.viewer.viewer_elements import ViewerElement

from csd_nerf.scenes.edit_config import edit_config, lite_config
from csd_nerf.scenes.edit_options import EditPipelineConfig, Instruction, with_panel_values
from csd_nerf.scenes.edit_session import EditSession
from csd_nerf.scenes.viewer_panel import EditPanel

OPTIONS = EditPipelineConfig(prompt="make it snow")


def test_defaults_are_the_papers():
    """CSD Section C and C.3."""
    config = edit_config()
    options, settings = config.pipeline, config.pipeline.settings().resolved()
    assert (options.scene_steps, options.edit_every, options.edit_batch_size) == (30000, 2000, 16)
    assert (settings.t_min, settings.t_max) == (0.2, 0.5)
    assert 3 <= settings.guidance_scale <= 15
    assert settings.image_guidance_scale is not None and 1.5 <= settings.image_guidance_scale <= 5
    assert options.prior == "instruct-pix2pix" and options.edit_init == "render"


def test_csd_edit_loads_nerfstudios_own_nerfacto_checkpoints():
    from nerfstudio.configs.method_configs import method_configs

    nerfacto = method_configs["nerfacto"]
    assert isinstance(nerfacto, TrainerConfig)
    assert edit_config().pipeline.model == nerfacto.pipeline.model


def test_lite_is_a_small_variant_of_the_same_configuration():
    full, lite = edit_config(), lite_config()
    assert lite.method_name == "csd-edit-lite" and lite.pipeline.prior == "toy"
    assert lite.pipeline.model.num_levels < full.pipeline.model.num_levels
    assert lite.pipeline.datamanager.view_size is not None
    changed = {
        f.name for f in fields(full.pipeline) if getattr(full.pipeline, f.name) != getattr(lite.pipeline, f.name)
    }
    assert changed == {
        "datamanager", "model", "prior", "prior_batch_size", "edit_every", "edit_steps", "scene_steps",
        "guidance_scale", "t_max",
    }  # fmt: skip
    assert edit_config().pipeline == full.pipeline, "making the variant leaves the original alone"


def test_every_flag_has_a_help_text():
    from tyro.extras import get_parser

    text = " ".join(re.sub("[│─╭╮╰╯]", " ", get_parser(EditPipelineConfig).format_help()).split())
    for field in fields(EditPipelineConfig):
        if field.name not in ("_target", "datamanager", "model"):
            assert f"--{field.name.replace('_', '-')}" in text
    assert "Not used when --load-dir gives a trained scene" in text


def test_a_configuration_survives_its_file(tmp_path: Path):
    path = tmp_path / "config.yml"
    path.write_text(yaml.dump(lite_config()))
    assert yaml.load(path.read_text(), Loader=yaml.Loader) == lite_config()


@pytest.mark.parametrize(
    ("wanted", "used", "complaint"),
    [
        (Instruction("new", "old", 3.0, 2.0, 7), Instruction("new", "old", 3.0, 2.0, 7), ""),
        (Instruction(" ", guidance_scale=3.0), Instruction("before", guidance_scale=3.0), "prompt is empty"),
        (Instruction("new", edit_steps=0), Instruction("before"), "Not used: steps=0"),
        (Instruction("new", guidance_scale=-1.0), Instruction("before"), "Not used: guidance_scale=-1.0"),
    ],
)
def test_a_mistake_in_the_panel_does_not_end_the_run(wanted: Instruction, used: Instruction, complaint: str):
    instruction, said = with_panel_values(OPTIONS, wanted, Instruction("before"))
    assert instruction == used and said.startswith(complaint) if not complaint else complaint in said


def make_panel() -> EditPanel:
    return EditPanel(EditSession.begin(OPTIONS, views=4), image_guidance_scale=1.5)


def test_the_panel_shows_and_reads_the_instruction():
    panel = make_panel()
    assert panel.read() == OPTIONS.instruction()
    other = Instruction("make it night", "blur", 5.0, 2.5, 30)
    panel.show(other)
    assert panel.read() == other


def test_nerfstudios_viewer_finds_and_shows_the_panel():
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
    try:
        for element in elements:
            element.install(server)
        panel = pipeline.csd_edit
        assert panel.read() == OPTIONS.instruction()
        panel.a_prompt.gui_handle.value = "typed in the browser"
        assert panel.read().prompt == "typed in the browser"
        panel.say("Round 1: step 3 of 10")
        panel.show_contact_sheet(1, torch.zeros(8, 8, 3, dtype=torch.uint8))
        shown = [element._handle for element in (panel.i_progress, panel.j_contact_sheet)]
        assert shown[0] is not None and shown[0].content == "Round 1: step 3 of 10"
        assert shown[1] is not None and "data:image/jpeg" in shown[1].content
    finally:
        server.stop()
