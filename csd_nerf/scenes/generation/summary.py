"""What a run that makes an object says at its start and at its end."""

import shlex
from collections.abc import Mapping
from pathlib import Path

from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from csd_nerf.distill.types import ImagePrior
from csd_nerf.durations import duration
from csd_nerf.scenes.generation.options import GenerationPipelineConfig
from csd_nerf.scenes.generation.pipeline import GenerationState
from csd_nerf.scenes.terminal import say

_UNSAID = ("t",)
"""A single draw of the noise level says nothing."""


def announce(method: str, config: GenerationPipelineConfig, prior: ImagePrior, start: int, total: int) -> None:
    """Say what is going to happen."""
    views = config.datamanager
    say(f'"{config.prompt}" with {method}, prior {prior.name} ({prior.size} pixels) on {prior.device}')
    say(
        f"{views.views_per_step} views of {views.resolution} x {views.resolution} pixels a step, guidance "
        f"{config.guidance_scale:g}; {config.how()}; {total - start} steps"
    )


def log_line(step: int, losses: Mapping[str, Tensor], metrics: Mapping[str, Tensor]) -> str:
    """Each loss of a step, and for latent-fm the ratio of the gradients |grad FM| / |grad LSD|."""
    shown = {name: float(value.detach()) for name, value in metrics.items() if name not in _UNSAID}
    shown |= {f"{name} loss": float(value.detach()) for name, value in losses.items() if name != "distillation"}
    return f"Step {step + 1}: " + ", ".join(f"{name} {value:.3g}" for name, value in shown.items())


def summarize(method: str, state: GenerationState, run: Path) -> None:
    """Say what was done and how to look at it; the commands stand alone on their lines, to be copied."""
    config = shlex.quote(str(run / "config.yml"))
    CONSOLE.rule(method)
    say(f'"{state.wish.prompt}": {duration(state.seconds)}, {state.network_samples} network samples')
    say("Look at it, render a camera path, export a mesh:")
    say(f"  ns-viewer --load-config {config}")
    say(f"  ns-render spiral --load-config {config} --output-path {shlex.quote(str(run / 'spiral.mp4'))}")
    say(f"  ns-export poisson --load-config {config} --output-dir {shlex.quote(str(run / 'mesh'))} --num-points 100000")
    CONSOLE.rule()
