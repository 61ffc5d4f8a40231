"""Against diffusers' own schedulers, which compute in float32."""

import pytest
import torch
from diffusers import DDIMScheduler  # pyright: ignore[reportPrivateImportUsage]

from csd_nerf.priors import PriorLayoutError
from csd_nerf.priors.schedules import schedule_from_config


@pytest.mark.parametrize(
    "config",
    [
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02, "num_train_timesteps": 400},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "rescale_betas_zero_snr": True},
        {"trained_betas": [0.01, 0.02, 0.3, 0.4], "num_train_timesteps": 4},
    ],
)
def test_schedule_is_that_of_diffusers(config):
    ours = schedule_from_config(config).alphas_cumprod
    assert ours.dtype == torch.float64
    torch.testing.assert_close(ours.float(), DDIMScheduler(**config).alphas_cumprod, rtol=2e-4, atol=1e-6)


def test_an_empty_configuration_is_no_schedule():
    with pytest.raises(PriorLayoutError, match="beta_schedule None"):
        schedule_from_config({})


def test_flow_matching_is_refused_by_name():
    with pytest.raises(PriorLayoutError, match="FlowMatchEulerDiscreteScheduler"):
        schedule_from_config({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0})
