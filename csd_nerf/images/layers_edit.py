"""What an edit by a layer does, once everything is decided: composite, encode, add, decode, composite; and train."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from csd_nerf.distill import (
    CountingPrior,
    Distiller,
    ImagePrior,
    LatentLosses,
    LatentStep,
    NonFiniteError,
    Reached,
    Rendering,
    Target,
    UniformTimesteps,
    latent_score_distiller,
    make_edit_distiller,
    optimize_parameters,
    resize,
    set_linear_rate,
)
from csd_nerf.images.checkpoint import Checkpoint
from csd_nerf.images.last_tenth import LastTenth
from csd_nerf.images.layers import LayerResult, LayerSettings, check_layers
from csd_nerf.images.layers_network import SkipNetwork
from csd_nerf.images.running import Hooks, run_steps
from csd_nerf.images.synthesis_run import with_kernel
from csd_nerf.priors.autoencoder import Autoencoder
from csd_nerf.priors.decoder_features import decoder_of, matched_together


class LayeredPicture(nn.Module):
    """A `Parameterisation`: the generator and the residual latent of one picture, and the two particles they give."""

    def __init__(
        self,
        autoencoder: Autoencoder,
        picture: Float[Tensor, "1 3 h w"],
        network: SkipNetwork,
        settings: LayerSettings,
        mask: Float[Tensor, "1 1 h w"] | None = None,
    ) -> None:
        """`picture` and `mask` are at the size at which the prior works."""
        super().__init__()
        self.network, self.settings = network, settings
        self._codec, self._picture, self._mask = autoencoder, picture, mask
        self.residual = nn.Parameter(torch.zeros_like(autoencoder.encode(picture)))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels at which the prior sees the picture."""
        return self._picture.shape[-2], self._picture.shape[-1]

    def __call__(self, generator: torch.Generator) -> Rendering:
        """V and E(I''), one row each, and the losses of the opacity."""
        layer, alpha = self.first_layer()
        v = self.latents(layer, alpha)
        particles = [v]
        if self.settings.guide == "both":
            particles.append(self._codec.encode_attached(self._over(self._codec.decode_attached(v), alpha)))
        return Rendering(torch.cat(particles), self._of_alpha(alpha))

    def first_layer(self) -> tuple[Float[Tensor, "1 3 h w"], Float[Tensor, "1 1 h w"]]:
        """(l, a), what the generator gives."""
        return self.network(self._picture).split([3, 1], dim=1)

    def latents(self, layer: Tensor, alpha: Tensor) -> Float[Tensor, "1 c k l"]:
        """V = E(a l + (1 - a) I) + r."""
        v = self._codec.encode_attached(self._over(layer, alpha))
        return v + self.residual if self.settings.latent_lr else v

    @torch.no_grad()
    def final_layer(self) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "h w"]]:
        """(D(v), a), in [0, 1]."""
        layer, alpha = self.first_layer()
        return self._codec.decode(self.latents(layer, alpha))[0], alpha[0, 0]

    def _over(self, layer: Tensor, alpha: Tensor) -> Tensor:
        return alpha * layer + (1 - alpha) * self._picture

    def _of_alpha(self, alpha: Tensor) -> Tensor | None:
        if self._mask is not None:
            return self.settings.lambda_mask * (alpha - self._mask).abs().mean()
        if not self.settings.lambda_sparsity:
            return None
        return self.settings.lambda_sparsity * (alpha + 2 * torch.sigmoid(5 * alpha) - 1).mean()


class LayerEdit:
    """An edit of one picture by a layer, prepared and checked: `Steps`."""

    def __init__(
        self,
        prior: ImagePrior,
        picture: Float[Tensor, "3 H W"],
        shown: LayeredPicture,
        settings: LayerSettings,
        target: Target,
        generator: torch.Generator,
    ) -> None:
        """`target` has a row for each particle."""
        self.prior, self.picture, self.shown, self.settings = prior, picture, shown, settings
        self.target, self.generator = target, generator
        groups = [{"params": list(shown.network.parameters()), "lr": settings.lr}]
        if settings.latent_lr:
            groups.append({"params": [shown.residual], "lr": settings.latent_lr})
        self._rates = [settings.lr, settings.latent_lr]
        self._optimizer = torch.optim.Adam(groups)
        self._end = LastTenth(settings.steps)

    @property
    def total(self) -> int:
        """Steps in all."""
        return self.settings.steps

    @property
    def resumable(self) -> bool:
        """Always."""
        return True

    @property
    def latents(self) -> Float[Tensor, "1 c k l"]:
        """The residual latent."""
        return self.shown.residual.detach()

    @property
    def networks(self) -> Mapping[str, Any]:
        """The generator, the state of the optimiser, and what the losses did at the end."""
        return {
            "network": self.shown.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "losses": self._end.state(),
        }

    def run(self, resume: Checkpoint | None = None, hooks: Hooks | None = None) -> LayerResult:
        """Do the work; see `csd_nerf.images.edit_layers`."""
        if resume is not None:
            with torch.no_grad():
                self.shown.residual.copy_(resume.latents)
            self.shown.network.load_state_dict(resume.networks["network"])
            self._optimizer.load_state_dict(resume.networks["optimizer"])
            self._end.restore(resume.networks.get("losses", []))
        outcome = run_steps(self, resume, hooks or Hooks(), lambda done: None)
        layer, alpha = self._enlarged()
        composite = alpha * layer + (1 - alpha) * self.picture
        result = LayerResult(layer, alpha, composite, self._end.mean(), outcome.checkpoint, outcome.complete)
        if not torch.isfinite(layer).all():
            raise NonFiniteError("the decoded layer", None, 0, outcome.checkpoint.step)
        if (failure := outcome.failure) is not None:
            raise NonFiniteError(failure.what, failure.t, failure.particle, failure.step, result) from None
        return result

    def solve(
        self,
        prior: CountingPrior,
        first_step: int,
        report: Callable[[int], None],
        should_stop: Callable[[], bool] | None,
    ) -> int:
        """Train generator and residual latent; how many steps led to them."""

        def on_step(done: int, step: LatentStep) -> None:
            self._set_rates(done)
            self._end.add(done, step.losses)
            report(done)

        self._set_rates(first_step)
        reached: Reached = optimize_parameters(
            self._losses(prior),
            self.shown,
            self.target,
            self._optimizer,
            self.settings.steps,
            self.generator,
            first_step=first_step,
            on_step=on_step,
            should_stop=should_stop,
        )
        return reached.steps

    def _set_rates(self, done: int) -> None:
        """Each group has a rate of its own; all fall alike."""
        set_linear_rate(self._optimizer, 1.0, self.settings.lr_end, done, self.settings.steps)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=False):
            group["lr"] *= rate

    def _losses(self, prior: CountingPrior) -> LatentLosses:
        losses, settings = self.settings.losses, self.settings
        decoder = decoder_of(self.prior, settings.levels) if losses.feature_matching else None
        together = matched_together(*self.shown.size)
        return LatentLosses(layer_distiller(prior, settings), losses, decoder, rows_per_call=together)

    def _enlarged(self) -> tuple[Float[Tensor, "3 H W"], Float[Tensor, "H W"]]:
        """Layer and opacity at the picture's size, on the CPU."""
        layer, alpha = (one.float().cpu() for one in self.shown.final_layer())
        size = (self.picture.shape[-2], self.picture.shape[-1])
        if tuple(alpha.shape) == size:
            return layer, alpha
        # Bicubic weights are negative in places: an opacity would ring around the layer.
        large = interpolate(alpha[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
        return resize(layer[None], size)[0], large.clamp(0, 1)


def layer_distiller(prior: CountingPrior, settings: LayerSettings) -> Distiller:
    """Where the residual comes from."""
    if settings.editor in ("lsd", "csd"):
        timesteps = UniformTimesteps(settings.t_min, settings.t_max)
        plain = latent_score_distiller(prior, guidance_scale=settings.guidance_scale, timesteps=timesteps)
        return with_kernel(plain, "rbf" if settings.editor == "csd" else "independent", "independent")
    return make_edit_distiller(prior, settings.edit_settings())


def prepare_layers(
    prior: ImagePrior,
    picture: Float[Tensor, "3 H W"],
    prompt: str,
    settings: LayerSettings,
    mask: Float[Tensor, "_H _W"] | None = None,
    negative_prompt: str = "",
    seed: int = 0,
) -> LayerEdit:
    """Check, encode, and draw the generator's first weights."""
    picture = picture.detach().float().cpu()
    size = check_layers(prior, (picture.shape[-2], picture.shape[-1]), prompt, settings, mask)
    generator, device = torch.Generator().manual_seed(seed), prior.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SkipNetwork(settings.width, settings.across, settings.scales).to(device)
    small = resize(picture[None], size).to(device)
    small_mask = None
    if mask is not None:
        shrunk = interpolate(mask[None, None].float(), size=size, mode="bilinear", antialias=True, align_corners=False)
        small_mask = shrunk.clamp(0, 1).to(device)
    autoencoder = getattr(prior, "autoencoder", None)
    assert isinstance(autoencoder, Autoencoder)  # as `check_layers` has found
    shown = LayeredPicture(autoencoder, small, network, settings, small_mask)
    target = _target(prior, (prompt, negative_prompt), settings, small)
    return LayerEdit(prior, picture, shown, settings, target, generator)


def _target(prior: ImagePrior, prompts: tuple[str, str], settings: LayerSettings, picture: Tensor) -> Target:
    """What both particles should become."""
    text, null, *there = _rows(prior, [*prompts, *([settings.source_prompt] if settings.editor == "dds" else [])])
    source = prior.encode(picture)
    image = torch.zeros_like(source) if prior.takes_image else None
    if settings.editor in ("csd-edit", "no-svgd"):
        image = prior.encode_condition(picture)
    one = Target((text,), null, image, source=source, source_text=there[0] if there else None)
    if settings.editor in ("lsd", "csd"):
        one = replace(one, source=None)
    return one[torch.zeros(2 if settings.guide == "both" else 1, dtype=torch.long)]


def _rows(prior: ImagePrior, prompts: list[str]) -> Iterator[Tensor]:
    return iter([encoded[None] for encoded in prior.encode_text(prompts)])
