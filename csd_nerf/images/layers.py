"""Layered editing of a picture: an edit layer with opacity over the picture (LDP Section 5.3, Figure 9; Text2LIVE).

    from pathlib import Path
    from csd_nerf.images import edit_layers, read_picture
    from csd_nerf.images.layers import TOY, LayerSettings, write_layers
    from csd_nerf.priors import load_prior

    picture = read_picture(Path("mushroom.png"))
    settings = LayerSettings(**TOY)
    result = edit_layers(load_prior("toy"), picture.image, "a blue mushroom on a meadow, front view", settings)
    write_layers(Path("edited"), result, picture)

With the picture I, Text2LIVE's generator G, the frozen encoder E and decoder D, and a residual latent r:

    (l, a) = G(I)            I'  = a l + (1 - a) I
    v = E(I') + r            I'' = a D(v) + (1 - a) I

G and r are trained by the losses of LDP Eq. 4 "on v'' and I''": the particles are v and E(I''), two for one picture.
To them comes `lambda_mask mean |a - M|` where a mask M is given, and Text2LIVE's `lambda_sparsity (mean a + mean (2
sigmoid(5 a) - 1))` (its Eq. 6), which keeps a layer without a mask from covering everything.

The layer D(v) and its opacity a are what a compositor needs: I'' is that layer over I, in sRGB, with straight
(unpremultiplied) alpha. All of it is worked out at the prior's size; layer and opacity are then enlarged, so that the
picture keeps its full detail wherever the layer is clear.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from csd_nerf.distill import LDP_WEIGHTS, EditSettings, ImagePrior, LossRecord, LossWeights, edit_size
from csd_nerf.images.checkpoint import Checkpoint
from csd_nerf.images.layers_network import ACROSS, DOWN_UP, SCALES
from csd_nerf.images.picture_files import Picture, write_picture
from csd_nerf.images.running import Hooks
from csd_nerf.images.synthesis import check_prompt, check_weights
from csd_nerf.priors.autoencoder import Autoencoder
from csd_nerf.priors.decoder_features import DEFAULT_LEVELS, decoder_of

LayerEditor = Literal["lsd", "csd", "csd-edit", "no-svgd", "dds"]
"""What guides: `lsd` is LDP's (the prompt is a caption; any model), `csd` the same with the RBF kernel between the two
particles; `csd-edit` (the prompt is an instruction; InstructPix2Pix) subtracts the source's estimate, `no-svgd` is the
same without a kernel, `dds` does it by captions of before and after."""


@dataclass(frozen=True, kw_only=True)
class LayerSettings:
    """How a layer is made. The lambdas are LDP Section 5.3's, the generator is Text2LIVE's."""

    editor: LayerEditor = "lsd"
    losses: LossWeights = LDP_WEIGHTS["layers"]
    """Lambdas of LDP Eq. 4."""
    lambda_mask: float = 1.0
    """Of mean |a - M|, where a mask is given."""
    lambda_sparsity: float = 0.0
    """Of Text2LIVE's regulariser of the opacity; only without a mask."""
    guide: Literal["both", "latent"] = "both"
    """Whether the losses see v and E(I''), as the paper says, or v alone, at half the cost."""
    steps: int = 1000
    lr: float = 0.0025
    """Learning rate of Adam for the generator. Text2LIVE's first one, which it gives MADGRAD and shrinks by 1 % a
    step, down to 1e-5; LDP states none."""
    latent_lr: float = 0.02
    """Learning rate of Adam for the residual latent; LDP states none. 0 leaves it out."""
    lr_end: float = 1.0
    """Share of the learning rates that the last step has; they fall linearly."""
    guidance_scale: float = 7.5
    image_guidance_scale: float = 1.5
    """Of `csd-edit` and `no-svgd`."""
    t_min: float = 0.2
    t_max: float = 0.98
    source_prompt: str = ""
    """Caption of the picture as it is, for `dds`."""
    levels: tuple[str, ...] = DEFAULT_LEVELS
    """Of the decoder, for feature matching."""
    width: int = DOWN_UP
    """Channels of the generator."""
    across: int = ACROSS
    scales: int = SCALES

    def edit_settings(self) -> EditSettings:
        """Those of the editors that `csd panorama` has, too."""
        assert self.editor not in ("lsd", "csd")
        image = None if self.editor == "dds" else self.image_guidance_scale
        return EditSettings(
            editor=self.editor,
            guidance_scale=self.guidance_scale,
            image_guidance_scale=image,
            t_min=self.t_min,
            t_max=self.t_max,
            source_prompt=self.source_prompt,
            noise="independent",
        )

    def validate(self) -> None:
        """Raise `ValueError`, naming the field and the remedy, for values that cannot work."""
        if self.editor not in get_args(LayerEditor):
            raise ValueError(f"editor={self.editor} is unknown: choose {', '.join(get_args(LayerEditor))}")
        problems = [
            (self.guide not in ("both", "latent"), f"guide={self.guide} is unknown: choose both or latent"),
            (
                self.editor == "csd" and self.guide == "latent",
                "guide=latent leaves one particle, so that editor=csd has nothing to mix: leave one of them out",
            ),
            (
                min(self.width, self.across, self.scales) < 1,
                f"width={self.width}, across={self.across}, scales={self.scales}: give at least 1 of each",
            ),
            (self.steps < 1, f"steps={self.steps}: give at least 1"),
            (not 0 < self.lr < math.inf, f"lr={self.lr}: give a positive learning rate"),
            (not 0 <= self.latent_lr < math.inf, f"latent_lr={self.latent_lr}: give 0 or more"),
            (not 0 <= self.lr_end <= 1, f"lr_end={self.lr_end}: give a share in [0, 1]"),
            (not 0 <= self.lambda_mask < math.inf, f"lambda_mask={self.lambda_mask}: give 0 or more"),
            (not 0 <= self.lambda_sparsity < math.inf, f"lambda_sparsity={self.lambda_sparsity}: give 0 or more"),
            (not 0 <= self.guidance_scale < math.inf, f"guidance_scale={self.guidance_scale}: give 0 or more"),
            (not 0 <= self.t_min <= 1, f"t_min={self.t_min}: give a fraction of the schedule in [0, 1]"),
            (not 0 <= self.t_max <= 1, f"t_max={self.t_max}: give a fraction of the schedule in [0, 1]"),
            (self.t_min > self.t_max, f"t_min={self.t_min} is above t_max={self.t_max}: swap them"),
            (
                bool(self.source_prompt.strip()) and self.editor != "dds",
                f'source_prompt="{self.source_prompt}" has no meaning for editor={self.editor}: leave one of them out',
            ),
        ]
        for wrong, message in problems:
            if wrong:
                raise ValueError(message)
        check_weights(self.losses)
        if self.editor not in ("lsd", "csd"):
            self.edit_settings().validate()


TOY: Mapping[str, Any] = {
    "losses": LossWeights(feature_matching=0.005, kl=0.1),
    "lambda_mask": 300.0,
    "lambda_sparsity": 100.0,
    "steps": 300,
    "lr_end": 0.1,
    "t_min": 0.02,
    "width": 32,
    "scales": 4,
}
"""Settings for the toy prior, found by looking. At 0.02 feature matching's gradient is twice that of LSD, and the layer
spreads over the ground (`benchmarks/results/layers`)."""


def toy_settings(editor: LayerEditor) -> Mapping[str, Any]:
    """`TOY` for an editor. Where the source estimate is subtracted gradients are weaker, and so is what tames them."""
    if editor in ("lsd", "csd"):
        return TOY
    losses = LossWeights(feature_matching=0.002, kl=0.02)
    return {**TOY, "losses": losses, "guidance_scale": 3.0, "t_max": 0.8, "lambda_mask": 100.0, "lambda_sparsity": 15.0}


@dataclass(frozen=True)
class LayerResult:
    """A picture with its edit layer, all of the picture's size, float32 on the CPU, in [0, 1]."""

    layer: Float[Tensor, "3 H W"]
    """Colours of the layer, D(v); not premultiplied, and without meaning where the opacity is 0."""
    alpha: Float[Tensor, "H W"]
    """Opacity a."""
    composite: Float[Tensor, "3 H W"]
    """The layer over the picture, I''."""
    losses: LossRecord | None
    """What each loss did: means over the last tenth of the steps; None if none of them was made."""
    checkpoint: Checkpoint
    """Where it stands."""
    complete: bool = True
    """False if it was stopped before the last step."""


def edit_layers(
    prior: ImagePrior,
    picture: Float[Tensor, "3 H W"],
    prompt: str,
    settings: LayerSettings | None = None,
    *,
    mask: Float[Tensor, "_H _W"] | None = None,
    negative_prompt: str = "",
    seed: int = 0,
    resume: Checkpoint | None = None,
    on_step: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> LayerResult:
    """Edit a picture by a layer over it.

    Args:
        prior: A latent diffusion model; `csd-edit` and `no-svgd` need InstructPix2Pix.
        picture: In [0, 1]; not smaller than what the prior sees of it.
        prompt: Caption of what is wanted; for `csd-edit` and `no-svgd` the instruction.
        settings: None takes the paper's.
        mask: Where the layer should be, in [0, 1]; None leaves it to the losses.
        negative_prompt: What to stay away from.
        seed: Same seed, same layer.
        resume: Go on from where a call with the same arguments was stopped.
        on_step: Called as `on_step(done, total)`.
        should_stop: When it turns true, what was reached is returned.

    Raises `ValueError`, before any work, for what cannot work, and `NonFiniteError` with the `LayerResult` reached
    before in `partial`; where that cannot be decoded either, None.
    """
    from csd_nerf.images.layers_edit import prepare_layers

    work = prepare_layers(prior, picture, prompt, settings or LayerSettings(), mask, negative_prompt, seed)
    return work.run(resume, Hooks(on_step, should_stop=should_stop))


def check_layers(
    prior: ImagePrior,
    size: tuple[int, int],
    prompt: str,
    settings: LayerSettings,
    mask: Float[Tensor, "H W"] | None,
) -> tuple[int, int]:
    """The height and width at which a picture of `size` is worked on.

    Raises `ValueError` at once for what would fail later.
    """
    check_prompt(prompt)
    settings.validate()
    if not isinstance(getattr(prior, "autoencoder", None), Autoencoder):
        raise ValueError(
            f"prior {prior.name!r} works on pixels and has no decoder to draw the layer with: take a latent diffusion "
            "model"
        )
    if settings.losses.feature_matching:
        decoder_of(prior, settings.levels)
    if settings.editor in ("csd-edit", "no-svgd") and not prior.takes_image:
        raise ValueError(
            f"editor={settings.editor}: prior {prior.name!r} has no image input; take editor lsd, csd or dds, or an "
            "InstructPix2Pix"
        )
    height, width = size
    worked = edit_size(height, width, prior.size, prior.factor)
    if height < worked[0] or width < worked[1]:
        raise ValueError(
            f"the picture has {width} x {height} pixels, less than the {worked[1]} x {worked[0]} at which prior "
            f"{prior.name!r} works: give a larger picture, or enlarge this one"
        )
    if mask is not None:
        check_mask(mask, size)
    return worked


def check_mask(mask: Float[Tensor, "H W"], size: tuple[int, int], name: str = "the mask") -> None:
    """Raise `ValueError`, with the mask's `name`, unless it has a picture's height and width and covers something."""
    if tuple(mask.shape) != size:
        raise ValueError(
            f"{name} has {mask.shape[1]} x {mask.shape[0]} pixels, but the picture has {size[1]} x {size[0]}: give a "
            "mask of the picture's size"
        )
    if not ((mask >= 0) & (mask <= 1)).all():
        raise ValueError(f"{name} has values outside [0, 1]: scale them")
    if not mask.any():
        raise ValueError(f"{name} is empty: at least one pixel must not be black (or clear)")


def layer_files(folder: Path) -> dict[str, Path]:
    """What `write_layers` writes: the files of composite, layer and alpha."""
    return {name: folder / f"{name}.png" for name in ("composite", "layer", "alpha")}


def write_layers(folder: Path, result: LayerResult, picture: Picture) -> list[Path]:
    """Write composite.png, layer.png (straight alpha) and alpha.png, with 16 bits if the picture had them.

    Where the picture itself is transparent, so is the composite: layer over picture, by Porter and Duff.
    """
    files = layer_files(folder)
    composite, opacity = result.composite, None
    if picture.alpha is not None:
        opacity = result.alpha + picture.alpha * (1 - result.alpha)
        colours = result.alpha * result.layer + (1 - result.alpha) * picture.alpha * picture.image
        composite = torch.where(opacity > 0, colours / opacity.clamp_min(1e-6), picture.image)
    write_picture(files["composite"], composite, opacity, bits=picture.bits)
    write_picture(files["layer"], result.layer, result.alpha, bits=picture.bits)
    write_picture(files["alpha"], result.alpha.expand(3, -1, -1), bits=picture.bits)
    return list(files.values())
