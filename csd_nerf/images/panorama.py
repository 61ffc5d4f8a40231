"""Panoramas and other pictures of any size: overlapping patches as particles (CSD Sections 4.1, B.4, C.1, D.1).

    from pathlib import Path
    from csd_nerf.images import edit_panorama, read_picture, write_picture
    from csd_nerf.priors import load_prior

    picture = read_picture(Path("river.jpg"))
    result = edit_panorama(load_prior("toy"), picture.image, "make it night")
    write_picture(Path("night.png"), result.image)

The picture is encoded once, in tiles, and its latents are the canvas that is optimised. Patches have the size of the
pictures that the prior was trained on and are taken from the picture as it is: nothing is stretched. Sides that do not
fit are padded, and cropped back in the end.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.distill import EditSettings, ImagePrior, check_edit
from csd_nerf.distill.editors import Editor
from csd_nerf.images.checkpoint import Checkpoint
from csd_nerf.images.layout import PanoramaLayout, panorama_layout
from csd_nerf.images.panorama_edit import OnPicture, PanoramaResult, prepare
from csd_nerf.images.regions import Region
from csd_nerf.images.running import Hooks, with_steps

PanoramaEditor = Literal["csd-edit", "no-svgd", "random-noise", "sds", "dds", "ip2p-patches", "multidiffusion"]
"""CSD-Edit and its ablations, Delta Denoising Score, and the baselines of CSD Section 4.1."""
_SAMPLERS: dict[str, Editor] = {"ip2p-patches": "ip2p", "multidiffusion": "ip2p"}
BATCH_SIZE = 4
"""Patches in a step (CSD C.1), where no number is given."""
DEFAULT_SETTINGS = EditSettings()
"""The corrected preset."""


def edit_panorama(
    prior: ImagePrior,
    picture: Float[Tensor, "3 H W"],
    prompt: str = "",
    *,
    regions: Sequence[Region] = (),
    editor: PanoramaEditor = "csd-edit",
    settings: EditSettings = DEFAULT_SETTINGS,
    negative_prompt: str = "",
    stride: int | None = None,
    wrap: bool = False,
    seed: int = 0,
    resume: Checkpoint | None = None,
    on_step: Callable[[int, int], None] | None = None,
    on_picture: OnPicture | None = None,
    picture_every: int | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> PanoramaResult:
    """Edit a picture of any size with one instruction, or with several that each concern a region.

    Args:
        prior: InstructPix2Pix, or for `dds` any other.
        picture: In [0, 1].
        prompt: The instruction for what no region covers; empty leaves that as it is.
        regions: Instructions of their own for parts of the picture (CSD D.1).
        editor: CSD-Edit, its ablations, or a baseline of CSD Section 4.1.
        settings: Whose `editor` does not count; `steps` and `batch_size` (patches in a step) do. Without `steps` there
            are as many as optimise each latent pixel as often as 200 do in the paper (`PanoramaLayout.steps`), and the
            learning rate falls ten times over them, whatever `lr_decay_every` says; editors that sample make 50.
        negative_prompt: What to stay away from.
        stride: Distance of neighbouring patches in latent pixels; None is a quarter of a patch. Not for ip2p-patches.
        wrap: Whether left and right are neighbours, as in 360-degree pictures. Not for ip2p-patches.
        seed: Same seed, same picture.
        resume: Go on from where an edit with the same arguments was stopped.
        on_step: Called as `on_step(done, total)`.
        on_picture: Called with the number of steps made and what the picture looks like then.
        picture_every: Steps between two such calls; the last one is of the result in any case.
        should_stop: When it turns true, what was reached is returned.

    Raises `ValueError`, before any work, for what cannot work, and `NonFiniteError` with the `PanoramaResult` reached
    before in `partial`; its particle is a patch.
    """
    chosen = settings_for(editor, settings)
    layout = layout_for(prior, picture, editor, chosen, stride=stride, wrap=wrap)
    chosen = with_steps(chosen, layout.steps(chosen.batch_size or BATCH_SIZE))
    check_panorama(prior, prompt, regions, chosen)
    generator = torch.Generator().manual_seed(seed)
    edit = prepare(prior, picture, (prompt, negative_prompt), regions, layout, chosen, generator)
    return edit.run(resume, Hooks(on_step, should_stop=should_stop), on_picture, picture_every)


def layout_for(
    prior: ImagePrior,
    picture: Float[Tensor, "3 H W"],
    editor: PanoramaEditor,
    settings: EditSettings,
    *,
    stride: int | None,
    wrap: bool,
) -> PanoramaLayout:
    """How a panorama's editor cuts this picture: as the paper does, or with a border as well edited as the middle.

    Raises `ValueError` for a stride, and for a wish to wrap around, where patches lie side by side.
    """
    for name, value in (("stride", stride), ("wrap", wrap or None)):
        if editor == "ip2p-patches" and value is not None:
            raise ValueError(
                f"{name}={value} has no meaning for editor={editor}, whose patches lie side by side: leave it out"
            )
    height, width = picture.shape[-2:]
    even = settings.preset == "corrected" and not settings.parts.samples
    side_by_side = editor == "ip2p-patches"
    return panorama_layout(prior, height, width, stride=stride, wrap=wrap, side_by_side=side_by_side, even=even)


def settings_for(editor: PanoramaEditor, settings: EditSettings) -> EditSettings:
    """The settings of a panorama's editor. Values that another editor would use are left out where it has none."""
    chosen = replace(settings, editor=_SAMPLERS.get(editor, editor))
    distils = not chosen.parts.samples
    return replace(chosen, batch_size=BATCH_SIZE) if distils and chosen.batch_size is None else chosen


def check_panorama(prior: ImagePrior, prompt: str, regions: Sequence[Region], settings: EditSettings) -> None:
    """Raise `ValueError` at once for what would fail later."""
    prompts = [*([prompt] if prompt.strip() or not regions else []), *(region.prompt for region in regions)]
    for one in prompts:
        check_edit(prior, one, replace(settings, noise=None) if settings.noise == "canvas" else settings)
