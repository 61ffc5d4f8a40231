"""What a prior was trained with before, carried along by every training that goes on from it (`training.json`)."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = "training.json"


@dataclass(frozen=True)
class TrainingHistory:
    """The sums over all trainings of a prior."""

    autoencoder: str = ""
    """The autoencoder's training in words; empty where nothing is known."""
    denoiser_samples: int = 0
    """Training samples that text encoder and UNet have seen."""
    denoiser_minutes: float = 0.0
    """Minutes of their training."""
    trainings: int = 0
    """How many trainings followed each other."""

    def then(self, autoencoder: str, samples: int, minutes: float) -> "TrainingHistory":
        """The history after one more training."""
        return TrainingHistory(
            autoencoder or self.autoencoder,
            self.denoiser_samples + samples,
            self.denoiser_minutes + minutes,
            self.trainings + 1,
        )

    def write(self, prior: Path) -> None:
        """Put it into a prior's folder."""
        (prior / FILE).write_text(json.dumps(asdict(self), indent=1) + "\n")


def read_history(prior: Path | None) -> TrainingHistory:
    """The history of a prior; an empty one for no prior, or one that does not tell."""
    file = None if prior is None else prior / FILE
    return TrainingHistory(**json.loads(file.read_text())) if file is not None and file.is_file() else TrainingHistory()
