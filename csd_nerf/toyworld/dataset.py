"""The toy world's training data: pictures with captions, and pairs of pictures with the instruction between them.

A dataset is a folder of shards `00000.npz`, ... and, once complete, a file `DONE`. A shard has the arrays

- `images` uint8 [m, h, w, 3]; `captions` unicode [m]
- `pairs` int32 [p, 2]: indices of source and target; `instructions`, `kinds` unicode [p]

All targets of one source show the same view. Each source scene has its own seed, so a shard depends on nothing but its
first seed and the options, and can be written again alone.
"""

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, fields
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from csd_nerf.toyworld.cameras import random_cameras
from csd_nerf.toyworld.captions import PHOTO, caption, with_style
from csd_nerf.toyworld.edits import Edit, draw_edits
from csd_nerf.toyworld.render import Renderer, to_bytes
from csd_nerf.toyworld.scene import HELD_OUT_SEEDS, odd_scene_from_seed
from csd_nerf.toyworld.style_nets import PAINTINGS, StyleNet, load_style_nets

PHOTO_SHARES = {"sketch": 0.26, "oil": 0.20, "popart": 0.10, "painting": 0.26, "night": 0.18}
SEEDS_PER_SHARD = 1000
PHOTO_SHARE = 0.15  # of all pairs; a third of the styles
HELD_OUT_PHOTOS = 20  # one photo in so many is shown by the first shard alone, which training sets aside


@dataclass(frozen=True)
class DatasetRecipe:
    """How the shards of a dataset are made."""

    size: int = 64
    """Pixels along a side."""
    scenes_per_shard: int = 52
    """Source pictures of toy scenes in a shard, at most `SEEDS_PER_SHARD`."""
    edits_per_scene: int = 5
    """Edits drawn for each source picture; a few turn out impossible."""
    first_seed: int = 0
    """Seeds from `scene.HELD_OUT_SEEDS` on make a held-out set."""
    samples: int = 2
    """Rays along a pixel's side."""
    photos: Path | None = None
    """Folder of photos (jpg, png); about a third of the style pairs are then made from them."""
    style_nets: Path | None = None
    """Folder of painting styles; without it no picture is painted."""

    def check(self, scenes: int) -> None:
        """Raise ValueError where a folder has not what it should, or training seeds would run into held-out ones."""
        if self.photos is not None and not photo_files(self.photos, held_out=True):
            raise ValueError(f"no jpg or png in the folder of photos {self.photos}")
        if self.style_nets is not None and not load_style_nets(self.style_nets):
            raise ValueError(f"no painting style in {self.style_nets}; known: {', '.join(PAINTINGS)} (.safetensors)")
        if not 0 < self.scenes_per_shard <= SEEDS_PER_SHARD:
            raise ValueError(f"scenes_per_shard must be 1..{SEEDS_PER_SHARD}, got {self.scenes_per_shard}")
        shards = -(-scenes // self.scenes_per_shard)
        if self.first_seed < HELD_OUT_SEEDS < self.first_seed + shards * SEEDS_PER_SHARD:
            raise ValueError(f"{shards} shards from seed {self.first_seed} reach the held-out seeds ({HELD_OUT_SEEDS})")


@dataclass(frozen=True)
class ToyDataset:
    """A dataset in memory."""

    images: np.ndarray
    """uint8 [m, h, w, 3]."""
    captions: np.ndarray
    """unicode [m]."""
    pairs: np.ndarray
    """int32 [p, 2], source and target indices into `images`."""
    instructions: np.ndarray
    """unicode [p]."""
    kinds: np.ndarray
    """unicode [p]."""


@dataclass
class _Pile:
    """Pictures and pairs as they are made."""

    images: list[np.ndarray] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    pairs: list[tuple[int, int]] = field(default_factory=list)
    instructions: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)

    def add(self, image: torch.Tensor, words: str) -> int:
        self.images.append(to_bytes(image)[0].numpy())
        self.captions.append(words)
        return len(self.images) - 1

    def pair(self, source: int, target: int, edit: Edit) -> None:
        self.pairs.append((source, target))
        self.instructions.append(edit.instruction)
        self.kinds.append(edit.kind)


def write_shard(path: Path, seed: int, scenes: int, recipe: DatasetRecipe) -> int:
    """Write `scenes` sources (scene i has the seed `seed + i`) with their edits to one file, atomically.

    Returns:
        The number of pairs.
    """
    nets = load_style_nets(recipe.style_nets)
    pile = _Pile()
    for index in range(scenes):
        _add_scene(pile, seed + index, recipe, nets)
    files = photo_files(recipe.photos, held_out=seed == recipe.first_seed) if recipe.photos is not None else []
    for index in range(round(PHOTO_SHARE * scenes * recipe.edits_per_scene / 2) if files else 0):
        _add_photo(pile, seed + index, files, recipe.size, nets)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        np.savez(
            file,
            images=np.stack(pile.images),
            captions=np.array(pile.captions),
            pairs=np.array(pile.pairs, dtype=np.int32),
            instructions=np.array(pile.instructions),
            kinds=np.array(pile.kinds),
        )
    os.replace(temporary, path)
    return len(pile.pairs)


def photo_files(folder: Path, held_out: bool) -> list[Path]:
    """The photos for training, or those that it never sees (one in `HELD_OUT_PHOTOS`, at least one)."""
    files = [file for file in sorted(Path(folder).iterdir()) if file.suffix.lower() in {".jpg", ".jpeg", ".png"}]
    if len(files) == 1:
        return files
    return [file for index, file in enumerate(files) if (index % HELD_OUT_PHOTOS == 0) == held_out]


def _add_scene(pile: _Pile, seed: int, recipe: DatasetRecipe, nets: dict[str, StyleNet]) -> None:
    scene = odd_scene_from_seed(seed)
    rng = np.random.default_rng([seed, 37])
    cameras = random_cameras(1, seed, recipe.size)
    view = (cameras.azimuth[0], cameras.elevation[0])
    renderer = Renderer(cameras, recipe.samples, nets)
    source = pile.add(renderer.render(scene), caption(scene, *view))
    for edit in draw_edits(scene, recipe.edits_per_scene, rng, tuple(nets)):
        target = source
        if edit.kind != "identity":
            target = pile.add(renderer.edited(scene, edit), caption(edit.scene(scene), *view, edit.style))
        pile.pair(source, target, edit)


def _add_photo(pile: _Pile, seed: int, files: list[Path], size: int, nets: dict[str, StyleNet]) -> None:
    rng = np.random.default_rng([seed, 41])
    image = _random_crop(files[rng.integers(len(files))], size, rng)
    shares = {kind: share for kind, share in PHOTO_SHARES.items() if kind != "painting" or nets}
    source = pile.add(image, PHOTO)
    for edit in draw_edits(None, 2, rng, tuple(nets), shares):
        target = pile.add(edit.picture(image, nets), with_style(PHOTO, edit.style))
        pile.pair(source, target, edit)


def _random_crop(path: Path, size: int, rng: np.random.Generator) -> torch.Tensor:
    """A random square of a photo, mirrored half the time, as [1, 3, size, size] in 0..1."""
    image = Image.open(path).convert("RGB")
    side = int(min(image.size) * rng.uniform(0.6, 1.0))
    left, top = rng.integers(image.width - side + 1), rng.integers(image.height - side + 1)
    image = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    return pixels.flip(3) if rng.random() < 0.5 else pixels


def write_dataset(
    folder: Path,
    scenes: int,
    recipe: DatasetRecipe | None = None,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write (or complete) a dataset; shards that exist are kept.

    Args:
        folder: made if missing.
        scenes: source pictures in all; about `edits_per_scene` pairs each.
        recipe: how shards are made.
        workers: processes, each with one torch thread (a script that asks for them needs the usual
            `if __name__ == "__main__"`); 0 works in this process.
        progress: called with (shards there, shards wanted).

    Raises:
        ValueError: the recipe cannot be followed, or the folder was begun with another one.
    """
    recipe, folder = recipe or DatasetRecipe(), Path(folder)
    recipe.check(scenes)
    starts = range(0, scenes, recipe.scenes_per_shard)
    folder.mkdir(parents=True, exist_ok=True)
    _remember(recipe, folder / "recipe.json")
    jobs = []
    for index, start in enumerate(starts):
        path, seed = folder / f"{index:05d}.npz", recipe.first_seed + SEEDS_PER_SHARD * index
        if not path.exists():
            jobs.append((path, seed, min(recipe.scenes_per_shard, scenes - start), recipe))
    report = progress or (lambda done, total: None)
    done = len(starts) - len(jobs)
    report(done, len(starts))
    for _ in _run(jobs, workers):
        done += 1
        report(done, len(starts))
    (folder / "DONE").write_text(json.dumps({"shards": len(starts), "scenes": scenes, "size": recipe.size}))
    return folder


def _remember(recipe: DatasetRecipe, path: Path) -> None:
    text = json.dumps({name: str(value) for name, value in vars(recipe).items()}, indent=1)
    if path.exists() and path.read_text() != text:
        raise ValueError(f"{path.parent} was begun with another recipe, see {path}; choose another folder")
    path.write_text(text)


def _run(jobs: list[tuple], workers: int) -> Iterator[int]:
    if workers == 0 or not jobs:
        yield from (write_shard(*job) for job in jobs)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        for future in as_completed([pool.submit(write_shard, *job) for job in jobs]):
            yield future.result()


def _one_thread() -> None:
    torch.set_num_threads(1)


def load_dataset(folder: Path) -> ToyDataset:
    """All shards of a folder, in order of their names.

    Raises:
        FileNotFoundError: there is no shard.
    """
    paths = sorted(Path(folder).glob("*.npz"))
    if not paths:
        raise FileNotFoundError(f"no shards (*.npz) in {folder}; write_dataset of {__name__} makes them")
    shards, start = [], 0
    for path in paths:
        with np.load(path) as stored:
            shard = dict(stored)
        shard["pairs"] = shard["pairs"] + np.int32(start)
        start += len(shard["images"])
        shards.append(shard)
    names = [entry.name for entry in fields(ToyDataset)]
    return ToyDataset(**{name: np.concatenate([shard[name] for shard in shards]) for name in names})
