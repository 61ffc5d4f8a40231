"""Settings of the prior's training: one frozen record for the run, one for the size of the networks.

`cpu` is the embedded prior: 64-pixel pictures, a factor-4 autoencoder, 16x16 latents. `gpu` keeps the 16x16 latents and
reads 128-pixel pictures with a factor-8 autoencoder and wider networks.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

SizeName = Literal["cpu", "gpu"]


@dataclass(frozen=True)
class NetworkSize:
    """Widths of the three networks."""

    image_size: int
    """Side of a training picture, pixels."""
    autoencoder_channels: tuple[int, ...]
    """Channels per level, finest first; the latents' factor is `2 ** (levels - 1)`."""
    autoencoder_layers: int
    """Residual blocks per level (the decoder has one more)."""
    denoiser_channels: tuple[int, ...]
    """Channels per level of the UNet, finest first. Cross-attention sits at every level but the finest."""
    denoiser_layers: int
    """Residual blocks per level (the way up has one more)."""
    attention_heads: int
    """Heads of the UNet's attention."""
    text_width: int = 128
    """Hidden size of the text encoder, and so the UNet's cross-attention dimension."""
    text_layers: int = 3
    """Transformer blocks of the text encoder."""
    text_length: int = 32
    """Tokens per prompt, start and end marks included."""

    @property
    def factor(self) -> int:
        """Pixels per latent cell along one side."""
        return 2 ** (len(self.autoencoder_channels) - 1)

    @property
    def latent_size(self) -> int:
        """Side of the latents."""
        return self.image_size // self.factor


SIZES: dict[str, NetworkSize] = {
    "cpu": NetworkSize(
        image_size=64,
        autoencoder_channels=(32, 64, 96),
        autoencoder_layers=1,
        denoiser_channels=(48, 96, 144),
        denoiser_layers=1,
        attention_heads=3,
    ),
    "gpu": NetworkSize(
        image_size=128,
        autoencoder_channels=(32, 64, 96, 128),
        autoencoder_layers=2,
        denoiser_channels=(64, 128, 192),
        denoiser_layers=2,
        attention_heads=4,
    ),
}


@dataclass(frozen=True)
class ConditioningDropout:
    """Shares of the training samples whose condition is changed; the rest sees source image and instruction."""

    no_text: float = 0.05
    """Source image, empty instruction. The target stays the edited picture, so this branch learns the average over all
    edits of this image; training it on copies of the source would turn guidance away from the edits."""
    no_image: float = 0.05
    """Zero image, instruction kept."""
    neither: float = 0.05
    """Zero image and empty instruction."""
    caption: float = 0.15
    """Zero image and the target's caption instead of the instruction: this makes the prior a text-to-image one too."""

    def __post_init__(self) -> None:
        """Check that the shares are shares."""
        shares = (self.no_text, self.no_image, self.neither, self.caption)
        if min(shares) < 0 or sum(shares) > 1:
            raise ValueError(f"conditioning dropout shares must be >= 0 and add up to at most 1, got {shares}")


@dataclass(frozen=True)
class TrainingSettings:
    """One training run of the toy prior. The same output folder resumes."""

    output: Path
    """Folder of the run: checkpoints, logs, pictures; the finished prior is in `output / "export"`."""
    data: Path
    """Folder of the data set; it is made, or completed, when its file `DONE` is missing."""
    scenes: int = 8008
    """Source pictures of a data set that has to be made; each gets about five edits."""
    photos: Path | None = None
    """Folder with real pictures (jpg, png); the autoencoder sees crops of them too."""
    style_nets: Path | None = None
    """Folder with style transfer networks, for a data set that has to be made."""
    start_from: Path | None = None
    """A trained prior to go on from, of the same size. Its autoencoder and its words are taken as they are; only text
    encoder and UNet are trained."""
    size: SizeName = "cpu"
    """Network size: `cpu` (64 pixels) or `gpu` (128 pixels)."""
    autoencoder_minutes: float = 20.0
    """Training time of the autoencoder, minutes, added up over resumes."""
    denoiser_minutes: float = 70.0
    """Training time of text encoder and UNet, minutes, added up over resumes."""
    autoencoder_batch: int = 16
    """Pictures per step of the autoencoder."""
    denoiser_batch: int = 64
    """Pairs per step of the denoiser."""
    autoencoder_rate: float = 3e-3
    """Peak learning rate of the autoencoder."""
    denoiser_rate: float | None = None
    """Peak learning rate of text encoder and UNet; None is 0.0015, and 0.0007 for a prior that was trained before."""
    kl_weight: float = 1e-5
    """Weight of the posterior's KL divergence (mean over latent elements) against the mean absolute pixel error."""
    snr_gamma: float = 5.0
    """Cap of the signal-to-noise ratio in the loss weight min(snr, gamma) / snr."""
    dropout: ConditioningDropout = field(default_factory=ConditioningDropout)
    """How often the denoiser sees an incomplete condition."""
    held_out: float = 0.03
    """Share of the pictures kept away from the denoiser, for losses and sample grids."""
    checkpoint_minutes: float = 3.0
    """Time between checkpoints."""
    picture_minutes: float = 8.0
    """Time between sample grids."""
    log_every: int = 100
    """Steps between rows of the loss log."""
    seed: int = 0
    """Seed of initial weights and of the sample stream."""
    device: str = "cpu"
    """Torch device to train on."""
    resume: bool = True
    """Continue from the checkpoints in `output`; when false they are overwritten."""
    half_weights: bool = True
    """Write the exported weights in half precision."""

    @property
    def denoiser_peak(self) -> float:
        """The peak learning rate that `denoiser_rate` means."""
        if self.denoiser_rate is not None:
            return self.denoiser_rate
        return 1.5e-3 if self.start_from is None else 7e-4

    @property
    def network(self) -> NetworkSize:
        """The networks' widths."""
        return SIZES[self.size]
