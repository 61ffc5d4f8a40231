"""Everything that nerfstudio 1.1.5 needs to work with today's torch, without a hub, without a GPU and without root.

Importing this file applies the work-arounds, once; every entry point of the plugin imports it, so they hold in each
`ns-*` command, for nerfstudio's own methods too:

- `allow_numpy_scalars`: torch >= 2.6 refuses every checkpoint, because the optimizers' learning rates are numpy floats.
- `find_ffmpeg`: `ns-render` stops where no `ffmpeg` is on PATH, though the package imageio-ffmpeg carries one.
- `build_lpips_on_first_use`: nerfacto downloads AlexNet when it is constructed, to train, to render and to view.
- `train_on_cpu_without_cuda`: `ns-train` dies in a CUDA error unless told `--machine.device-type cpu`.
- `say_once_that_tinycudann_is_absent`: three lines per layer become one line per process.

nerfstudio loads entry points unguarded: an exception here would break `ns-train` for every method, so each work-around
that cannot be applied is reported in one line and left out. Nothing here imports diffusers, transformers, torchmetrics
or imageio-ffmpeg before it is needed.
"""

import functools
import hashlib
import importlib.metadata
import math
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape
from torch import Tensor, nn

SUPPORTED = "1.1.5"
"""The nerfstudio version whose traps these are."""
DOWNLOAD_TIMEOUT = 20.0
"""Seconds of silence after which the download of AlexNet counts as failed; without it a dropped packet hangs a run."""


def numpy_scalar_globals() -> list[tuple[Any, str]]:
    """What a pickled numpy float64 refers to, each with the name a checkpoint calls it by.

    numpy 2 moved `numpy.core` to `numpy._core`; a checkpoint carries the name of the numpy that wrote it, so both names
    stand for whichever function is installed. The dtype's class appears under no name, but is checked on loading.
    """
    scalar = np.float64(0).__reduce__()[0]
    float64 = type(np.dtype(np.float64))
    return [
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        (np.dtype, "numpy.dtype"),
        (float64, f"{float64.__module__}.{float64.__qualname__}"),
    ]


def allow_numpy_scalars() -> None:
    """Let `torch.load` read a numpy float64, and nothing else, besides what it reads anyway."""
    allowed: list[Any] = list(numpy_scalar_globals())
    if torch_version() < (2, 6):  # knows no names of its own; loads checkpoints unchecked unless asked to check
        allowed = [item for item, _ in allowed]
    torch.serialization.add_safe_globals(allowed)


def torch_version() -> tuple[int, int]:
    """Major and minor version of torch."""
    major, minor = torch.__version__.split(".")[:2]
    return int(major), int(minor)


def ensure_ffmpeg() -> str | None:
    """Path of ffmpeg; where none is on PATH, the one of imageio-ffmpeg is put at PATH's end, for this process only.

    nerfstudio and mediapy look for a program of that very name, and the package calls its own by version and platform.
    Hence a link, in a cache folder whose name depends on what it points to, so environments do not disturb each other.

    Returns:
        The path, or None if the machine has no ffmpeg and imageio-ffmpeg has none for it.
    """
    found = shutil.which("ffmpeg")
    if found is not None:
        return found
    try:
        import imageio_ffmpeg

        program = Path(imageio_ffmpeg.get_ffmpeg_exe()).resolve()
    except (ImportError, RuntimeError):
        return None
    folder = _folder_with_link(program)
    os.environ["PATH"] = os.pathsep.join(filter(None, [os.environ.get("PATH"), str(folder)]))
    return shutil.which("ffmpeg")


def _folder_with_link(program: Path) -> Path:
    """A folder with a link `ffmpeg` to `program`: in the user's cache, or, if that is read-only, a temporary one."""
    name = hashlib.sha256(str(program).encode()).hexdigest()[:12]
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return _link(program, cache / "csd_nerf" / f"ffmpeg-{name}")
    except (OSError, RuntimeError):  # not writable, or no home at all
        return _link(program, Path(tempfile.mkdtemp(prefix="csd_nerf-ffmpeg-")))


def _link(program: Path, folder: Path) -> Path:
    """Make `folder/ffmpeg` point to `program`; processes that do so at once replace each other's equal link."""
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "ffmpeg"
    if not (link.is_symlink() and Path(os.readlink(link)) == program):
        fresh = folder / f"ffmpeg.{os.getpid()}"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(program)
        fresh.replace(link)
    return folder


def find_ffmpeg() -> None:
    """`ns-render` looks for ffmpeg through `check_ffmpeg_installed`: look in imageio-ffmpeg before it gives up."""
    from nerfstudio.utils import install_checks

    original = install_checks.check_ffmpeg_installed

    @functools.wraps(original)
    def check_ffmpeg_installed() -> None:
        ensure_ffmpeg()
        original()

    install_checks.check_ffmpeg_installed = check_ffmpeg_installed


class LazyPerceptualSimilarity(nn.Module):
    """LPIPS that loads its network when it is first asked for a distance, and gives NaN where it cannot.

    The network is no submodule: it neither enters checkpoints nor is expected in them, and what plain nerfstudio has
    put there is passed over.
    """

    def __init__(self, build: Callable[[], nn.Module]) -> None:
        super().__init__()
        self._build = build
        self._metric: tuple[nn.Module, ...] = ()  # in a tuple, where torch does not look for submodules
        self.failure: str | None = None
        """Why there is no distance; None as long as nothing has failed."""

    def forward(self, *images: Tensor) -> Tensor:
        """The distance between two pictures (1 3 h w, values in [0, 1]), or NaN."""
        if not self._metric and self.failure is None:
            self._load()
        if not self._metric:
            return torch.full((), math.nan)
        return self._metric[0].to(images[0].device)(*images)

    def _load(self) -> None:
        timeout = socket.getdefaulttimeout()
        socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
        try:
            self._metric = (self._build(),)
        except (OSError, RuntimeError, ImportError) as error:  # no network, a damaged download, no torchvision
            folder = Path(torch.hub.get_dir()) / "checkpoints"
            self.failure = f"the weights of AlexNet are not in {folder} and cannot be downloaded ({error})"
            _say(f"LPIPS is not computed: {self.failure}. PSNR and SSIM do not need them.")
        finally:
            socket.setdefaulttimeout(timeout)

    def _load_from_state_dict(self, *_: Any, **__: Any) -> None:
        """A checkpoint's copy of AlexNet is neither needed nor an error."""


@contextmanager
def _lazy_lpips() -> Iterator[None]:
    """While it lasts, whoever constructs torchmetrics' LPIPS gets one that loads on first use."""
    from torchmetrics.image import lpip

    original = lpip.LearnedPerceptualImagePatchSimilarity

    def construct(*args: Any, **kwargs: Any) -> LazyPerceptualSimilarity:
        return LazyPerceptualSimilarity(functools.partial(original, *args, **kwargs))

    lpip.LearnedPerceptualImagePatchSimilarity = construct
    try:
        yield
    finally:
        lpip.LearnedPerceptualImagePatchSimilarity = original


def build_lpips_on_first_use() -> None:
    """Construct nerfacto without AlexNet, and evaluate it without where there is none.

    A distance that was not computed is left out of the metrics; `ns-eval` writes it as null, and the reason beside it.
    """
    from nerfstudio.models.nerfacto import NerfactoModel
    from nerfstudio.pipelines.base_pipeline import VanillaPipeline

    original_populate = NerfactoModel.populate_modules
    original_metrics = NerfactoModel.get_image_metrics_and_images
    original_average = VanillaPipeline.get_average_eval_image_metrics

    @functools.wraps(original_populate)
    def populate_modules(self: NerfactoModel) -> None:
        with _lazy_lpips():
            original_populate(self)

    @functools.wraps(original_metrics)
    def get_image_metrics_and_images(self: NerfactoModel, *args: Any, **kwargs: Any) -> Any:
        metrics, images = original_metrics(self, *args, **kwargs)
        if _lpips_failure(self) is not None:
            metrics.pop("lpips", None)
        return metrics, images

    @functools.wraps(original_average)
    def get_average_eval_image_metrics(self: VanillaPipeline, *args: Any, **kwargs: Any) -> Any:
        metrics = original_average(self, *args, **kwargs)
        failure = _lpips_failure(self.model)
        if kwargs.get("get_std") and failure is not None:  # ns-eval; the trainer's loggers take numbers only
            metrics.update(lpips=None, lpips_std=None, lpips_missing=failure)
        return metrics

    NerfactoModel.populate_modules = populate_modules
    NerfactoModel.get_image_metrics_and_images = get_image_metrics_and_images
    VanillaPipeline.get_average_eval_image_metrics = get_average_eval_image_metrics


def _lpips_failure(model: nn.Module) -> str | None:
    lpips = getattr(model, "lpips", None)
    return lpips.failure if isinstance(lpips, LazyPerceptualSimilarity) else None


def train_on_cpu_without_cuda() -> None:
    """The trainer's device is CUDA unless the user says otherwise: without any, take the CPU and say so."""
    from nerfstudio.engine.trainer import Trainer, TrainerConfig

    original = Trainer.__init__

    @functools.wraps(original)
    def construct(self: Trainer, config: TrainerConfig, *args: Any, **kwargs: Any) -> None:
        if config.machine.device_type == "cuda" and not torch.cuda.is_available():
            _say("No CUDA device: training on the CPU (--machine.device-type cpu).")
            config.machine.device_type = "cpu"
        original(self, config, *args, **kwargs)

    Trainer.__init__ = construct


def say_once_that_tinycudann_is_absent() -> None:
    """The layers fall back to torch by themselves, with three lines of warning for each of them."""
    from nerfstudio.field_components import encodings, mlp

    @functools.cache
    def say() -> None:
        _say("tinycudann is not installed: hash grids and small networks run in torch, slower.")

    @functools.wraps(encodings.print_tcnn_speed_warning)
    def print_tcnn_speed_warning(module_name: str) -> None:
        say()

    encodings.print_tcnn_speed_warning = mlp.print_tcnn_speed_warning = print_tcnn_speed_warning


def apply() -> None:
    """Apply every work-around, and say which one cannot be."""
    for work_around in WORK_AROUNDS:
        try:
            work_around()
        except Exception as error:  # whatever it is, it must not stop a method that is not ours
            version = importlib.metadata.version("nerfstudio")
            _say(f"{work_around.__name__} is not applied to nerfstudio {version} (made for {SUPPORTED}): {error!r}")


def _say(message: str) -> None:
    CONSOLE.print(f"[bold yellow]csd_nerf:[/bold yellow] {escape(message)}", highlight=False)


WORK_AROUNDS = (
    allow_numpy_scalars,
    find_ffmpeg,
    build_lpips_on_first_use,
    train_on_cpu_without_cuda,
    say_once_that_tinycudann_is_absent,
)

apply()
