"""Flags of csd-dreamfusion: what is refused before anything is loaded, schedules, prompts, the viewer's camera."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from csd_nerf.scenes.errors import SceneError
from csd_nerf.scenes.generation.cameras import OrbitRanges, OrbitViews, turntable
from csd_nerf.scenes.generation.config import dreamfusion_config, dreamfusion_lite_config
from csd_nerf.scenes.generation.guide import view_target
from csd_nerf.scenes.generation.optimisers import WarmupCosineSchedulerConfig, warmup_cosine
from csd_nerf.scenes.generation.options import Wish, with_panel_values
from csd_nerf.scenes.generation.panel import follow, welcome
from csd_nerf.scenes.generation.perceptual import perceptual_kernel
from tests.scenes.generation.fixtures import ColourPrior


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompt": "  "}, "--pipeline.prompt is empty: say what to make"),
        ({"guidance_scale": float("nan")}, "--pipeline.guidance-scale nan: give a finite number"),
        ({"guidance_scale": -1.0}, "--pipeline.guidance-scale -1.0: give a finite number"),
        ({"opacity_weight": float("inf")}, "--pipeline.opacity-weight inf: give a finite number"),
        ({"t_min": 0.9, "t_max": 0.5}, "--pipeline.t-min 0.9, --pipeline.t-max 0.5"),
        ({"t_max_end": 0.01}, "--pipeline.t-max 0.01"),
        ({"lit_probability": 2.0}, "--pipeline.lit-probability 2.0: give a share"),
        ({"overhead": float("nan")}, "--pipeline.overhead nan: give an elevation in degrees"),
        ({"seed": -1}, "--pipeline.seed -1: give 0 or more"),
        ({"prior_batch_size": 0}, "--pipeline.prior-batch-size 0: give 1 or more"),
    ],
)
def test_bad_values_name_the_flag(change: dict[str, Any], said: str):
    with pytest.raises(SceneError, match=said):
        replace(dreamfusion_config().pipeline, **{"prompt": "a fox", **change}).check()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"radius": (2.0, 1.0)}, r"--pipeline.datamanager.radius \(2.0, 1.0\): give two numbers in order"),
        ({"elevation": (-95.0, 0.0)}, r"--pipeline.datamanager.elevation \(-95.0, 0.0\)"),
        ({"views_per_step": 0}, "--pipeline.datamanager.views-per-step 0: give at least 1"),
        ({"coarse_share": -0.1}, "--pipeline.datamanager.coarse-share -0.1: give a share"),
        ({"data": Path("photos")}, "--data photos: an object is made from the prompt alone"),
    ],
)
def test_bad_views_name_the_flag(change: dict[str, Any], said: str):
    config = replace(dreamfusion_config().pipeline, prompt="a fox")
    config.datamanager = replace(config.datamanager, **change)
    with pytest.raises(SceneError, match=said):
        config.check()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"samples_per_ray": 0}, "--pipeline.model.samples-per-ray 0: give at least 1"),
        ({"occupancy_resolution": 0}, "--pipeline.model.occupancy-resolution 0: give at least 1"),
        ({"voxels": (0, 8)}, r"--pipeline.model.voxels \(0, 8\): give numbers of 2 or more"),
        ({"blob_density": float("nan")}, "--pipeline.model.blob-density nan: give a finite number"),
        ({"blob_radius": 0.0}, "--pipeline.model.blob-radius 0.0: give a finite number above 0"),
    ],
)
def test_a_field_that_cannot_be_built_names_the_flag(change: dict[str, Any], said: str):
    config = replace(dreamfusion_config().pipeline, prompt="a fox")
    config.model = replace(config.model, **change)
    with pytest.raises(SceneError, match=said):
        config.check()


def test_a_warm_up_longer_than_the_run_is_refused(tmp_path: Path):
    config = dreamfusion_config()
    config.pipeline.prompt, config.max_num_iterations, config.output_dir, config.vis = "a fox", 1000, tmp_path, "none"
    with pytest.raises(SceneError, match="scheduler.warmup-steps 2000: give fewer than the 1000 steps"):
        config.check()


def test_the_papers_learning_rate():
    """From 1e-9 to 2e-3 over 2,000 steps, then a cosine down to 1e-6 at 10,000 (CSD D.2)."""
    factor = warmup_cosine(WarmupCosineSchedulerConfig(max_steps=10000), 2e-3)
    rates = {step: 2e-3 * factor(step) for step in (0, 1000, 2000, 6000, 10000)}
    assert rates[0] == pytest.approx(1e-9) and rates[2000] == pytest.approx(2e-3)
    assert rates[1000] == pytest.approx(1e-3, rel=1e-5) and rates[10000] == pytest.approx(1e-6)
    assert rates[6000] == pytest.approx((2e-3 + 1e-6) / 2)
    full = dreamfusion_config()
    assert (full.max_num_iterations, full.pipeline.guidance_scale, full.pipeline.kernel) == (10000, 20.0, "lpips")
    assert full.pipeline.datamanager.views_per_step == 4 and full.pipeline.model.blocks == 5


def test_noise_levels_fall_to_their_end():
    config = replace(dreamfusion_lite_config().pipeline, t_min=0.1, t_max=0.9, t_max_end=0.5)
    assert [config.timesteps(p).t_max for p in (0.0, 0.5, 1.0)] == pytest.approx([0.9, 0.7, 0.5])
    assert replace(config, t_max_end=None).timesteps(1.0).t_max == 0.9


def test_each_view_hears_its_own_direction():
    """Halfway between front and side both prompts count half; from high up only the overhead one does."""

    class Words(ColourPrior):
        def encode_text(self, prompts):  # noqa: ANN001, ANN201
            known = ("front", "side", "back", "overhead")
            self.prompts += prompts
            return torch.tensor([[[float(f"{word} view" in prompt) for word in known]] for prompt in prompts])

    prior, config = Words(), replace(dreamfusion_lite_config().pipeline, overhead_ramp=0.0)
    azimuth, elevation = torch.tensor([0.0, 45.0, -90.0, 180.0, 0.0]), torch.tensor([10.0, 10.0, 10.0, 10.0, 80.0])
    target = view_target(prior, Wish("a red ball, "), config, azimuth, elevation)
    expected = [[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert torch.allclose(target.texts[0][:, 0], torch.tensor(expected, dtype=torch.float32))
    assert "a red ball in a studio, front view" in prior.prompts
    assert not target.null_text.any()


def test_the_panels_mistakes_do_not_end_a_run():
    before = Wish("a fox", guidance_scale=20.0)
    chosen, said = with_panel_values(Wish("", "fog", float("inf")), before)
    assert chosen == Wish("a fox", "fog", 20.0)
    assert "a fox is kept" in said and "20.0 is kept" in said


def test_a_locked_camera_and_one_that_just_came_stand_where_a_view_does():
    class Camera:
        wxyz: Any = None
        position: Any = None
        look_at: Any = None
        fov: Any = None

    class Client:
        camera = Camera()

        def atomic(self):  # noqa: ANN201
            from contextlib import nullcontext

            return nullcontext()

    class Server:
        client = Client()

        def get_clients(self):  # noqa: ANN201
            return {0: self.client}

        def on_client_connect(self, greet):  # noqa: ANN001, ANN201
            self.greet = greet

    views = turntable(OrbitRanges(field_of_view=(50.0, 50.0)), 3, 32)
    server = Server()
    follow(server, views)
    came = Client()
    came.camera = Camera()
    welcome(server, views)
    server.greet(came)
    for camera in (server.client.camera, came.camera):
        _check_that_it_stands_at(camera, views)


def _check_that_it_stands_at(camera: Any, views: OrbitViews) -> None:
    pose = views.cameras.camera_to_worlds[0]
    assert np.allclose(camera.position, 10 * pose[:, 3].numpy(), atol=1e-5)
    assert not camera.look_at.any()
    assert float(np.degrees(camera.fov)) == pytest.approx(50.0, abs=1e-3)
    w, x, y, z = camera.wxyz
    forward = np.array([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)])  # of viser: +z
    assert np.allclose(forward, -pose[:, 2].numpy(), atol=1e-5)


def test_the_kernel_between_views_says_what_it_compares_with(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def fail(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    kernel = perceptual_kernel(torch.device("cpu"))
    assert "ST-LPIPS" in capsys.readouterr().out
    pictures = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    gram, repulsion = kernel(pictures)
    assert torch.allclose(gram, gram.T) and torch.allclose(gram.diagonal(), torch.ones(3))
    assert (gram <= 1).all() and repulsion.isfinite().all() and repulsion.any()
