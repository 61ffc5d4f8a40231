"""`--pipeline.editor`: every editor edits a scene, at the price that is recorded, and says what it cannot do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor

from csd_nerf.distill import EDITORS, Condition, Editor, ImageTextGuidance, SharedNoise, Target
from csd_nerf.priors import sample
from csd_nerf.scenes.contact_sheet import to_uint8
from csd_nerf.scenes.edit_config import edit_config, lite_config
from csd_nerf.scenes.edit_options import EditPipelineConfig, Instruction
from csd_nerf.scenes.edit_trainer import EditTrainerConfig
from csd_nerf.scenes.errors import SceneError
from csd_nerf.scenes.files import read_picture
from csd_nerf.scenes.panel_values import with_panel_values
from csd_nerf.scenes.run import EditRun
from tests.scenes.edit_fixtures import NegativePrior, make_trainer, same_edits, same_weights, tiny_run

SAMPLES: dict[Editor, int] = {"csd-edit": 5, "no-svgd": 5, "random-noise": 3, "sds": 3, "dds": 4, "ip2p": 3, "in2n": 3}
"""Network samples for one view and step."""


class CountedPrior(NegativePrior):
    """Counts the rows of its network calls."""

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        self.rows = 0

    def predict_noise(
        self, x_t: Float[Tensor, "n c h w"], t: Int[Tensor, ""], condition: Condition
    ) -> Float[Tensor, "n c h w"]:
        self.rows += len(x_t)
        return super().predict_noise(x_t, t, condition)


def by(editor: Editor, **options: Any) -> Callable[[EditTrainerConfig], None]:
    """Have `editor` edit, with other options changed."""

    def configure(config: EditTrainerConfig) -> None:
        config.pipeline.editor = editor
        for name, value in options.items():
            setattr(config.pipeline if hasattr(config.pipeline, name) else config, name, value)

    return configure


def kept_session(run: EditRun) -> dict[str, Any]:
    return torch.load(run.checkpoint, weights_only=True)["pipeline"]["_extra_state"]["session"]


@pytest.mark.parametrize(
    ("editor", "noise"), [(editor, ("shared", "independent")[index % 2]) for index, editor in enumerate(SAMPLES)]
)
def test_every_editor_edits_every_view_and_counts_what_it_asks(
    whole: EditRun, tiny_scene: Path, tmp_path: Path, editor: Editor, noise: str
):
    prior = CountedPrior()
    source = {"source_prompt": "a scene"} if editor == "dds" else {}
    configure = by(editor, noise=noise, edit_every=1, **source)
    scene = whole.scene_checkpoint.parent
    run = tiny_run(
        tiny_scene, tmp_path, prior=prior, edit_steps=3, max_num_iterations=2, load_dir=scene, configure=configure
    )
    entries = json.loads((run.edits / "edits.json").read_text())["rounds"]
    assert run.edited_views == 11 and run.rounds == 2
    assert [entry["network_samples"] for entry in entries] == [views * 3 * SAMPLES[editor] for views in (6, 5)]
    assert run.network_samples == prior.rows == entries[-1]["network_samples_so_far"] == 11 * 3 * SAMPLES[editor]
    assert kept_session(run)["network_samples"] == run.network_samples
    settings = entries[0]["settings"]
    assert (settings["editor"], settings["noise"]) == (editor, noise)
    assert not EDITORS[editor].unused & settings.keys()


def test_ip2p_is_plain_sampling(whole: EditRun, tiny_scene: Path, tmp_path: Path):
    def resume(config: EditTrainerConfig) -> None:
        by("ip2p", edit_steps=7)(config)
        config.load_dir = whole.scene_checkpoint.parent

    prior = NegativePrior()
    trainer = make_trainer(tiny_scene, tmp_path, prior, resume)
    generator, views = trainer.session.schedule.round_generator(), trainer.session.schedule.next_batch()
    trainer._init_viewer_state()
    entry = json.loads((trainer.base_dir / "edits/edits.json").read_text())["rounds"][0]
    assert entry["edited"] == views and entry["edit_init"] == "noise"
    photos = torch.stack([trainer.pipeline.datamanager.train_dataset.original(view) for view in views])
    texts = prior.encode_text(["make it negative", ""])
    target = Target(
        texts=(texts[:1].expand(len(views), -1, -1),),
        null_text=texts[1:].expand(len(views), -1, -1),
        image=prior.encode_condition(photos),
    )
    expected = prior.decode(sample(prior, ImageTextGuidance(4.0, 1.5), target, 7, generator, noise=SharedNoise()))
    for view, picture in zip(views, expected, strict=True):
        kept = read_picture(trainer.base_dir / "edits" / entry["views"][str(view)])
        assert torch.equal(kept, to_uint8(picture))


def sheets(run: EditRun) -> list[int]:
    return sorted(int(path.parent.name.removeprefix("round_")) for path in run.edits.glob("*/contact_sheet.png"))


def test_in2n_resumes_exactly_and_keeps_its_books_once_a_pass(
    whole: EditRun, tiny_scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    configure = by(
        "in2n", edit_every=1, edit_batch_size=None, edit_steps=None, steps_per_save=6, save_only_latest_checkpoint=False
    )
    settings: dict[str, Any] = {"max_num_iterations": 13, "edit_steps": None, "configure": configure}
    straight = tiny_run(tiny_scene, tmp_path, load_dir=whole.scene_checkpoint.parent, **settings)
    said = " ".join(capsys.readouterr().out.split())
    assert straight.rounds == 13 and straight.network_samples == 13 * 20 * 3
    assert sheets(straight) == [11], "at the end of a pass"
    assert said.count(" took ") == said.count("About ") == 1 and "Pass 1, up to round 11:" in said
    steps = sorted(int(path.stem.removeprefix("step-")) for path in straight.checkpoint.parent.iterdir())
    assert steps == [6, 12, 18], "whenever nerfstudio saves, and at the end"
    entries = json.loads((straight.edits / "edits.json").read_text())["rounds"]
    assert all(len(entry["views"]) == 1 for entry in entries) and entries[-1]["round"] == 13
    assert sorted(entry["edited"][0] for entry in entries[:11]) == list(range(11))

    def go_on(config: EditTrainerConfig) -> None:
        configure(config)
        config.load_step = 12

    settings["configure"] = go_on
    resumed = tiny_run(tiny_scene, tmp_path, load_dir=straight.folder, timestamp="again", **settings)
    assert same_weights(straight, resumed) and same_edits(straight, resumed)
    assert resumed.network_samples == straight.network_samples
    assert resumed.folder != straight.folder and sheets(resumed) == [11]


def test_in2n_keeps_a_view_that_its_prior_leaves_alone(whole: EditRun, tiny_scene: Path, tmp_path: Path):
    """With no guidance by the prompt the prior's ideal picture is the photo, from the photo at a low noise level."""
    configure = by("in2n", edit_every=4, edit_init="source", guidance_scale=0.0, image_guidance_scale=1.0,
                   t_min=0.02, t_max=0.02)  # fmt: skip
    scene = whole.scene_checkpoint.parent
    run = tiny_run(tiny_scene, tmp_path, load_dir=scene, configure=configure)
    index = json.loads((run.edits / "edits.json").read_text())
    for entry in index["rounds"]:
        for view, file in entry["views"].items():
            photo = read_picture(tiny_scene / "images" / index["view_names"][int(view)]).permute(2, 0, 1).float() / 255
            photo = torch.nn.functional.avg_pool2d(photo, 2)
            coarse = torch.nn.functional.avg_pool2d(photo, 4).repeat_interleave(4, 1).repeat_interleave(4, 2)
            edit = read_picture(run.edits / file).permute(2, 0, 1).float() / 255
            assert (edit - coarse).abs().mean() < 0.03


def test_samples_are_counted_over_resumptions(whole: EditRun, tiny_scene: Path, tmp_path: Path):
    assert whole.network_samples == 11 * 5 * 5
    longer = tiny_run(tiny_scene, tmp_path, load_dir=whole.folder, max_num_iterations=12)
    assert longer.network_samples == whole.network_samples + 6 * 5 * 5
    state = torch.load(whole.checkpoint, weights_only=True)
    del state["pipeline"]["_extra_state"]["session"]["network_samples"]
    (tmp_path / "old/nerfstudio_models").mkdir(parents=True)
    torch.save(state, tmp_path / "old/nerfstudio_models" / whole.checkpoint.name)
    (tmp_path / "old/edits").symlink_to(whole.edits)
    older = tiny_run(tiny_scene, tmp_path, load_dir=tmp_path / "old", max_num_iterations=12, timestamp="older")
    assert older.network_samples == longer.network_samples, "from the record, where the checkpoint has no count"


@pytest.mark.parametrize(
    ("editor", "full", "lite"),
    [
        ("csd-edit", (2000, 16, 200, False), (175, 16, 60, False)),
        ("dds", (2000, 16, 200, False), (175, 16, 60, False)),
        ("ip2p", (2000, 16, 100, False), (175, 16, 100, False)),
        ("in2n", (10, 1, 20, True), (10, 1, 20, True)),
    ],
)
def test_an_editor_has_its_own_rhythm_where_the_flags_leave_it(editor: Any, full: Any, lite: Any):
    for config, expected in ((edit_config(), full), (lite_config(), lite)):
        options = config.pipeline
        options.editor = editor
        pace = options.pace()
        assert (pace.edit_every, pace.edit_batch_size, pace.edit_steps, pace.by_pass) == expected
        options.edit_every, options.edit_batch_size, options.edit_steps = 7, 3, 5
        pace = options.pace()
        assert (pace.edit_every, pace.edit_batch_size, pace.edit_steps) == (7, 3, 5)


def test_the_noise_level_of_in2n_is_its_own_and_does_not_fall():
    for config in (edit_config(), lite_config()):
        config.pipeline.editor = "in2n"
        settings = config.pipeline.settings(passes=100).resolved()
        assert (settings.t_min, settings.t_max) == (0.02, 0.98)


def test_a_mistake_in_the_panel_that_only_the_prior_shows_does_not_end_the_run():
    options = EditPipelineConfig(prompt="x", editor="in2n")
    before = options.instruction()
    wanted = Instruction("new", edit_steps=50)
    used, said = with_panel_values(options, wanted, before, NegativePrior())
    assert (used.prompt, used.edit_steps) == ("new", 20) and said.startswith("Not used: Edit steps 50: the descent of")


@pytest.mark.parametrize(
    ("editor", "change", "message"),
    [
        ("dds", {}, r'--pipeline.editor dds needs --pipeline.source-prompt "\.\.\.", the caption of what is there'),
        ("csd-edit", {"source_prompt": "a bear"},
         '--pipeline.source-prompt "a bear" has no meaning for --pipeline.editor csd-edit: leave one of them out'),
        ("no-svgd", {"kernel": "rbf"},
         "--pipeline.kernel rbf contradicts --pipeline.editor no-svgd, whose kernel is independent: leave one of them"),
        ("random-noise", {"baseline": "source"}, "--pipeline.baseline source contradicts --pipeline.editor ra"),
        ("ip2p", {"kernel": "independent"}, "--pipeline.kernel independent has no meaning for --pipeline.editor ip2p"),
        ("in2n", {"lr": 0.5}, "--pipeline.lr 0.5 has no meaning for --pipeline.editor in2n"),
        ("in2n", {"edit_steps": 30},
         "--pipeline.edit-steps 30: the descent of --pipeline.editor in2n may begin with 20 noise levels above 0"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_one_clear_error(
    tiny_scene: Path, tmp_path: Path, editor: Editor, change: dict[str, Any], message: str
):
    prior = CountedPrior()
    with pytest.raises(SceneError, match=message):
        tiny_run(tiny_scene, tmp_path, prior=prior, edit_steps=None, configure=by(editor, **change))
    assert prior.rows == 0
