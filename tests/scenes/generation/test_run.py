"""A run from a prompt to an object: it learns, resumes exactly, and stops where it must."""

import shutil
from pathlib import Path

import pytest
import torch

from csd_nerf.scenes.errors import SceneError
from csd_nerf.scenes.generation.cameras import turntable
from csd_nerf.scenes.generation.occupancy import OccupancyGrid
from csd_nerf.scenes.generation.run import GenerationRun, load_object, run_generation
from csd_nerf.scenes.generation.trainer import GenerationTrainer
from csd_nerf.scenes.generation.trainer_config import GenerationTrainerConfig
from tests.scenes.generation.fixtures import STEPS, ColourPrior, same, state, tiny_run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> GenerationRun:
    """A run that nobody interrupted."""
    return tiny_run(tmp_path_factory.mktemp("whole"))


def colour(run: GenerationRun) -> torch.Tensor:
    """Mean colour of the object and its background, seen from all around."""
    views = turntable(run.pipeline.datamanager.config.ranges(), 4, 16)
    return torch.stack([outputs["rgb"].mean(dim=(0, 1)) for outputs in run.pipeline.render(views)]).mean(dim=0)


def test_an_object_takes_the_colour_that_the_prompt_names(tmp_path: Path):
    def learn(config: GenerationTrainerConfig) -> None:
        for entry in config.optimizers.values():
            entry["optimizer"].lr = 3e-2

    for word, channel in (("red", 0), ("blue", 2)):
        run = tiny_run(tmp_path / word, prompt=f"a {word} ball", max_num_iterations=40, configure=learn)
        seen = colour(run)
        others = [float(seen[c]) for c in range(3) if c != channel]
        assert float(seen[channel]) > max(others) + 0.2
        assert run.network_samples == 40 * 3 * 2


def test_a_seed_gives_one_object_and_another_seed_another(whole: GenerationRun, tmp_path: Path):
    assert same(state(tiny_run(tmp_path / "again")), state(whole))
    assert not same(state(tiny_run(tmp_path / "other", seed=1)), state(whole))


@pytest.mark.parametrize("kernel", ["rbf", "independent"])
def test_a_resumed_run_is_the_whole_one_bit_by_bit(tmp_path: Path, kernel: str):
    def choose(config: GenerationTrainerConfig) -> None:
        config.pipeline.kernel = kernel  # pyright: ignore[reportAttributeAccessIssue]
        config.steps_per_save = 3
        config.save_only_latest_checkpoint = False

    first = tiny_run(tmp_path / "first", configure=choose)
    half = first.folder / "nerfstudio_models"
    for path in half.glob("step-*.ckpt"):
        if path.name != "step-000000003.ckpt":
            path.rename(path.with_suffix(".away"))
    resumed = tiny_run(tmp_path / "resumed", configure=choose, load_dir=half)
    for path in half.glob("*.away"):
        path.rename(path.with_suffix(".ckpt"))
    assert resumed.network_samples == first.network_samples
    assert same(state(resumed), state(first))


def test_a_finished_run_says_so(whole: GenerationRun, tmp_path: Path):
    with pytest.raises(SceneError, match=f"all {STEPS} steps of this run are done: raise --max-num-iterations"):
        tiny_run(tmp_path, load_dir=whole.folder)


def test_flags_that_differ_are_named_and_apply(
    whole: GenerationRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    prior = ColourPrior()
    run = tiny_run(tmp_path, load_dir=whole.folder, prompt="a blue ball", prior=prior, max_num_iterations=STEPS + 2)
    said = " ".join(capsys.readouterr().out.split())
    assert "used from now on: --pipeline.prompt a blue ball (was a red ball)." in said
    assert any("a blue ball" in prompt for prompt in prior.prompts)
    assert run.pipeline.state.wish.prompt == "a blue ball"


def test_a_resumed_run_knows_its_prompt(whole: GenerationRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    prior = ColourPrior()
    run = tiny_run(tmp_path, load_dir=whole.folder, prompt="", prior=prior, max_num_iterations=STEPS + 1)
    assert run.pipeline.state.wish.prompt == "a red ball" and any("a red ball" in prompt for prompt in prior.prompts)
    assert "--pipeline.prompt" not in capsys.readouterr().out
    with pytest.raises(SceneError, match="--pipeline.prompt is empty: say what to make"):
        tiny_run(tmp_path / "new", prompt="")


def test_nan_stops_with_the_step_and_the_last_good_checkpoint(tmp_path: Path):
    def save_often(config: GenerationTrainerConfig) -> None:
        config.steps_per_save = 2

    broken = ColourPrior(on_call=lambda call: float("nan") if call == 5 else 1.0)
    with pytest.raises(SceneError, match=r"failed at step 4: the score of view 0 is not finite, noise level t = \d+"):
        tiny_run(tmp_path, prior=broken, configure=save_often)
    models = tmp_path / "generated/csd-dreamfusion-lite/run/nerfstudio_models"
    assert [path.name for path in models.glob("*.ckpt")] == ["step-000000002.ckpt"]
    run = tiny_run(tmp_path / "again", load_dir=models)
    assert run.checkpoint.name == f"step-{STEPS - 1:09d}.ckpt", "it can be resumed"


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path):
    def leap(config: GenerationTrainerConfig) -> None:
        config.optimizers["fields"]["optimizer"].lr = float("inf")

    with pytest.raises(
        SceneError, match=r"failed at step 0: _model.field.* is not finite. Nothing is saved yet: start"
    ):
        tiny_run(tmp_path, configure=leap, max_num_iterations=1)
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_density_that_is_not_finite_is_not_taken_for_empty_space():
    grid = OccupancyGrid(4)
    with pytest.raises(FloatingPointError, match="density is not finite"):
        grid.update(lambda points: points[:, 0] * float("nan"), seed=0, step=0)
    assert grid.occupied.all()


def test_nan_right_after_resuming_names_the_checkpoint_that_the_run_went_on_from(whole: GenerationRun, tmp_path: Path):
    broken = ColourPrior(on_call=lambda call: float("nan"))
    with pytest.raises(SceneError, match=r"Nothing is saved since .*step-000000005.ckpt: resume with --load-dir .*and"):
        tiny_run(tmp_path, prior=broken, load_dir=whole.folder, max_num_iterations=STEPS + 2)


def test_a_resumed_run_takes_the_learning_rate_of_its_flags(
    whole: GenerationRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def slower(config: GenerationTrainerConfig) -> None:
        config.optimizers["fields"]["optimizer"].lr = 1e-5

    run = tiny_run(tmp_path, load_dir=whole.folder, max_num_iterations=STEPS + 2, configure=slower)
    said = " ".join(capsys.readouterr().out.split())
    assert "used from now on: --optimizers.fields.optimizer.lr 1e-05 (was 0.01)." in said
    assert f"Other than in that run: --max-num-iterations {STEPS + 2} (was {STEPS})." in said
    groups = state(run)["optimizers"]
    assert groups["fields"]["param_groups"][0]["lr"] == 1e-5
    assert groups["background"]["param_groups"][0]["lr"] == 3e-3


def test_a_changed_field_is_named_and_one_that_the_checkpoint_does_not_know_is_not(
    whole: GenerationRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    older = torch.load(whole.checkpoint, weights_only=True)
    older["pipeline"]["_extra_state"]["flags"].pop("entropy_weight")
    (tmp_path / "older").mkdir()
    torch.save(older, tmp_path / "older/step-000000005.ckpt")

    def change(config: GenerationTrainerConfig) -> None:
        config.pipeline.model.samples_per_ray, config.pipeline.entropy_weight = 9, 1.0

    tiny_run(tmp_path, load_dir=tmp_path / "older", max_num_iterations=STEPS + 1, configure=change)
    said = " ".join(capsys.readouterr().out.split())
    assert "used from now on: --pipeline.model.samples-per-ray 9 (was 8)." in said


def test_the_log_says_how_the_losses_stand(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    tiny_run(tmp_path)
    said = capsys.readouterr().out
    assert all(f"Step {step}: score" in said for step in range(1, STEPS + 1)) and "opacity loss" in said


def test_memory_that_is_short_while_the_prior_loads_names_the_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("csd_nerf.priors.load_prior", full)
    with pytest.raises(SceneError, match=r"the run does not fit into the memory of cpu: .*--pipeline.prior-dtype fp16"):
        run_generation("a red ball", output_dir=tmp_path)


def test_the_method_of_the_paper_resumes_bit_by_bit(tmp_path: Path):
    """The coordinate MLP, Adan with its schedule, lights and textureless views; smaller."""

    def choose(config: GenerationTrainerConfig) -> None:
        config.pipeline.model.frequencies, config.pipeline.model.blocks = 2, 1
        config.pipeline.albedo_share, config.pipeline.lit_probability = 0.0, 1.0
        config.pipeline.textureless_probability, config.pipeline.noise = 0.5, "shared"
        config.steps_per_save, config.save_only_latest_checkpoint = 3, False

    whole = tiny_run(tmp_path / "whole", method="csd-dreamfusion", configure=choose)
    models = tmp_path / "half"
    models.mkdir()
    shutil.copy(whole.folder / "nerfstudio_models/step-000000003.ckpt", models)
    resumed = tiny_run(tmp_path / "resumed", method="csd-dreamfusion", configure=choose, load_dir=models)
    assert same(state(resumed), state(whole))
    rate = state(whole)["optimizers"]["fields"]["param_groups"][0]["lr"]
    assert 0 < rate < 2e-3


def test_a_run_that_is_logged_evaluates_whole_views_and_no_batch_of_rays(tmp_path: Path):
    def logged(config: GenerationTrainerConfig) -> None:
        config.vis, config.steps_per_eval_image = "tensorboard", 2

    tiny_run(tmp_path / "logged", configure=logged)
    assert list((tmp_path / "logged").rglob("events.out.tfevents*"))
    with pytest.raises(SceneError, match="--steps-per-eval-batch 2: there are no photos"):
        tiny_run(tmp_path / "batch", configure=lambda config: setattr(config, "steps_per_eval_batch", 2))


def test_out_of_memory_names_the_flags_that_reduce_it(tmp_path: Path):
    def full(call: int) -> float:
        raise MemoryError

    with pytest.raises(SceneError, match=r"does not fit into the memory of cpu: .*--pipeline.datamanager.resolution"):
        tiny_run(tmp_path, prior=ColourPrior(on_call=full))


def test_a_checkpoint_of_another_field_is_refused(whole: GenerationRun, tmp_path: Path):
    def widen(config: GenerationTrainerConfig) -> None:
        config.pipeline.model.width = 9

    with pytest.raises(SceneError, match=r"does not fit: .* weights of another size.*--pipeline.model"):
        tiny_run(tmp_path, load_dir=whole.folder, configure=widen)


def test_a_loaded_object_looks_as_it_did(whole: GenerationRun):
    views = turntable(whole.pipeline.datamanager.config.ranges(), 2, 16)
    loaded, before = load_object(whole.config_path).render(views), whole.pipeline.render(views)
    assert all(torch.equal(a["rgb"], b["rgb"]) for a, b in zip(loaded, before, strict=True))


def test_the_panel_changes_the_wish_while_the_object_grows(tmp_path: Path):
    trainers: list[GenerationTrainer] = []

    class Watched(ColourPrior):
        def predict_noise(self, x_t, t, condition):  # noqa: ANN001, ANN201
            if self.calls == 2:
                panel = trainers[0].pipeline.csd_generate
                panel.a_prompt.value, panel.c_guidance_scale.value = "a blue ball", float("nan")
            return super().predict_noise(x_t, t, condition)

    def keep(config: GenerationTrainerConfig) -> None:
        class Kept(GenerationTrainer):
            def __init__(self, *arguments, **named):  # noqa: ANN002, ANN003
                super().__init__(*arguments, **named)
                trainers.append(self)

        config._target = Kept

    prior = Watched()
    from csd_nerf.scenes.generation import run as module

    original = module.GenerationTrainer
    module.GenerationTrainer = lambda config, prior=None: config._target(config, prior=prior)  # type: ignore[assignment]
    try:
        run = tiny_run(tmp_path, prior=prior, configure=keep)
    finally:
        module.GenerationTrainer = original
    assert run.pipeline.state.wish.prompt == "a blue ball" and run.pipeline.state.wish.guidance_scale == 1.0
    assert any("a blue ball" in prompt for prompt in prior.prompts)
