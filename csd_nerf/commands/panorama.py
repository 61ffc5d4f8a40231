"""`csd panorama`: edit a picture of any size. Heavy libraries load when it runs, not for its help."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from csd_nerf.commands.edit_flags import EditFlags, check_alone, check_together, own_flags, preview_path
from csd_nerf.commands.processes import RANK, working_together
from csd_nerf.commands.sitting import conclude, finishing, progress, say, sitting
from csd_nerf.durations import duration

if TYPE_CHECKING:
    from csd_nerf.images.panorama_edit import OnPicture, PanoramaEdit, PanoramaResult
    from csd_nerf.images.picture_files import Picture
    from csd_nerf.images.regions import Region

_ANIMATION_SIDE, _FPS = 1280, 12
Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Panorama:
    """Edit a picture of any size and shape with one instruction, or with several that each concern a region.

    Ctrl-C writes what is reached; the same command with --resume goes on from there.
    """

    input: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IN")]
    """The picture: any format that Pillow reads."""
    output: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """The edited picture: png, webp and tiff keep transparency, jpg and bmp have none, png keeps 16 bits a channel."""
    prompt: str = ""
    """The instruction, such as "make it night"; with regions, for all that none of them covers."""
    region: Annotated[Pairs, tyro.conf.UseAppendAction, tyro.conf.arg(metavar="X0,Y0,X1,Y1 PROMPT")] = ()
    """An instruction for a box, in pixels or percent: --region 0,0,50%,100% "make it snow". Any number of times.
    Without --prompt the rest stays as it is; with editors that subtract no estimate of the source (random-noise, sds)
    or sample, only what is a patch's width away from every region does."""
    mask: Annotated[Pairs, tyro.conf.UseAppendAction, tyro.conf.arg(metavar="FILE PROMPT")] = ()
    """An instruction for what is white in a picture of the same size. Any number of times."""
    editor: Literal["csd-edit", "no-svgd", "random-noise", "sds", "dds", "ip2p-patches", "multidiffusion"] = "csd-edit"
    """csd-edit, its ablations, dds (where --prompt is a caption of what is wanted), or a baseline that samples."""
    noise: Literal["shared", "independent", "canvas"] | None = None
    """All patches see one noise, each its own, or each its part of a canvas: what overlaps then sees the same;
    default: the preset's (each its own)."""
    stride: int | None = None
    """Distance of neighbouring patches in latent pixels; default: a quarter of a patch (16 with Stable Diffusion)."""
    wrap: bool = False
    """Left and right are neighbours, as in 360-degree pictures. Not for ip2p-patches, nor is --stride: their patches
    lie side by side."""
    save_every: int | None = None
    """Also write an animation (OUT with .mp4) with a picture every so many steps; with --resume, of the steps that are
    left, beside the first part (out.from120.mp4)."""
    preview: int | None = None
    """Edit only so many patches, show them before and after in OUT's name with _preview.png, and end."""
    resume: bool = False
    """Go on from where this command was stopped."""
    flags: Annotated[EditFlags, tyro.conf.arg(name="")] = field(default_factory=EditFlags)

    def run(self) -> int:
        """Edit and write; status 130 if it was stopped."""
        with working_together(self.flags.device), own_flags():
            return self._run()

    def _run(self) -> int:
        from csd_nerf.images.checkpoint import checkpoint_path, load_checkpoint

        self._check()
        edit, picture, regions = self._prepared()
        if self.preview is not None:
            return self._preview(edit)
        asked = self._asked(edit, regions)
        before = load_checkpoint(checkpoint_path(self.output), asked) if self.resume else None
        say(
            f"{picture.image.shape[-1]} x {picture.image.shape[-2]} pixels, {edit.layout.patches} patches of "
            f"{edit.prior.size} x {edit.prior.size}, {edit.total} steps"
            + (f", going on from step {before.step}" if before else "")
        )
        with (
            finishing(self.output, asked) as written,
            self._animation(before.step if before else 0) as on_picture,
        ):
            if on_picture is not None and before is None:
                on_picture(0, edit.picture(edit.targets.source))
            with sitting(self.output, asked, before.step if before else 0) as hooks:
                outcome = edit.make_steps(before, hooks, on_picture, self.save_every)
            with progress("Decoding") as update:
                result = edit.result(outcome, update, on_picture)
            if RANK == 0:
                self._write(result, picture)
                written(self.output)  # what comes now is the animation's end
        holds = None if edit.resumable else "shows the source, since sampling has no picture on the way"
        return conclude(self.output, asked, outcome.checkpoint, edit.total, outcome.complete, outcome.failure, holds)

    def _check(self) -> None:
        """What can be said before anything is read."""
        from csd_nerf.images.checkpoint import checkpoint_path, load_checkpoint
        from csd_nerf.images.picture_files import check_picture_output

        check_picture_output(self.output)
        if self.input.exists() and self.output.exists() and self.input.samefile(self.output):
            raise ValueError(f"OUT {self.output} is IN: give another file, the source is still needed")
        for flag, value in (("--save-every", self.save_every), ("--preview", self.preview)):
            if value is not None and value < 1:
                raise ValueError(f"{flag} {value}: give at least 1")
        if self.preview is not None:
            preview_path(self.output, self.input)
        kept = {"--resume": self.resume, "--save-every": self.save_every, "--source-bank": self.flags.source_bank}
        check_alone(self.preview, kept)
        if not (self.prompt.strip() or self.region or self.mask):
            raise ValueError('--prompt is empty: say what to change, such as --prompt "make it night"')
        if self.editor in ("ip2p-patches", "multidiffusion"):
            if self.noise is not None:
                raise ValueError(f"--noise has no meaning for --editor {self.editor}: leave one of them out")
            if self.save_every is not None or (self.resume and not checkpoint_path(self.output).is_file()):
                raise ValueError(f"--editor {self.editor} has no steps to save or to go on from: leave the flag out")
        if self.resume and not checkpoint_path(self.output).is_file():
            load_checkpoint(checkpoint_path(self.output), {})  # which says what is wrong

    def _prepared(self) -> "tuple[PanoramaEdit, Picture, list[Region]]":
        """Read, check and encode."""
        import torch

        from csd_nerf.images.panorama import BATCH_SIZE, check_panorama, layout_for, settings_for
        from csd_nerf.images.panorama_edit import prepare
        from csd_nerf.images.picture_files import WITH_ALPHA, check_picture_output, read_picture
        from csd_nerf.images.running import with_steps

        settings = settings_for(self.editor, self.flags.settings(self.noise))
        self.flags.check_for(settings.editor or "csd-edit", self.editor)
        try:
            settings.validate()
        except ValueError as error:  # it knows the editor by what it is made of
            raise ValueError(str(error).replace(f"editor={settings.editor}", f"editor={self.editor}")) from error
        picture = read_picture(self.input)
        if self.output.suffix.lower() not in WITH_ALPHA and picture.alpha is not None and picture.alpha.min() == 1:
            picture = replace(picture, alpha=None)  # nothing is lost
        height, width = picture.image.shape[-2:]
        check_picture_output(self.output, alpha=picture.alpha is not None, size=(height, width))
        regions = self._regions(height, width)
        prior = self.flags.load(needs_image=self.editor != "dds")
        layout = layout_for(prior, picture.image, self.editor, settings, stride=self.stride, wrap=self.wrap)
        settings = with_steps(settings, layout.steps(settings.batch_size or BATCH_SIZE))
        check_panorama(prior, self.prompt, regions, settings)
        check_together(settings, layout.patches, self.preview)
        generator = torch.Generator().manual_seed(self.flags.seed)
        prompts, bank = (self.prompt, self.flags.negative), self.flags.bank(prior, settings)
        with progress("Reading") as update:
            edit = prepare(
                prior, picture.image, prompts, regions, layout, settings, generator, some=self.preview, on_tile=update
            )
        edit.bank = bank if self.preview is None else None
        return edit, picture, regions

    def _regions(self, height: int, width: int) -> "list[Region]":
        from csd_nerf.images.regions import Region, parse_box, read_mask

        boxes = [Region(prompt, box=parse_box(box, width, height)) for box, prompt in self.region]
        masks = [Region(prompt, mask=read_mask(Path(file)), origin=file) for file, prompt in self.mask]
        for region in masks:
            region.coverage(height, width)  # which says what does not fit
        return boxes + masks

    def _asked(self, edit: "PanoramaEdit", regions: "list[Region]") -> dict[str, Any]:
        """What decides the result, in words."""
        from csd_nerf.images.checkpoint import content_digest

        digest = hashlib.sha256(content_digest([self.input]).encode())
        for region in regions:
            digest.update(repr((region.prompt, region.box)).encode())
            if region.mask is not None:
                digest.update(region.mask.numpy().tobytes())
        return {
            "picture and regions": digest.hexdigest()[:16],
            "prompt": self.prompt,
            "editor": self.editor,
            "patches": len(edit.targets.corners),
            "stride": edit.layout.stride,
            "wrap": self.wrap,
            **self.flags.asked(edit.settings),
        }

    def _preview(self, edit: "PanoramaEdit") -> int:
        from csd_nerf.images.writing import contact_sheet
        from csd_nerf.whole_files import write_atomically

        with progress("Preview") as update:
            before, after = edit.compare(update)
        scale = max(1, 192 // before.shape[-1])
        sheet = contact_sheet([("source", list(before)), ("edited", list(after))], scale=scale)
        path = preview_path(self.output, self.input)
        if RANK == 0:
            write_atomically(path, lambda temporary: sheet.save(temporary))
        say(f"{path}: {len(before)} patches; leave --preview out to edit the whole picture")
        return 0

    @contextmanager
    def _animation(self, first_step: int) -> "Iterator[OnPicture | None]":
        """What takes the pictures of the animation, if one is wanted; it is written as they come."""
        from csd_nerf.distill import resize
        from csd_nerf.images.writing import growing_video

        if self.save_every is None:
            yield None
            return
        path = self.output.with_suffix(f".from{first_step}.mp4" if first_step else ".mp4")
        with ExitStack() as stack:
            add = stack.enter_context(growing_video(path, fps=_FPS)) if RANK == 0 else lambda image: None
            last: list[Any] = []

            def on_picture(done: int, image: Any) -> None:
                shrink = min(1.0, _ANIMATION_SIDE / max(image.shape[-2:]))
                size = (max(2, round(image.shape[-2] * shrink)), max(2, round(image.shape[-1] * shrink)))
                last[:] = [resize(image[None], size)[0]]
                add(last[0])

            yield on_picture
            for image in last * _FPS:  # a second of the result
                add(image)
        say(str(path))

    def _write(self, result: "PanoramaResult", picture: "Picture") -> None:
        """Write what there is."""
        from csd_nerf.images.picture_files import write_picture

        deep = self.output.suffix.lower() == ".png"
        write_picture(self.output, result.image, picture.alpha, bits=picture.bits if deep else 8)
        if picture.bits > 8 and not deep:
            say(f"{self.output} has 8 bits a channel; as .png it would keep the {picture.bits} of {self.input}")
        state = result.checkpoint
        say(f"{self.output} ({state.network_samples} network samples, {duration(state.seconds)})")
