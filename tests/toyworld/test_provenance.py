"""A training that is resumed on other material than it began on says so, and touches nothing."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from csd_nerf.toyworld.dataset import DatasetRecipe
from csd_nerf.toyworld.training import provenance, train_prior
from csd_nerf.toyworld.training.data import prepare_edits, read_edits
from csd_nerf.toyworld.training.settings import SIZES
from tests.toyworld.conftest import TINY

pytestmark = pytest.mark.usefixtures("one_thread_and_tiny_networks")


def test_hashes_follow_the_content(data_folder):
    data = read_edits(data_folder, held_out=0.3)
    assert provenance.of_data(data) == provenance.of_data(read_edits(data_folder, held_out=0.3))
    other = data.images.clone()
    other[3, 2, 1, 0] += 1
    changed = [
        replace(data, images=other),
        replace(data, captions=[*data.captions[:-1], "another"]),
        replace(data, held_out=~data.held_out),
    ]
    assert len({provenance.of_data(version) for version in (data, *changed)}) == 4
    layer = torch.nn.Linear(2, 2)
    before = provenance.of_network(layer)
    with torch.no_grad():
        layer.weight[0], layer.weight[1] = layer.weight[1].clone(), layer.weight[0].clone()
    assert provenance.of_network(layer) != before, "a sum over the weights would be the same"
    assert provenance.of_tensor(torch.zeros(0, 3)) != provenance.of_tensor(torch.zeros(0, 4))


def snapshot(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.glob("*.pt"))}


def refuses(settings, match):
    before = snapshot(settings.output)
    with pytest.raises(ValueError, match=match):
        train_prior(settings)
    assert snapshot(settings.output).keys() == before.keys()
    assert snapshot(settings.output)[settings.output / "denoiser.pt"] == before[settings.output / "denoiser.pt"]


def test_a_finished_training_is_tied_to_what_it_was_made_from(settings, tmp_path, monkeypatch):
    train_prior(settings)

    more = replace(settings, autoencoder_minutes=5.0)
    refuses(more, r"--autoencoder-minutes 5: the autoencoder has been trained for .* minutes and .*denoiser.pt on its")

    (tmp_path / "photos").mkdir()
    Image.new("RGB", (40, 40), "red").save(tmp_path / "photos/a.png")
    refuses(replace(settings, photos=tmp_path / "photos"), r"autoencoder.pt was trained with other photos \(--photos\)")

    with monkeypatch.context() as patch:
        patch.setitem(SIZES, "cpu", replace(TINY, autoencoder_layers=2))
        refuses(settings, r"autoencoder.pt was trained with other networks \(--size\) than this command has")

    merges = settings.output / "tokenizer/merges.txt"
    kept = merges.read_text()
    merges.write_text(kept.replace("0.2", "0.3"))
    refuses(settings, r"denoiser.pt was trained with other words \(tokenizer\)")
    merges.write_text(kept)

    shard = settings.data / "00001.npz"
    with np.load(shard) as stored:
        arrays = dict(stored)
    arrays["captions"] = np.array([f"a blue teapot number {i}" for i in range(8)])
    np.savez(shard, **arrays)
    refuses(settings, r"autoencoder.pt was trained with other data \(--data\) than .*delete the file .*--output")

    autoencoder = settings.output / "autoencoder.pt"
    autoencoder.rename(tmp_path / "autoencoder.pt")
    refuses(settings, r"--autoencoder-minutes 0.01: the autoencoder has been trained for 0 minutes")
    (settings.output / "denoiser.pt").unlink()
    train_prior(settings)
    vocabulary = json.loads((settings.output / "export/tokenizer/vocab.json").read_text())
    assert "blue</w>" in vocabulary, "the words are those of the new data"


def test_checkpoints_that_do_not_say_what_they_were_made_from_are_taken(tmp_path):
    provenance.check_origin(tmp_path / "a.pt", {}, {"data": "1"})
    provenance.check_origin(tmp_path / "a.pt", {"data": "1", "older": "2"}, {"data": "1"})


@pytest.mark.parametrize("there", [True, False])
def test_a_finished_data_set_is_compared_with_its_recipe(settings, tmp_path, capsys, there):
    photos, others = tmp_path / "photos", tmp_path / "others"
    for folder in (photos, others):
        folder.mkdir()
        Image.new("RGB", (40, 40), "red").save(folder / "a.png")
    made_from = photos if there else tmp_path / "another machine"
    recipe = DatasetRecipe(size=32, photos=made_from)
    text = json.dumps({name: str(value) for name, value in vars(recipe).items()})
    (settings.data / "recipe.json").write_text(text)

    prepare_edits(replace(settings, photos=made_from))
    assert capsys.readouterr().out == ""
    prepare_edits(settings)
    assert f"was made with --photos {made_from}; it is taken as it is" in capsys.readouterr().out
    if there:
        with pytest.raises(ValueError, match=r"--photos .*others: the data set in .* made with --photos .*photos; g"):
            prepare_edits(replace(settings, photos=others))
    else:
        prepare_edits(replace(settings, photos=others))  # its photos may have moved
    with pytest.raises(ValueError, match=r"--style-nets .*: the data set in .* was made without --style-nets; give an"):
        prepare_edits(replace(settings, style_nets=photos))
