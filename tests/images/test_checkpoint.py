"""A stopped edit on disk goes on as what it was, and as nothing else."""

from pathlib import Path

import pytest
import torch

from csd_nerf.images.checkpoint import Checkpoint, checkpoint_path, content_digest, load_checkpoint, save_checkpoint

ASKED = {"prompt": "make it red", "steps": 200, "lr": 0.5, "wrap": False, "temporal": None}


def checkpoint() -> Checkpoint:
    generator = torch.Generator().manual_seed(3)
    return Checkpoint(7, torch.randn(4, 3, 5, generator=generator), generator.get_state(), 140, 2.5)


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    path = checkpoint_path(tmp_path / "river.night.png")
    assert path == tmp_path / "river.night.png.resume"
    before = checkpoint()
    save_checkpoint(path, before, ASKED)
    after = load_checkpoint(path, dict(reversed(ASKED.items())))
    assert torch.equal(after.latents, before.latents) and torch.equal(after.generator, before.generator)
    assert (after.step, after.network_samples, after.seconds) == (7, 140, 2.5)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_networks_and_optimisers_come_back_too(tmp_path: Path) -> None:
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1, betas=(0.0, 0.9))
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    networks = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
    generator = torch.Generator()
    save_checkpoint(
        tmp_path / "a.resume", Checkpoint(1, torch.empty(0), generator.get_state(), networks=networks), ASKED
    )
    found = load_checkpoint(tmp_path / "a.resume", ASKED)
    assert torch.equal(found.networks["network"]["weight"], network.weight)
    resumed = torch.nn.Linear(3, 2)
    resumed.load_state_dict(found.networks["network"])
    again = torch.optim.Adam(resumed.parameters(), lr=0.5)
    again.load_state_dict(found.networks["optimizer"])
    for one, its in ((network, optimizer), (resumed, again)):
        one.zero_grad()
        one(torch.tensor([[1.0, -2.0, 0.5]])).sum().backward()
        its.step()
    assert torch.equal(resumed.weight, network.weight) and again.param_groups[0]["betas"] == (0.0, 0.9)


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"prompt": "make it blue"}, "prompt 'make it red' .now 'make it blue'."),
        ({"steps": 100}, "steps 200 .now 100."),
        ({"temporal": 0.5}, "temporal None .now 0.5."),
        ({"new": 1}, "new None .now 1."),
    ],
)
def test_it_goes_on_as_nothing_else(tmp_path: Path, now, said: str) -> None:
    path = tmp_path / "a.resume"
    save_checkpoint(path, checkpoint(), ASKED)
    with pytest.raises(ValueError, match=f"--resume: .*{said}"):
        load_checkpoint(path, {**ASKED, **now})


def test_what_is_no_state_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--resume: there is no .*a.resume"):
        load_checkpoint(tmp_path / "a.resume", ASKED)
    for content in (b"", b"no state", b"PK\x03\x04 broken"):
        (tmp_path / "a.resume").write_bytes(content)
        with pytest.raises(ValueError, match="is no state of a stopped edit"):
            load_checkpoint(tmp_path / "a.resume", ASKED)
    torch.save({"asked": {}, "format": 0}, tmp_path / "a.resume")
    with pytest.raises(ValueError, match="is no state of a stopped edit"):
        load_checkpoint(tmp_path / "a.resume", {})
    torch.save([1, 2], tmp_path / "a.resume")
    with pytest.raises(ValueError, match="is no state of a stopped edit"):
        load_checkpoint(tmp_path / "a.resume", {})


def test_files_are_known_by_their_content_large_ones_by_parts_of_it(tmp_path: Path, monkeypatch) -> None:
    file, other = tmp_path / "a.mp4", tmp_path / "b.mp4"
    content = bytes(range(256)) * 8192
    for size in (1 << 30, 1 << 17):  # all of it is read, or an eighteenth
        monkeypatch.setattr("csd_nerf.images.checkpoint._READ_FOR_DIGEST", size)
        file.write_bytes(content)
        other.write_bytes(content)
        known = content_digest([file])
        assert known == content_digest([other]) and content_digest([file, other]) != content_digest([file])
        for changed in (content + b"x", content[:-1] + b"x", b"x" + content[1:], bytes(len(content))):
            other.write_bytes(changed)
            assert content_digest([other]) != known
    middle = bytearray(content)
    middle[1 << 20] ^= 1
    monkeypatch.setattr("csd_nerf.images.checkpoint._READ_FOR_DIGEST", 1 << 30)
    other.write_bytes(middle)
    assert content_digest([other]) != content_digest([file])
