"""Flags and defaults."""

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from nerfstudio.engine.trainer import TrainerConfig

from csd_nerf.scenes.edit_config import edit_config, lite_config
from csd_nerf.scenes.edit_options import EditPipelineConfig, with_flags
from csd_nerf.scenes.edit_trainer import EditTrainerConfig


def test_defaults_are_the_papers():
    """CSD Section C and C.3."""
    config = edit_config()
    options, settings = config.pipeline, config.pipeline.settings().resolved()
    pace = options.pace()
    assert (options.scene_steps, pace.edit_every, pace.edit_batch_size, pace.edit_steps) == (30000, 2000, 16, 200)
    assert (settings.t_min, settings.t_max) == (0.2, 0.5)
    assert options.settings(passes=100).resolved() == settings, "the noise range stays"
    assert 3 <= settings.guidance_scale <= 15
    assert settings.image_guidance_scale is not None and 1.5 <= settings.image_guidance_scale <= 5
    assert options.prior == "instruct-pix2pix" and options.edit_init == "render"


@pytest.mark.parametrize("config", [edit_config(), lite_config()], ids=["full", "lite"])
def test_views_of_a_scene_have_noise_of_their_own(config: EditTrainerConfig):
    """Unless a flag or another preset says otherwise."""

    def noise(**flags: Any) -> str | None:
        return replace(config.pipeline, **flags).settings().resolved().noise

    assert noise() == noise(editor="no-svgd") == noise(preset="released") == "independent"
    assert noise(preset="paper") == noise(noise="shared") == noise(editor="ip2p") == "shared"
    assert noise(preset="paper", noise="independent") == "independent"


@pytest.mark.parametrize("config", [edit_config(), lite_config()], ids=["full", "lite"])
def test_the_detail_of_what_is_unchanged_is_kept_but_not_in_the_papers(config: EditTrainerConfig):
    def detail(**flags: Any) -> float | None:
        return replace(config.pipeline, **flags).settings().resolved().keep_detail

    assert detail() == detail(editor="in2n") == 0.1
    assert detail(preset="paper") == detail(preset="released") == detail(keep_detail=0.0) == 0.0
    assert detail(preset="paper", keep_detail=0.3) == 0.3


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
        "datamanager", "model", "prior", "rhythm", "scene_steps",
        "guidance_scale", "guidance_first", "t_min_first", "method_t_max", "t_max_end", "view_dependence",
    }  # fmt: skip
    assert edit_config().pipeline == full.pipeline, "making the variant leaves the original alone"


def test_the_highest_noise_level_falls_evenly_over_the_passes_of_a_prompt():
    options = EditPipelineConfig(t_max=0.9, t_max_end=0.3, t_max_passes=4)
    levels = [options.settings(passes=passes).t_max for passes in range(6)]
    assert levels == pytest.approx([0.9, 0.7, 0.5, 0.3, 0.3, 0.3])
    assert EditPipelineConfig(t_max_end=0.4).settings().t_max == 0.5, "from the preset's"
    assert EditPipelineConfig(t_max_end=0.4, t_max_passes=1).settings().t_max == 0.4


def test_the_lowest_noise_level_falls_evenly_too():
    options = EditPipelineConfig(t_min=0.2, t_min_first=0.5, t_max=0.7, t_max_end=0.5, t_max_passes=4)
    used = [options.settings(passes=passes) for passes in range(6)]
    assert [one.t_min for one in used] == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.2, 0.2])
    assert [one.t_max for one in used] == pytest.approx([0.7, 0.7 - 0.2 / 3, 0.7 - 0.4 / 3, 0.5, 0.5, 0.5])
    assert EditPipelineConfig(t_min_first=0.4, t_max_passes=2).settings(passes=1).t_min == 0.2, "to the preset's"
    assert EditPipelineConfig(editor="in2n", t_min_first=0.4).settings().t_min is None


@pytest.mark.parametrize("level", [0.2, 0.3, 0.45])
def test_levels_may_fall_to_a_single_one(level: float):
    """0.5 + (0.2 - 0.5) is more than 0.98 + (0.2 - 0.98) in floating point."""
    options = EditPipelineConfig(prompt="x", t_min=level, t_min_first=0.5, t_max=0.98, t_max_end=level)
    options.check()
    for passes in range(3):
        options.settings(passes=passes).validate()
    assert options.settings(passes=1).t_min == options.settings(passes=1).t_max == level


def test_the_guidance_of_the_first_pass_falls_evenly_to_that_which_was_asked_for():
    options = EditPipelineConfig(guidance_scale=3.0, guidance_first=2.0, t_max_passes=4)
    scales = [options.settings(passes=passes).guidance_scale for passes in range(6)]
    assert scales == pytest.approx([6.0, 5.0, 4.0, 3.0, 3.0, 3.0])
    assert replace(options, t_max_passes=1).settings().guidance_scale == 3.0
    for editor in ("in2n", "ip2p"):
        assert replace(options, editor=editor).settings().guidance_scale == 3.0


def test_every_flag_has_a_help_text():
    from tyro.extras import get_parser

    text = " ".join(re.sub("[│─╭╮╰╯]", " ", get_parser(EditPipelineConfig).format_help()).split())
    for field in fields(EditPipelineConfig):
        if field.name not in ("_target", "datamanager", "model", "rhythm", "method_t_max"):
            assert f"--{field.name.replace('_', '-')}" in text
    assert "Not used when --load-dir gives a trained scene" in text


def test_a_configuration_survives_its_file(tmp_path: Path):
    path = tmp_path / "config.yml"
    path.write_text(yaml.dump(lite_config()))
    assert yaml.load(path.read_text(), Loader=yaml.Loader) == lite_config()


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("t_min=0.8 is above t_max=0.2: swap them", "--pipeline.t-min 0.8 is above --pipeline.t-max 0.2: swap them"),
        ("steps=0: give at least 1", "--pipeline.edit-steps 0: give at least 1"),
        ("something=1, a == b, t_max = 3", "something=1, a == b, t_max = 3"),
    ],
)
def test_errors_of_the_core_name_flags(message: str, said: str):
    assert with_flags(message) == said
