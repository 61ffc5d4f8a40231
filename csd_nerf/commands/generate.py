"""`csd generate`: an object from a sentence. Heavy libraries load when it runs, not for its help."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from csd_nerf.commands.run_flags import flags_of_command
from csd_nerf.commands.sitting import progress, say
from csd_nerf.durations import duration

if TYPE_CHECKING:
    from csd_nerf.scenes.generation.run import GenerationRun

_FRAMES, _FPS, _SIZE, _SHEET_VIEWS = 72, 24, 192, 8
_FLAGS = {
    "--pipeline.prompt": "--prompt",
    "--pipeline.guidance-scale": "--guidance",
    "--pipeline.seed": "--seed",
    "--pipeline.kernel": "--kernel",
    "--pipeline.prior": "--prior",
    "--max-num-iterations": "--steps",
    "--output-dir": "--output",
    "--load-dir": "--resume",
}


@dataclass(frozen=True)
class Generate:
    """Make a 3D object from one sentence, and show it: turntable, depth and contact sheet.

    The -lite methods run without a GPU, with the embedded toy prior, which knows toy things: "a red mushroom", "a blue
    car", "a wooden duck". The run is nerfstudio's: ns-viewer, ns-render and ns-export take its config.yml.
    """

    prompt: str = ""
    """What to make, such as "a red mushroom". With --resume it can be left out."""
    method: str = "csd-dreamfusion-lite"
    """csd-dreamfusion or latent-fm, or one of them with -lite."""
    output: Path = Path("outputs/generate")
    """Folder for turntable.mp4, depth.mp4, views.png and the nerfstudio run."""
    seed: int = 0
    """Same seed, same object."""
    steps: int | None = None
    """Steps of the training; default: the method's."""
    guidance: float | None = None
    """How strongly the prompt is followed; default: the method's."""
    negative: str = ""
    """What to stay away from."""
    kernel: Literal["lpips", "rbf", "independent"] | None = None
    """How views listen to each other; independent is SDS. Default: the method's."""
    prior: str | None = None
    """The diffusion model; default: the method's."""
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Of its networks; bf16 is quicker on CPUs that compute in it."""
    resume: Path | None = None
    """A run's folder to go on from."""

    def run(self) -> int:
        """Make the object and write what shows it."""
        from csd_nerf.scenes.generation.run import METHODS, run_generation

        if self.method not in METHODS:
            raise ValueError(f"--method {self.method} is unknown: choose {', '.join(METHODS)}")
        with flags_of_command(_FLAGS, self.method):
            run = run_generation(
                self.prompt,
                method=self.method,
                output_dir=self.output / "runs",
                prior=self.prior,
                seed=self.seed,
                max_num_iterations=self.steps,
                load_dir=self.resume,
                timestamp=time.strftime("%Y-%m-%d_%H%M%S"),
                configure=self._configure,
            )
        write_showcase(run, self.output)
        say(
            f"{self.output}: turntable.mp4, depth.mp4, views.png ({duration(run.seconds)}, {run.network_samples} "
            "network samples)"
        )
        return 0

    def _configure(self, config: Any) -> None:
        options = config.pipeline
        options.negative_prompt, options.prior_dtype = self.negative, self.precision
        if self.guidance is not None:
            options.guidance_scale = self.guidance
        if self.kernel is not None:
            options.kernel = self.kernel
        if self.steps is not None and hasattr(options, "refined"):
            # The share of the steps that latent-fm refines in colour stays what it is.
            options.refine_steps = options.refined * self.steps // self._usual_steps()

    def _usual_steps(self) -> int:
        from csd_nerf.scenes.generation.latent_config import STEPS
        from csd_nerf.scenes.generation.run import METHODS

        return METHODS[self.method]().max_num_iterations or STEPS["latent-nerf"]


def write_showcase(run: "GenerationRun", output: Path) -> None:
    """Write turntable.mp4, depth.mp4 and views.png of an object."""
    from csd_nerf.images.writing import contact_sheet, write_video
    from csd_nerf.scenes.generation.showcase import render_turntable
    from csd_nerf.whole_files import write_atomically

    with progress("Rendering") as update:
        shown = render_turntable(run.pipeline, _FRAMES, _SIZE, on_frame=update)
    write_video(output / "turntable.mp4", shown.colour, fps=_FPS)
    write_video(output / "depth.mp4", shown.depth, fps=_FPS)
    chosen = range(0, _FRAMES, _FRAMES // _SHEET_VIEWS)
    rows = [(name, [pictures[i] for i in chosen]) for name, pictures in vars(shown).items()]
    sheet = contact_sheet(rows)
    write_atomically(output / "views.png", lambda path: sheet.save(path, optimize=True))
