"""latent-fm: latents first, colours in the refinement; LDP's losses, shape and emptiness."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from csd_nerf.priors import DiffusionPrior, load_prior
from csd_nerf.scenes.errors import SceneError
from csd_nerf.scenes.generation.latent_config import latent_config, latent_lite_config
from csd_nerf.scenes.generation.latent_guide import LatentGuide, latent_guide
from csd_nerf.scenes.generation.latent_options import LatentPipelineConfig
from csd_nerf.scenes.generation.latent_pipeline import LatentPipeline
from csd_nerf.scenes.generation.options import Wish
from csd_nerf.scenes.generation.run import GenerationRun, load_object
from tests.scenes.generation.fixtures import ColourPrior, same, state, tiny_run
from tests.tiny_prior import make_tiny_prior

STEPS, REFINED = 6, 2


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> DiffusionPrior:
    """A random Stable Diffusion of 32 pixels and 8 x 8 latents."""
    return load_prior(make_tiny_prior(tmp_path_factory.mktemp("prior"), in_channels=4))


def shrink(config: Any) -> None:
    config.pipeline.kernel = "independent"
    config.pipeline.datamanager.resolution, config.pipeline.datamanager.coarse_resolution = 8, None
    config.pipeline.refine_steps, config.pipeline.refine_resolution = REFINED, 16


def latent_run(output: Path, prior: Any, **changes: Any) -> GenerationRun:
    """A run of a few steps. `configure` in `changes` comes after the shrinking."""
    configure = changes.pop("configure", None)

    def shrink_first(config: Any) -> None:
        shrink(config)
        if configure is not None:
            configure(config)

    return tiny_run(output, method="latent-fm-lite", prior=prior, configure=shrink_first, **changes)


@pytest.mark.parametrize(("field", "step"), [("latent-nerf", 3), ("latent-nerf", 4), ("sjc", 3)])
def test_a_resumed_run_is_the_whole_one_bit_by_bit(prior: DiffusionPrior, tmp_path: Path, field: str, step: int):
    """Resumed at the refinement's beginning, and within it, where the map to colours is trained."""

    def choose(config: Any) -> None:
        config.pipeline.field, config.steps_per_save, config.save_only_latest_checkpoint = field, step, False

    whole = latent_run(tmp_path / "whole", prior, configure=choose)
    half = whole.folder / "nerfstudio_models"
    last = whole.checkpoint.rename(whole.checkpoint.with_suffix(".away"))
    resumed = latent_run(tmp_path / "resumed", prior, configure=choose, load_dir=half)
    last.rename(whole.checkpoint)
    assert same(state(resumed), state(whole))
    assert load_object(whole.config_path).object.config.field == ("sjc" if field == "sjc" else "voxel-grid")


def test_refinement_begins_with_the_best_linear_map_and_trains_it(prior: DiffusionPrior, tmp_path: Path):
    run = latent_run(tmp_path, prior, max_num_iterations=STEPS)
    pipeline = run.pipeline
    assert isinstance(pipeline, LatentPipeline)
    assert [pipeline.refines(step) for step in range(STEPS)] == [False] * (STEPS - REFINED) + [True] * REFINED
    assert [pipeline.resolution(step) for step in (0, STEPS - 1)] == [8, 16]
    trained = pipeline.latent_model.colours.weight.clone()
    pipeline.fit_colours()
    assert not torch.allclose(pipeline.latent_model.colours.weight, trained)
    latents = torch.randn(2, 4, 8, 8)
    shown = pipeline.pictures(latents, STEPS - 1)
    by_hand = torch.einsum("kc,nchw->nkhw", pipeline.latent_model.colours.weight, latents)
    assert torch.allclose(shown, by_hand + pipeline.latent_model.colours.bias[:, None, None], atol=1e-5)
    assert pipeline.pictures(latents, 0) is latents


def guide_of(prior: DiffusionPrior, **changes: Any) -> LatentGuide:
    return latent_guide(prior, replace(latent_lite_config().pipeline, prompt="a red cube", **changes))


def gradient(guide: LatentGuide, latents: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    v = latents.clone().requires_grad_(True)
    angles = torch.tensor([0.0, 120.0])
    generator = torch.Generator().manual_seed(3)
    guided = guide(v, Wish("a red cube", guidance_scale=5.0), angles, torch.full((2,), 20.0), 0.0, generator)
    guided.loss.backward()
    assert v.grad is not None
    return v.grad, guided.metrics


def test_the_losses_add_up_and_each_can_be_switched_off(prior: DiffusionPrior):
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    off = {"feature_matching_weight": 0.0, "kl_weight": 0.0, "lsd_weight": 0.0}
    parts = {name: gradient(guide_of(prior, **{**off, name: 0.5}), latents) for name in off}
    total, logged = gradient(guide_of(prior, **dict.fromkeys(off, 0.5)), latents)
    assert torch.allclose(total, sum((part for part, _ in parts.values()), torch.zeros(())), atol=1e-5)
    assert logged.keys() == {"FM", "KL", "LSD", "FM / LSD", "t"}
    assert parts["kl_weight"][1].keys() == {"KL"} and parts["lsd_weight"][1].keys() == {"LSD", "t"}
    ratio = parts["feature_matching_weight"][0].norm() / parts["lsd_weight"][0].norm()
    assert float(logged["FM / LSD"]) == pytest.approx(float(ratio), rel=1e-3)


def test_colours_are_encoded_and_keep_their_gradient(prior: DiffusionPrior):
    pictures = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    by_picture, _ = gradient(guide_of(prior, kl_weight=0.0, feature_matching_weight=0.0), pictures)
    by_latent, _ = gradient(guide_of(prior, kl_weight=0.0, feature_matching_weight=0.0), prior.encode(pictures))
    attached = pictures.clone().requires_grad_(True)
    (expected,) = torch.autograd.grad(prior.encode_attached(attached), attached, by_latent)
    assert torch.allclose(by_picture, expected, atol=1e-6) and by_picture.any()


def test_presets_are_those_of_the_paper(tmp_path: Path):
    config = LatentPipelineConfig()
    assert (config.weights.feature_matching, config.weights.kl, config.weights.lsd) == (1e-2, 1e-1, 1.0)
    config.field = "sjc"
    assert (config.weights.feature_matching, config.weights.kl, config.weights.lsd) == (1e-1, 1e-1, 1.0)
    for field, steps, refined, optimizer, emptiness in (
        ("latent-nerf", 7000, 2000, "AdamOptimizerConfig", 0.0),
        ("sjc", 10000, 0, "AdamaxOptimizerConfig", 1e4),
    ):
        trainer = checked(latent_config(), tmp_path, field=field)
        assert (trainer.max_num_iterations, trainer.pipeline.refined) == (steps, refined)
        assert type(trainer.optimizers["fields"]["optimizer"]).__name__ == optimizer
        assert trainer.pipeline.emptiness == emptiness and trainer.pipeline.model.voxels[-1] == 100
    assert trainer.pipeline.model.field == "sjc" and trainer.optimizers["background"]["optimizer"].lr == 1e-4


def checked(config: Any, folder: Path, **changes: Any) -> Any:
    """A configuration as `ns-train` would check it."""
    config.pipeline = replace(config.pipeline, prompt="a car", **changes)
    config.output_dir, config.timestamp, config.vis = folder, "run", "none"
    config.check()
    return config


def test_what_the_field_decides_leaves_what_the_user_gave(tmp_path: Path):
    lite = checked(latent_lite_config(), tmp_path, field="sjc")
    assert lite.pipeline.refined == 0 and lite.optimizers["fields"]["optimizer"].lr == 0.05
    assert lite.pipeline.emptiness == 100 and lite.pipeline.model.voxels[-1] == 24
    assert lite.optimizers["background"]["optimizer"].lr == 0.01
    for config in (latent_config(), latent_lite_config()):
        config.optimizers["fields"]["optimizer"].lr = 0.012
        config.pipeline.model.voxels = (8, 12)
        given = checked(config, tmp_path, field="sjc", refine_steps=7, emptiness_weight=5.0)
        assert given.pipeline.refined == 7 and given.optimizers["fields"]["optimizer"].lr == 0.012
        assert given.pipeline.emptiness == 5 and given.pipeline.model.voxels == (8, 12)
    plain = checked(latent_lite_config(), tmp_path)
    assert plain.pipeline.emptiness == 0 and plain.pipeline.model.voxels[-1] == 48
    short = latent_lite_config()
    short.max_num_iterations = 200
    with pytest.raises(SceneError, match=r"--pipeline.refine-steps 200 leaves none of the 200 steps for the latents"):
        checked(short, tmp_path)


def test_the_log_has_each_loss_and_the_ratio_of_gradients(
    prior: DiffusionPrior, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    latent_run(tmp_path, prior)
    lines = [line for line in capsys.readouterr().out.splitlines() if "Step " in line and "LSD" in line]
    assert lines and all(name in line for line in lines for name in ("FM ", "KL ", "LSD ", "FM / LSD "))


def test_a_mesh_shapes_the_object(prior: DiffusionPrior, tmp_path: Path):
    import trimesh

    path = tmp_path / "box.ply"
    trimesh.creation.box((1.0, 1.0, 1.0)).export(path)

    def shape(config: Any) -> None:
        options = config.pipeline
        options.shape, options.shape_weight, options.shape_freedom = path, 100.0, 0.05
        options.refine_steps, options.feature_matching_weight, options.kl_weight = 0, 0.0, 0.0
        options.model.blob_radius = 0.3
        config.optimizers["fields"]["optimizer"].lr = 5e-2

    run = latent_run(tmp_path, prior, max_num_iterations=40, configure=shape)
    inside = torch.tensor([[0.4, 0.4, 0.4], [-0.4, 0.4, -0.4], [0.0, -0.4, 0.4]])
    outside = torch.tensor([[0.9, 0.9, 0.9], [0.9, 0.0, 0.0], [0.0, 0.0, -0.9]])
    field = run.pipeline.object.field
    assert float(field.density(inside).min()) > 3 * float(field.density(outside).max())
    assert load_object(run.config_path).loaded_state["flags"]["shape"] == str(path), "its checkpoint can be read"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kl_weight": float("nan")}, "--pipeline.kl-weight nan: give a finite weight"),
        ({"feature_matching_weight": -1.0}, "--pipeline.feature-matching-weight -1.0: give a finite weight"),
        ({"lsd_weight": 0.0, "kl_weight": 0.0, "feature_matching_weight": 0.0}, "all losses are switched off"),
        ({"shape": Path("nowhere.obj")}, "--pipeline.shape nowhere.obj does not exist"),
        ({"refine_steps": -1}, "--pipeline.refine-steps -1: give 0 or more"),
        ({"prompt": ""}, "--pipeline.prompt is empty"),
        ({"prior": "deepfloyd"}, "--pipeline.prior deepfloyd works on pixels"),
        ({"kernel": "lpips"}, "--pipeline.kernel lpips: latent-fm scores each view by itself"),
        ({"noise": "shared"}, "--pipeline.noise shared: latent-fm scores each view by itself"),
        ({"shape": Path(__file__), "shape_scale": 2.0}, "--pipeline.shape-scale 2.0: give more than 0 and at most 1"),
        ({"shape": Path(__file__)}, "cannot be read as a mesh"),
    ],
)
def test_bad_input_names_the_flag(change: dict[str, Any], said: str):
    config = replace(latent_lite_config().pipeline, **{"prompt": "a car", **change})
    with pytest.raises(SceneError, match=said):
        config.check()


def test_a_prior_of_pixels_is_refused(tmp_path: Path):
    with pytest.raises(SceneError, match="its particles have 3 channels, and the field renders latents of 4"):
        latent_run(tmp_path, ColourPrior())


def test_the_tiny_autoencoder_can_be_the_decoder(prior: DiffusionPrior, tmp_path: Path):
    from diffusers import AutoencoderTiny  # pyright: ignore[reportPrivateImportUsage]

    tiny = AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
    )
    tiny.save_pretrained(tmp_path / "tiny")
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    own, _ = gradient(guide_of(prior), latents)
    other, logged = gradient(guide_of(prior, decoder=tmp_path / "tiny"), latents)
    assert float(logged["FM"]) > 0 and not torch.allclose(own, other)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SceneError, match=r"--pipeline.decoder .*empty is no tiny autoencoder"):
        guide_of(prior, decoder=tmp_path / "empty")


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (None, "empty is no tiny autoencoder: .*config.json cannot be read"),
        ([1], "holds a model of the class None: give the folder of an AutoencoderTiny"),
        ({"_class_name": "AutoencoderKL"}, "holds a model of the class AutoencoderKL: give the folder of an Autoencod"),
        ({"_class_name": "AutoencoderTiny", "latent_channels": 16}, "decodes latents of 16 channels, and the field re"),
    ],
)
def test_a_decoder_that_does_not_fit_is_refused_by_its_description(tmp_path: Path, facts: Any, said: str):
    folder = tmp_path / "empty"
    folder.mkdir()
    if facts is not None:
        (folder / "config.json").write_text(json.dumps(facts))
    with pytest.raises(SceneError, match=said):
        replace(latent_lite_config().pipeline, prompt="a car", decoder=folder).check()
