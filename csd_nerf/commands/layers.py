"""`csd layers`: edit a picture by a layer over it. Heavy libraries load when it runs, not for its help."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from csd_nerf.commands.edit_flags import own_flags
from csd_nerf.commands.loss_flags import LossFlags, loss_words
from csd_nerf.commands.sitting import conclude, ended_at_once, finishing, say, sitting
from csd_nerf.durations import duration

if TYPE_CHECKING:
    from torch import Tensor

    from csd_nerf.images.checkpoint import Checkpoint
    from csd_nerf.images.layers import LayerResult, LayerSettings
    from csd_nerf.images.layers_edit import LayerEdit
    from csd_nerf.images.picture_files import Picture


@dataclass(frozen=True)
class LayerFlags(LossFlags):
    """Which model guides, and by which losses. What is left out takes this command's value, or the toy prior's own."""

    steps: int | None = None
    """Optimisation steps; default: 1000 (the paper states none), with the toy prior 300."""
    lr: float | None = None
    """Learning rate of Adam for the layer's generator; default: 0.0025, Text2LIVE's first; with the toy
    prior it falls to a tenth."""
    guidance: float | None = None
    """Text guidance; default: 7.5, with the toy prior and csd-edit, no-svgd or dds 3."""
    t_min: float | None = None
    """Lowest noise level, a fraction of the schedule; default: 0.2, with the toy prior 0.02."""
    t_max: float | None = None
    """Highest noise level; default: 0.98, with the toy prior and csd-edit, no-svgd or dds 0.8."""


@dataclass(frozen=True)
class Layers:
    """Edit a picture by a layer with opacity over it: for a compositor.

    Ctrl-C writes what is reached; the same command with --resume goes on from there.
    """

    input: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IN")]
    """The picture: any format that Pillow reads."""
    output: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Folder for composite.png, layer.png (straight alpha) and alpha.png, with 16 bits a channel if IN has them."""
    prompt: str = ""
    """Caption of what is wanted, such as "a blue mushroom on a meadow"; for csd-edit and no-svgd an instruction."""
    editor: Literal["lsd", "csd", "csd-edit", "no-svgd", "dds"] = "lsd"
    """lsd is the paper's; csd has the kernel; csd-edit and no-svgd take an instruction and an InstructPix2Pix (--prior
    instruct-pix2pix or toy); dds takes two captions."""
    source_prompt: str = ""
    """Caption of what is there, for the editor dds."""
    image_guidance: float | None = None
    """Image guidance of csd-edit and no-svgd; default: 1.5."""
    mask: Path | None = None
    """Where the layer should be: what is white in a picture of the same size."""
    mask_object: str | None = None
    """Where the layer should be: the objects of this COCO name that torchvision's Mask R-CNN finds, such as bear."""
    mask_weights: Path | None = None
    """A local copy of Mask R-CNN's weights; default: from torchvision's server."""
    lambda_mask: float | None = None
    """Weight of the mask supervision; default: the paper's 1, with the toy prior its own."""
    lambda_sparsity: float | None = None
    """Weight of Text2LIVE's regulariser of the opacity, where there is no mask; default: 0, with the toy prior its
    own."""
    latent_lr: float | None = None
    """Learning rate of Adam for the residual latent; 0 leaves it out; default: 0.02."""
    guide: Literal["both", "latent"] = "both"
    """Whether the losses see the layer's latent and the composite's, or the first alone, at half the cost."""
    resume: bool = False
    """Go on from where this command was stopped."""
    flags: Annotated[LayerFlags, tyro.conf.arg(name="")] = field(default_factory=LayerFlags)

    def run(self) -> int:
        """Edit and write; status 130 if it was stopped."""
        with own_flags():
            return self._run()

    def _run(self) -> int:
        from csd_nerf.images.checkpoint import checkpoint_path, load_checkpoint
        from csd_nerf.images.layers_edit import prepare_layers
        from csd_nerf.images.picture_files import read_picture

        kept, settings = self._check(), self._settings()
        settings.validate()
        picture = read_picture(self.input)
        asked = self._asked(settings)
        before = load_checkpoint(checkpoint_path(kept), asked) if self.resume else None
        mask, flags = self._mask(picture), self.flags
        prior = flags.load(needs_image=self.editor in ("csd-edit", "no-svgd"))
        work = prepare_layers(prior, picture.image, self.prompt, settings, mask, flags.negative, flags.seed)
        height, width = work.shown.size
        say(
            f"{picture.image.shape[-1]} x {picture.image.shape[-2]} pixels, worked on at {width} x {height}, "
            f"{work.settings.steps} steps" + (f", going on from step {before.step}" if before else "")
        )
        with finishing(kept, asked):
            result, failure = self._edit(work, kept, before, asked)
            if result.checkpoint.step == 0:
                return ended_at_once(failure)
            self._write(result, picture)
        return conclude(kept, asked, result.checkpoint, work.settings.steps, result.complete, failure)

    def _check(self) -> Path:
        """What can be said before anything is read; the file of the composite."""
        from csd_nerf.images.checkpoint import checkpoint_path, load_checkpoint
        from csd_nerf.images.layers import layer_files
        from csd_nerf.images.picture_files import check_picture_output

        if not self.prompt.strip():
            raise ValueError('--prompt is empty: say what is wanted, such as --prompt "a blue mushroom on a meadow"')
        if self.output.exists() and not self.output.is_dir():
            raise ValueError(f"OUT {self.output} is a file: give a folder, for three pictures")
        if self.mask is not None and self.mask_object is not None:
            raise ValueError("--mask and --mask-object both say where the layer should be: leave one of them out")
        if self.mask_weights is not None and self.mask_object is None:
            raise ValueError("--mask-weights is for --mask-object: give that, or leave it out")
        if self.mask is None and self.mask_object is None and self.lambda_mask is not None:
            raise ValueError(f"--lambda-mask {self.lambda_mask} has no mask: give --mask FILE, or leave it out")
        if (self.mask is not None or self.mask_object is not None) and self.lambda_sparsity is not None:
            raise ValueError(f"--lambda-sparsity {self.lambda_sparsity} is for layers without a mask: leave one out")
        if self.image_guidance is not None and self.editor not in ("csd-edit", "no-svgd"):
            raise ValueError(f"--image-guidance has no meaning for --editor {self.editor}: leave one of them out")
        composite = self.output / "composite.png"
        for path in layer_files(self.output).values():
            check_picture_output(path)
            for name, read in (("IN", self.input), ("--mask", self.mask)):
                if read is not None and read.exists() and path.exists() and read.samefile(path):
                    raise ValueError(
                        f"OUT {self.output} holds {name} as {path.name}, which would be lost: give another folder"
                    )
        if self.resume and not checkpoint_path(composite).is_file():
            load_checkpoint(checkpoint_path(composite), {})  # which says what is wrong
        return composite

    def _settings(self) -> "LayerSettings":
        from csd_nerf.distill import LDP_WEIGHTS
        from csd_nerf.images.layers import LayerSettings, toy_settings

        given = {
            "lambda_mask": self.lambda_mask,
            "lambda_sparsity": self.lambda_sparsity,
            "latent_lr": self.latent_lr,
            "image_guidance_scale": self.image_guidance,
        }
        chosen = self.flags.chosen(toy_settings(self.editor), LDP_WEIGHTS["layers"])
        settings = LayerSettings(**chosen, editor=self.editor, guide=self.guide, source_prompt=self.source_prompt)
        return replace(settings, **{name: value for name, value in given.items() if value is not None})

    def _mask(self, picture: "Picture") -> "Tensor | None":
        """Where the layer should be. Raises `ValueError` for a mask of another size, or an empty one."""
        from csd_nerf.images.layers import check_mask
        from csd_nerf.images.regions import read_mask

        if self.mask is not None:
            mask = read_mask(self.mask)
            check_mask(mask, (picture.image.shape[-2], picture.image.shape[-1]), f"--mask {self.mask}")
            return mask
        if self.mask_object is None:
            return None
        from csd_nerf.priors.mask_rcnn import check_name, coco_names, load_mask_rcnn

        check_name(self.mask_object, coco_names())
        return load_mask_rcnn(self.mask_weights)(picture.image, self.mask_object)

    def _asked(self, settings: "LayerSettings") -> dict[str, Any]:
        """What decides the result, in words. A found mask counts by its name: its last bits depend on the machine."""
        from csd_nerf.images.checkpoint import content_digest

        files = {"IN": self.input, "--mask": self.mask, "--mask-weights": self.mask_weights}
        digests = {name: content_digest([path]) for name, path in files.items() if path is not None and path.is_file()}
        return {**digests, "--mask-object": self.mask_object, "prompt": self.prompt, **self.flags.asked(settings)}

    def _edit(
        self, work: "LayerEdit", kept: Path, before: "Checkpoint | None", asked: dict[str, Any]
    ) -> "tuple[LayerResult, Exception | None]":
        """Do the work: the result, and why it ended before its time."""
        from csd_nerf.distill import NonFiniteError

        with sitting(kept, asked, before.step if before else 0) as hooks:
            try:
                return work.run(before, hooks), None
            except NonFiniteError as error:
                if error.partial is None:  # there is nothing to show
                    raise
                return error.partial, error

    def _write(self, result: "LayerResult", picture: "Picture") -> None:
        from csd_nerf.images.layers import write_layers

        written = write_layers(self.output, result, picture)
        if result.losses is not None:
            say(f"{loss_words(result.losses)} over the last tenth of the steps")
        state = result.checkpoint
        spent = f"{state.network_samples} network samples, {duration(state.seconds)}"
        covered = f"the layer covers {100 * float(result.alpha.mean()):.0f} %"
        say(f"{', '.join(str(path) for path in written)} ({covered}; {spent})")
