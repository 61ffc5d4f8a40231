"""Flags of the commands that train parameters with the losses of LDP Eq. 4."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from csd_nerf.commands.edit_flags import PriorFlags

if TYPE_CHECKING:
    from csd_nerf.distill import LossRecord, LossWeights

Lambdas = Literal["jacobian-nerf", "latent-nerf", "stylegan", "layers", "synthesis"]


@dataclass(frozen=True)
class LossFlags(PriorFlags):
    """Which model guides, and by which losses. What is left out takes the command's value, or the toy prior's own."""

    prior: str = "stable-diffusion"
    """The diffusion model: stable-diffusion, another hub id, a local folder in diffusers layout, or toy, which comes
    with this package. An InstructPix2Pix is told 'no picture'."""
    steps: int | None = None
    """Optimisation steps; default: the paper's 1000, with the toy prior 300."""
    lr: float | None = None
    """Learning rate of AdamW; default: the paper's 0.1; with the toy prior it falls to a tenth."""
    guidance: float | None = None
    """Text guidance; default: 7.5."""
    t_min: float | None = None
    """Lowest noise level, a fraction of the schedule; default: 0.2, with the toy prior 0.02."""
    t_max: float | None = None
    """Highest noise level; default: 0.98."""
    lambdas: Lambdas | None = None
    """Weights of the losses as the paper has them for an application (LDP Section 5); default: those of this one, with
    the toy prior its own."""
    lambda_lsd: float | None = None
    """Weight of latent score distillation."""
    lambda_fm: float | None = None
    """Weight of feature matching; 0 leaves it out."""
    lambda_kl: float | None = None
    """Weight of the KL regulariser; 0 leaves it out."""

    def losses(self, default: "LossWeights") -> "LossWeights":
        """The weights that the flags ask for. Raises `ValueError` by flag."""
        from csd_nerf.distill import LDP_WEIGHTS, LossWeights

        base = LDP_WEIGHTS[self.lambdas] if self.lambdas else default
        weights = {}
        for name, flag, given in (
            ("lsd", "--lambda-lsd", self.lambda_lsd),
            ("feature_matching", "--lambda-fm", self.lambda_fm),
            ("kl", "--lambda-kl", self.lambda_kl),
        ):
            if given is not None and not 0 <= given < float("inf"):
                raise ValueError(f"{flag} {given}: give a finite weight, 0 or more")
            weights[name] = getattr(base, name) if given is None else given
        return LossWeights(**weights)

    def chosen(self, own: Mapping[str, Any], default: "LossWeights") -> dict[str, Any]:
        """Fields of a command's settings: its values for the toy prior (`own`), and over them what flags say."""
        self.check_seed()
        toy = dict(own) if self.prior == "toy" else {}
        given = {
            "steps": self.steps,
            "lr": self.lr,
            "guidance_scale": self.guidance,
            "t_min": self.t_min,
            "t_max": self.t_max,
        }
        losses = self.losses(toy.pop("losses", default))
        return {**toy, **{name: value for name, value in given.items() if value is not None}, "losses": losses}

    def asked(self, settings: Any) -> dict[str, Any]:
        """What decides a result, by name, for a state to go on from."""
        decided = {name: value for name, value in vars(settings).items() if name not in ("losses", "levels")}
        weights = {f"lambda_{name}": value for name, value in vars(settings.losses).items()}
        levels = " ".join(settings.levels)
        return {
            "prior": self.prior,
            "precision": self.chosen_precision(),
            "seed": self.seed,
            "negative": self.negative,
            **decided,
            **weights,
            "levels": levels,
        }


def loss_words(losses: "LossRecord") -> str:
    """What each loss did, in one line: `|gradient| LSD 21.3, FM 82 (3.9 x LSD), KL 0.4`."""
    words = []
    for name, part in (("LSD", losses.lsd), ("FM", losses.feature_matching), ("KL", losses.kl)):
        if part is None:
            continue
        ratio = f" ({losses.ratio:.2g} x LSD)" if name == "FM" and losses.ratio is not None else ""
        words.append(f"{name} {part.gradient_norm:.3g}{ratio}")
    return "|gradient| " + ", ".join(words)
