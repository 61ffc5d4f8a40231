import errno
import json
import os
from pathlib import Path

import pytest
import torch

from csd_nerf.scenes.checkpoints import find_checkpoint, read_checkpoint, write_checkpoint
from csd_nerf.scenes.contact_sheet import contact_sheet, view_rows
from csd_nerf.scenes.edit_record import EditRecord
from csd_nerf.scenes.errors import SceneError
from csd_nerf.scenes.files import write_atomically, write_json


def pictures(*views: int) -> dict[int, torch.Tensor]:
    return {view: torch.full((4, 6, 3), view, dtype=torch.uint8) for view in views}


def record_of_three_rounds(folder: Path) -> EditRecord:
    record = EditRecord(folder, {"prior": "toy"})
    sheet = torch.zeros(2, 2, 3, dtype=torch.uint8)
    for number, views in ((1, (0, 2)), (2, (1, 3)), (3, (0, 1))):
        record.write_round(number, {"prompt": f"prompt {number}", "step": 10 * number}, pictures(*views), sheet)
    record.add_event({"event": "originals restored", "step": 35})
    return record


def fill_the_disk(monkeypatch: pytest.MonkeyPatch, after: int = 0) -> None:
    """Every write after the first `after` ones meets a full disk."""
    made = 0

    def fsync(descriptor: int) -> None:
        nonlocal made
        made += 1
        if made > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)


def test_every_edited_view_is_kept_with_its_round_and_prompt(tmp_path: Path):
    record_of_three_rounds(tmp_path / "edits")
    index = json.loads((tmp_path / "edits/edits.json").read_text())
    assert [entry["prompt"] for entry in index["rounds"]] == ["prompt 1", "prompt 2", "prompt 3"]
    assert index["rounds"][1]["views"] == {"1": "round_0002/view_0001.png", "3": "round_0002/view_0003.png"}
    assert index["prior"] == "toy"
    for entry in index["rounds"]:
        assert all((tmp_path / "edits" / file).is_file() for file in entry["views"].values())


@pytest.mark.parametrize("elsewhere", [True, False])
def test_resuming_takes_over_what_the_checkpoint_knows(tmp_path: Path, elsewhere: bool):
    record_of_three_rounds(tmp_path / "old/edits")
    folder = tmp_path / ("new/edits" if elsewhere else "old/edits")
    record = EditRecord(folder, {"prior": "toy"})
    record.resume(tmp_path / "old/edits", rounds=2, step=25)
    assert [entry["round"] for entry in record.rounds] == [1, 2]
    assert record.events == []
    assert torch.equal(record.read(1, 2), pictures(2)[2])
    assert [entry["round"] for entry in json.loads((folder / "edits.json").read_text())["rounds"]] == [1, 2]
    record.write_round(3, {"prompt": "again", "step": 30}, pictures(5), torch.zeros(1, 1, 3, dtype=torch.uint8))
    assert sorted(path.name for path in (folder / "round_0003").glob("view_*")) == ["view_0005.png"]


def test_resuming_without_the_edits_names_what_is_missing(tmp_path: Path):
    record = EditRecord(tmp_path / "new")
    with pytest.raises(SceneError, match="edits.json is missing"):
        record.resume(tmp_path / "old", rounds=1, step=10)
    record_of_three_rounds(tmp_path / "old")
    (tmp_path / "old/round_0001/view_0002.png").unlink()
    record.resume(tmp_path / "old", rounds=1, step=10)
    with pytest.raises(SceneError, match="view_0002.png"):
        record.read(1, 2)


def test_a_full_disk_leaves_earlier_files_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    record = record_of_three_rounds(tmp_path / "edits")
    before = {path: path.read_bytes() for path in (tmp_path / "edits").rglob("*") if path.is_file()}
    fill_the_disk(monkeypatch, after=1)
    with pytest.raises(SceneError, match=r"no space left on the disk while writing .*round_0004.*free some space"):
        record.write_round(4, {"step": 40}, pictures(1, 2), torch.zeros(1, 1, 3, dtype=torch.uint8))
    after = {path: path.read_bytes() for path in (tmp_path / "edits").rglob("*") if path.is_file()}
    assert before.items() <= after.items()
    assert not [path for path in after if ".tmp" in path.name]
    assert "round_0004" not in (tmp_path / "edits/edits.json").read_text()


def test_a_file_is_replaced_only_when_it_is_whole(tmp_path: Path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})

    def half(file) -> None:
        file.write(b"{")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, half)
    assert json.loads(path.read_text()) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_a_checkpoint_on_a_full_disk_keeps_the_previous_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "nerfstudio_models"
    write_checkpoint(folder / "step-000000001.ckpt", {"step": 1, "pipeline": {}}, scratch=tmp_path)
    fill_the_disk(monkeypatch)
    with pytest.raises(SceneError, match="no space left on the disk"):
        write_checkpoint(folder / "step-000000002.ckpt", {"step": 2, "pipeline": {}}, scratch=tmp_path)
    assert read_checkpoint(find_checkpoint(folder))["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["nerfstudio_models"]


def test_an_unwritable_folder_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SceneError, match=r"cannot write .*file.*choose another --output-dir"):
        write_json(tmp_path / "file/edits.json", {})


@pytest.mark.parametrize("views", [1, 3, 16])
def test_contact_sheet_shows_three_pictures_of_each_view(views: int):
    colours = torch.rand(3, views, 3, 1, 1)
    originals, renders, edited = ([colour.expand(3, 20, 30) for colour in column] for column in colours)
    sheet = contact_sheet(view_rows(list(range(views)), originals, renders, edited))
    for colour in colours.flatten(0, 1):
        wanted = (colour.flatten() * 255).round()
        assert ((sheet.float() - wanted).abs().sum(dim=-1) <= 3).sum() >= 96 * 100, "each thumbnail is there"
