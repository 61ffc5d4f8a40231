"""`csd stylegan train-toy`: a small StyleGAN2 from pictures of the toy world."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from csd_nerf.commands.devices import chosen_device
from csd_nerf.commands.edit_flags import check_seed, own_flags
from csd_nerf.commands.sitting import conclude, finishing, keep, progress, say, sitting

if TYPE_CHECKING:
    from torch import Tensor

    from csd_nerf.images.checkpoint import Checkpoint
    from csd_nerf.images.stylegan.training import Training, TrainingRecord
    from csd_nerf.toyworld.portraits import Portraits

_SHOWN = 40


@dataclass(frozen=True)
class TrainToy:
    """Train a small StyleGAN2 on procedural pictures of one kind of thing: 64 pixels, an hour or two of one core.

    Ctrl-C writes the generator as it is; the same command with --resume goes on from there, with more --steps too (the
    learning rate, which falls over the last 15 % of the steps, then rises again). So that it can, OUT.resume stays
    beside a complete OUT, and is never overwritten without --resume.
    """

    output: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """The generator, .safetensors; samples beside it, .png."""
    objects: tuple[str, ...] = ("mushroom",)
    """What the pictures show: mushroom snowman house car cat teapot robot tree duck bear."""
    colours: tuple[str, ...] = ("red",)
    """In which colours."""
    backgrounds: tuple[str, ...] = ("studio", "meadow", "sand")
    """Where: studio meadow sand sea floor."""
    pictures: int = 2400
    """How many pictures to draw; they are kept beside OUT until the training is complete."""
    steps: int = 12000
    """Steps of generator and discriminator."""
    batch_size: int = 16
    channels: tuple[int, ...] = (128, 128, 64, 32, 16)
    """Features at 4 x 4, 8 x 8, ... 64 x 64 pixels."""
    style: int = 128
    """Length of z and w."""
    mapping_layers: int = 2
    lr: float = 0.0025
    """Adam's learning rate."""
    r1: float = 0.1
    """Weight of R1."""
    path_weight: float = 0.0
    """Weight of the path-length regulariser; StyleGAN2's own is 2, and makes steps a tenth slower."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of convolutions; bf16 is a third quicker on CPUs that compute in it."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    workers: int = 2
    """Processes that draw the pictures."""
    seed: int = 0
    """Of weights and batches."""
    resume: bool = False
    """Go on from where this command was stopped."""

    def run(self) -> int:
        """Train and write; status 130 if it was stopped."""
        with own_flags():
            return self._run()

    def _run(self) -> int:
        from csd_nerf.images.checkpoint import checkpoint_path, load_checkpoint
        from csd_nerf.images.stylegan.training import DivergedError

        portraits = self._check()
        training, asked = self._training(), self._asked()
        before = load_checkpoint(checkpoint_path(self.output), asked) if self.resume else None
        if before is not None:
            training.load_state_dict(before.networks)
        data = self._pictures(portraits)
        say(f"{len(data)} pictures of {portraits.size} x {portraits.size} pixels, step {training.step} of {self.steps}")
        first, failure = training.step, None
        with sitting(self.output, asked, training.step, "Training") as hooks:

            def on_step(record: "TrainingRecord") -> None:
                if hooks.on_step is not None:
                    hooks.on_step(record.step, self.steps)
                if hooks.on_state is not None:
                    hooks.on_state(record.step, lambda: self._state(training))

            try:
                training.run(data, on_step, hooks.should_stop)
            except DivergedError as error:
                failure = error
        if failure is not None and training.step == first:
            raise failure
        state = self._state(training)
        # What is complete keeps its state as well: more steps may be asked for.
        if failure is None:
            keep(self.output, asked, state)
        try:
            with finishing(self.output, asked, self.output.with_suffix(".png")) as written:
                self._write(training, written)
        except ValueError as error:
            raise ValueError(f"{failure}. Nor was what was reached written: {error}" if failure else error) from error
        if failure is None and training.step >= self.steps:
            self._drawn().unlink(missing_ok=True)
            say(f"{self.output}: complete; {checkpoint_path(self.output)} is for --resume with more --steps")
            return 0
        return conclude(self.output, asked, state, self.steps, False, failure)

    def _check(self) -> "Portraits":
        """What can be said before anything is drawn; what is to be drawn."""
        from csd_nerf.images.checkpoint import checkpoint_path, load_checkpoint
        from csd_nerf.images.stylegan.files import check_output
        from csd_nerf.toyworld.portraits import Portraits

        check_output(self.output)
        check_seed(self.seed)
        if self.pictures < 1:
            raise ValueError(f"--pictures {self.pictures}: give at least 1")
        if self.workers < 0:
            raise ValueError(f"--workers {self.workers}: give 0, for no process beside this one, or more")
        kept = checkpoint_path(self.output)
        if self.resume and not kept.is_file():
            load_checkpoint(kept, {})  # which says what is wrong
        if not self.resume and kept.is_file():
            raise ValueError(
                f"{kept} is the state of an earlier training, which would be lost: give --resume to go on from it, "
                "name another OUT, or remove it to start anew"
            )
        return Portraits(self.objects, self.colours, self.backgrounds, 4 * 2 ** max(0, len(self.channels) - 1))

    def _training(self) -> "Training":
        import torch

        from csd_nerf.images.stylegan.generator import GeneratorShape
        from csd_nerf.images.stylegan.training import Training, TrainingSettings

        settings = TrainingSettings(
            steps=self.steps,
            batch_size=self.batch_size,
            lr=self.lr,
            r1=self.r1,
            path_weight=self.path_weight,
            bfloat16=self.precision == "bf16",
        )
        shape = GeneratorShape(self.channels, self.style, self.mapping_layers)
        return Training(shape, settings, self.seed, torch.device(chosen_device(self.device)))

    def _asked(self) -> dict[str, Any]:
        """What decides the result, by the names of the flags; more steps may be asked for later."""
        own = {name: value for name, value in asdict(self).items() if name not in _NOT_DECISIVE}
        return {name: " ".join(map(str, value)) if isinstance(value, tuple) else value for name, value in own.items()}

    def _drawn(self) -> Path:
        return self.output.with_name(f"{self.output.stem}.pictures.safetensors")

    def _pictures(self, portraits: "Portraits") -> "Tensor":
        """The training pictures: drawn, or those of an earlier sitting."""
        from safetensors import SafetensorError, safe_open
        from safetensors.torch import save_file

        from csd_nerf.toyworld.portraits import draw_portraits
        from csd_nerf.whole_files import write_atomically

        path, facts = self._drawn(), {"what": f"{portraits}, {self.pictures}"}
        if path.is_file():
            with suppress(SafetensorError), safe_open(str(path), "pt") as stored:  # what is damaged is drawn anew
                if stored.metadata() == facts:
                    return stored.get_tensor("pictures")
        with progress("Drawing") as update:
            drawn = draw_portraits(portraits, self.pictures, workers=self.workers, on_step=update)
        write_atomically(path, lambda temporary: save_file({"pictures": drawn}, str(temporary), metadata=facts))
        return drawn

    def _state(self, training: "Training") -> "Checkpoint":
        import torch

        from csd_nerf.images.checkpoint import Checkpoint

        state = training.state_dict()
        return Checkpoint(training.step, torch.empty(0), state["random"], networks=state)

    def _write(self, training: "Training", written: Callable[[Path], None]) -> None:
        from csd_nerf.images.stylegan.files import save_generator
        from csd_nerf.images.stylegan.showing import sample
        from csd_nerf.images.writing import contact_sheet
        from csd_nerf.whole_files import write_atomically

        generator = training.finished()
        save_generator(self.output, generator, "rosinality", half=True)
        written(self.output)
        shown = list(sample(generator, _SHOWN))
        sheet = contact_sheet([("", shown[i : i + 10]) for i in range(0, _SHOWN, 10)], scale=2)
        write_atomically(self.output.with_suffix(".png"), lambda temporary: sheet.save(temporary))
        written(self.output.with_suffix(".png"))
        say(f"{self.output}, {self.output.with_suffix('.png')} (step {training.step})")


_NOT_DECISIVE = ("output", "steps", "device", "workers", "resume")
