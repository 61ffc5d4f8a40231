"""The training material: toy-world pictures with captions, edit pairs with instructions, and crops of real photos."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from PIL import Image, ImageOps
from rich.markup import escape
from rich.progress import Progress
from torch import Tensor

from csd_nerf.toyworld.dataset import DatasetRecipe, load_dataset, photo_files, write_dataset
from csd_nerf.toyworld.training.settings import TrainingSettings


@dataclass(frozen=True)
class EditData:
    """Pictures and the edits between them."""

    images: UInt8[Tensor, "n h w 3"]
    """Pictures, sources and targets."""
    captions: list[str]
    """What each picture shows."""
    pairs: Int64[Tensor, "p 2"]
    """Source and target index of each edit."""
    instructions: list[str]
    """What turns source into target."""
    kinds: list[str]
    """Kind of each edit."""
    held_out: Bool[Tensor, " n"]
    """Pictures kept away from training."""

    @property
    def held_out_pairs(self) -> Bool[Tensor, " p"]:
        """Edits of held-out pictures."""
        return self.held_out[self.pairs].any(dim=1)

    @property
    def texts(self) -> list[str]:
        """Every distinct caption and instruction, sorted."""
        return sorted({*self.captions, *self.instructions})


def read_edits(folder: Path, held_out: float) -> EditData:
    """Read a data set and set part of the first shard aside, at most the share `held_out` of all pictures.

    A shard's scenes appear in no other shard, so nothing of a held-out scene is trained on when the whole first shard
    is set aside (which it is in sets of many shards).
    """
    dataset = load_dataset(folder)
    with np.load(min(Path(folder).glob("*.npz"))) as shard:
        first = len(shard["images"])
    mask = torch.zeros(len(dataset.images), dtype=torch.bool)
    mask[: min(first, max(1, round(held_out * len(mask))))] = True
    return EditData(
        images=torch.from_numpy(dataset.images),
        captions=dataset.captions.tolist(),
        pairs=torch.from_numpy(dataset.pairs.astype(np.int64)),
        instructions=dataset.instructions.tolist(),
        kinds=dataset.kinds.tolist(),
        held_out=mask,
    )


def prepare_edits(settings: TrainingSettings) -> EditData:
    """Read the run's data set, after making or completing it if need be.

    Raises `ValueError` for a data set of another size, or one made without the photos or styles that are asked for.
    """
    side = settings.network.image_size
    recipe = DatasetRecipe(size=side, photos=settings.photos, style_nets=settings.style_nets)
    if (settings.data / "DONE").exists():
        _check_finished(settings.data, recipe)
    else:
        with Progress() as progress:
            task = progress.add_task(escape(f"rendering the data set into {settings.data}"), total=None)
            write_dataset(
                settings.data,
                settings.scenes,
                recipe,
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            )
    data = read_edits(settings.data, settings.held_out)
    if data.images.shape[1:3] != (side, side):
        height, width = data.images.shape[1:3]
        raise ValueError(
            f"the pictures in {settings.data} are {width} x {height}, but size `{settings.size}` trains on {side} x "
            f"{side}: give another data folder or another size"
        )
    return data


def _check_finished(folder: Path, recipe: DatasetRecipe) -> None:
    """Compare a finished data set with what it would now be made from; one that was moved here may say nothing."""
    path = folder / "recipe.json"
    made = json.loads(path.read_text()) if path.is_file() else {}
    for name, now in (("photos", recipe.photos), ("style_nets", recipe.style_nets)):
        then, flag = made.get(name), "--" + name.replace("_", "-")
        if then is None or then == str(now):
            continue
        if now is None:
            print(f"The data set in {folder} was made with {flag} {then}; it is taken as it is.", flush=True)
        elif then == "None" or (Path(then).exists() and Path(then).resolve() != now.resolve()):
            made_with = f"without {flag}" if then == "None" else f"with {flag} {then}"
            raise ValueError(f"{flag} {now}: the data set in {folder} was made {made_with}; give another --data folder")


def read_photos(folder: Path | None, side: int, crops: int = 2, seed: int = 0) -> UInt8[Tensor, "m side side 3"]:
    """Random square crops of the training photos, first shrunk so that a crop shows a good part of the scene."""
    files = photo_files(folder, held_out=False) if folder is not None else []
    random = np.random.default_rng(seed)
    parts = []
    for file in files:
        picture = Image.open(file)
        # Lets the JPEG decoder skip resolution that the crop throws away.
        picture.draft("RGB", (2 * side, 2 * side))
        picture = picture.convert("RGB")
        for _ in range(crops):
            short = int(side * random.uniform(1.0, 1.6))
            scale = short / min(picture.size)
            shrunk = ImageOps.scale(picture, scale) if min(picture.size) != short else picture
            left = int(random.integers(0, shrunk.width - side + 1)) if shrunk.width > side else 0
            top = int(random.integers(0, shrunk.height - side + 1)) if shrunk.height > side else 0
            parts.append(np.asarray(shrunk.crop((left, top, left + side, top + side))))
    stacked = np.stack(parts) if parts else np.zeros((0, side, side, 3), np.uint8)
    return torch.from_numpy(stacked)
