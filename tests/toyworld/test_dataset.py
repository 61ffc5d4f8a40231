"""Shards: written whole, the same for the same seed, resumable."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from csd_nerf.toyworld.captions import PHOTO
from csd_nerf.toyworld.dataset import HELD_OUT_PHOTOS, DatasetRecipe, load_dataset, write_dataset, write_shard
from csd_nerf.toyworld.edits import SHARES
from csd_nerf.toyworld.scene import HELD_OUT_SEEDS

RECIPE = DatasetRecipe(size=16, scenes_per_shard=2, samples=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("toy")
    seen = []
    write_dataset(path, 3, RECIPE, workers=0, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 2), (1, 2), (2, 2)]
    return path


def test_what_was_written_is_read(folder):
    data = load_dataset(folder)
    assert (folder / "DONE").exists()
    assert data.images.dtype == np.uint8 and data.images.shape[1:] == (16, 16, 3)
    assert len(data.captions) == len(data.images)
    assert len(data.pairs) == len(data.instructions) == len(data.kinds) >= 3 * 3
    assert data.pairs.dtype == np.int32 and data.pairs.min() == 0 and data.pairs.max() == len(data.images) - 1
    assert set(data.kinds) <= set(SHARES)
    assert len(set(data.pairs[:, 0])) == 3
    for (source, target), kind in zip(data.pairs, data.kinds, strict=True):
        same = np.array_equal(data.images[source], data.images[target])
        assert same == (kind == "identity")
        view = [data.captions[i].split(", ")[1] for i in (source, target)]
        assert view[0] == view[1]


def test_a_shard_can_be_written_again_alone(folder):
    first = folder / "00000.npz"
    kept, before = (folder / "00001.npz").stat().st_mtime_ns, dict(np.load(first))
    first.unlink()
    (folder / "DONE").unlink()
    write_dataset(folder, 3, RECIPE, workers=0)
    after = dict(np.load(first))
    assert (folder / "00001.npz").stat().st_mtime_ns == kept
    assert (folder / "DONE").exists()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert not list(folder.glob("*.tmp")) and not list(folder.glob(".*.tmp"))


def test_another_recipe_in_the_same_folder_is_refused(folder):
    with pytest.raises(ValueError, match="another recipe"):
        write_dataset(folder, 3, replace(RECIPE, size=32), workers=0)


def test_photos_are_styled(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(photos / "a.jpg")
    recipe = replace(RECIPE, photos=photos, edits_per_scene=20)
    write_shard(tmp_path / "s.npz", 0, 1, recipe)
    shard = np.load(tmp_path / "s.npz")
    styled = [str(c) for c in shard["captions"] if c.startswith("a photo, ")]
    assert styled and "a photo" in shard["captions"]


def test_held_out_photos_are_shown_by_the_first_shard_alone(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(HELD_OUT_PHOTOS + 2):  # a grey of its own for each
        Image.new("RGB", (16, 16), (10 * index + 5,) * 3).save(photos / f"{index:02d}.jpg", quality=100)
    recipe = replace(RECIPE, size=16, photos=photos, edits_per_scene=40)
    shown = []
    for seed in (0, 1000):
        write_shard(tmp_path / "s.npz", seed, 2, recipe)
        shard = np.load(tmp_path / "s.npz")
        pictures = zip(shard["images"], shard["captions"], strict=True)
        greys = [image.mean() for image, words in pictures if words == PHOTO]
        shown.append({round((grey - 5) / 10) for grey in greys})
    assert shown[0] <= {0, HELD_OUT_PHOTOS}
    assert len(shown[1]) > 3 and not shown[1] & {0, HELD_OUT_PHOTOS}


def test_bad_recipes_are_named(tmp_path):
    for recipe, match in (
        (replace(RECIPE, photos=tmp_path), "no jpg or png"),
        (replace(RECIPE, style_nets=tmp_path), "no painting style"),
        (replace(RECIPE, scenes_per_shard=0), "scenes_per_shard"),
        (replace(RECIPE, first_seed=HELD_OUT_SEEDS - 10), "held-out seeds"),
    ):
        with pytest.raises(ValueError, match=match):
            write_dataset(tmp_path / "d", 1, recipe, workers=0)
    with pytest.raises(FileNotFoundError, match="no shards"):
        load_dataset(tmp_path)
