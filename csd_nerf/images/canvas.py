"""The patches of a panorama as particles: they share theta, the canvas, and a step of one moves what others show.

Latents of the whole picture are the canvas; particle i is the patch at `corners[i]`. A step of a batch of patches moves
each latent pixel by the mean over those patches of the batch that show it ("we normalize the gradient of each pixel by
counting the appearance", CSD B.4), each of them weighted by where in the patch the pixel lies if there is a fading.
"""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from csd_nerf.distill import Target
from csd_nerf.distill.distiller import check_finite
from csd_nerf.images.patches import Fading, cut, normalised, scatter


class PatchLatents:
    """A `ParticleSet` whose theta is the canvas."""

    def __init__(
        self,
        canvas: Float[Tensor, "c H W"],
        corners: Int[Tensor, "n 2"],
        patch: tuple[int, int],
        fading: Fading | None = None,
    ) -> None:
        """`corners` are the patches' tops and lefts, `patch` their height and width, all in latent pixels.

        With a `fading` the steps of a patch are weighed by it.
        """
        self.canvas = canvas
        """As it is now; every step makes a new one."""
        self._corners, self._patch, self._fading = corners, patch, fading

    def __len__(self) -> int:
        return len(self._corners)

    def __getitem__(self, rows: Int[Tensor, " m"]) -> Float[Tensor, "m c h w"]:
        """Some patches as they are now."""
        return cut(self.canvas, self._corners[rows], self._patch)

    def descend(self, rows: Int[Tensor, " m"], step: Float[Tensor, "m c h w"]) -> None:
        """Move the canvas by the mean step of the patches that show a pixel. Raises `NonFiniteError`."""
        corners = self._corners[rows]
        if self._fading is not None:
            step = step * self._fading.weights(corners, self._patch).to(step)
        moved = self.canvas - normalised(*scatter(step, corners, *self.canvas.shape[-2:]))
        check_finite("the latent", cut(moved, corners, self._patch), None)
        self.canvas = moved


@dataclass(frozen=True)
class PatchTargets:
    """What the patches should become; `Targets` that are cut out when they are asked for, so that memory is bounded."""

    texts: tuple[Float[Tensor, "l d"], ...]
    """Encoded prompts."""
    null_text: Float[Tensor, "l d"]
    """Encoding of the empty or the negative prompt."""
    source: Float[Tensor, "c H W"]
    """The canvas before the edit."""
    image: Float[Tensor, "c H W"] | None
    """Image condition of the whole picture, for priors that take one."""
    source_text: Float[Tensor, "l d"] | None
    """Encoded caption of the source, for Delta Denoising Score."""
    weights: Float[Tensor, "k n"] | None
    """Share of each prompt in each patch (CSD D.1); None with a single prompt."""
    corners: Int[Tensor, "n 2"]
    """Top and left of each patch."""
    patch: tuple[int, int]
    """Height and width of a patch."""

    def __getitem__(self, rows: Int[Tensor, " m"]) -> Target:
        """The target of some patches."""
        corners = self.corners[rows]

        def text(encoded: Tensor) -> Tensor:
            return encoded[None].expand(len(corners), *encoded.shape)

        return Target(
            texts=tuple(text(encoded) for encoded in self.texts),
            null_text=text(self.null_text),
            image=None if self.image is None else cut(self.image, corners, self.patch),
            weights=None if self.weights is None else self.weights[:, rows],
            source=cut(self.source, corners, self.patch),
            source_text=None if self.source_text is None else text(self.source_text),
        )
