"""What is subtracted from the score: the control variate of the distillation gradient.

SDS and CSD subtract the injected noise (CSD Eq. 2, 3). CSD-Edit subtracts the noise estimate of the *source* under the
same noise, so that what the network says of the source alone cancels (CSD Section 3.2); with a source prompt and text
guidance this is Delta Denoising Score (CSD B.3).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from csd_nerf.distill.types import Estimate, Guidance, Noised, Target


@dataclass(frozen=True)
class InjectedNoise:
    """The noise that was added to the particle: SDS, CSD, the random-noise ablation. Costs no network sample."""

    def estimate(self, noised: Noised, target: Target) -> Estimate:
        """The noise itself."""

        def combine(answers: Sequence[Tensor]) -> Tensor:
            return noised.eps

        return Estimate((), combine)


@dataclass(frozen=True)
class SourceScore:
    """The noise estimate of the source particles, noised with the same `t` and `eps` as the edited ones."""

    guidance: Guidance
    """`ImageGuidance` for CSD-Edit, `TextGuidance` for DDS."""

    def estimate(self, noised: Noised, target: Target) -> Estimate:
        """Noise estimate of the noisy source. Raises `ValueError` when the target has no source."""
        if target.source is None:
            raise ValueError("the source baseline needs the particles before the edit: set Target.source")
        source_t = noised.alpha * target.source + noised.sigma * noised.eps
        text = target.null_text if target.source_text is None else target.source_text
        return self.guidance.estimate(source_t, noised.t, replace(target, texts=(text,), weights=None))
