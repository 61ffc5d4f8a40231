"""The bank on the disk: exact, bounded, and never wrong whatever happens to its files."""

import logging
import operator
import os
from pathlib import Path

import pytest
import torch

from csd_nerf.distill import EditSettings, edit_images, look_ahead, make_edit_distiller
from csd_nerf.distill.banked import Answers
from csd_nerf.distill.types import Target
from csd_nerf.priors import LatentDiffusionPrior, SourceBank, load_prior, solver_of
from tests.tiny_prior import make_tiny_prior

KEY, OTHER = "ab" * 20, "cd" * 20


def read(bank: SourceBank, key: str) -> Answers:
    """What is there."""
    answers = bank.read(key)
    assert answers is not None
    return answers


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_answers_come_back_to_the_bit(tmp_path: Path, dtype: torch.dtype):
    """As small as the network's own precision allows."""
    answers = [draw(2, 4, 8, 8).to(dtype).float(), draw(2, 4, 8, 8, seed=1).to(dtype).float()]
    SourceBank(tmp_path, b"f").write(KEY, answers)
    found = read(SourceBank(tmp_path, b"f"), KEY)
    assert all(torch.equal(a, b) for a, b in zip(found, answers, strict=True))
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    numbers = 2 * 2 * 4 * 8 * 8 * dtype.itemsize
    assert numbers < file.stat().st_size < numbers + 512
    assert SourceBank(tmp_path, b"f").read(OTHER) is None


@pytest.mark.parametrize("damage", ["cut", "empty", "bit", "moved", "text"])
def test_a_damaged_file_is_missing_and_told_and_made_anew(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
):
    bank = SourceBank(tmp_path, b"f")
    bank.write(KEY, [draw(1, 4, 8, 8)])
    (file,) = tmp_path.glob("*/*.safetensors")
    content = bytearray(file.read_bytes())
    if damage == "bit":
        content[-9] ^= 1
    key = OTHER if damage == "moved" else KEY
    place = tmp_path / key[:2] / f"{key}.safetensors"
    place.parent.mkdir(exist_ok=True)
    place.write_bytes({"cut": content[:-7], "empty": b"", "text": b"hello there"}.get(damage, content))
    with caplog.at_level(logging.WARNING):
        assert bank.read(key) is None
    assert str(place) in caplog.text and not place.exists() and bank.misses == 1
    bank.write(key, [draw(1, 4, 8, 8)])
    assert torch.equal(read(bank, key)[0], draw(1, 4, 8, 8)) and bank.hits == 1


def held(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_the_folder_keeps_to_its_limit_and_what_was_read_last_stays(tmp_path: Path):
    bank = SourceBank(tmp_path, b"f", limit=10_000)
    keys = [f"{index:040x}" for index in range(20)]
    for index, key in enumerate(keys):
        bank.write(key, [draw(1, 4, 8, 8, seed=index)])
        assert held(tmp_path) <= 10_000
        os.utime(bank._path(key), (index, index))
        bank.read(keys[0])
    assert torch.equal(read(bank, keys[0])[0], draw(1, 4, 8, 8)) and bank.read(keys[1]) is None
    assert bank.read(keys[-1]) is not None
    (tmp_path / "00" / ".left.99.tmp").write_bytes(bytes(9_000))
    os.utime(tmp_path / "00" / ".left.99.tmp", (0, 0))
    again = SourceBank(tmp_path, b"f", limit=10_000)
    again.write(OTHER, [draw(1, 4, 8, 8)])
    assert held(tmp_path) <= 10_000 and not list(tmp_path.rglob("*.tmp")) and again.read(OTHER) is not None


def test_several_that_share_a_folder_keep_to_its_limit_together(tmp_path: Path):
    """Each by itself would fill it; a tenth of it may be there that another has not seen yet."""
    banks = [SourceBank(tmp_path, b"f", limit=100_000) for _ in range(3)]
    for index in range(180):
        banks[index % 3].write(f"{index:040x}", [draw(1, 4, 8, 8, seed=index)])
        assert held(tmp_path) <= 130_000
    assert held(tmp_path) > 80_000


def test_what_is_too_large_or_not_finite_is_not_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    bank = SourceBank(tmp_path, b"f", limit=100)
    for key in (KEY, OTHER):
        bank.write(key, [draw(1, 4, 8, 8)])
    assert caplog.text.count("more than it may hold") == 1
    SourceBank(tmp_path, b"f").write(OTHER, [torch.full((1, 4, 8, 8), torch.nan)])
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot be made .*: give another folder"):
        SourceBank(tmp_path / "file" / "bank", b"f")


def test_a_disk_that_fails_is_told_once_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    bank = SourceBank(tmp_path, b"f")
    monkeypatch.setattr(os, "replace", full)
    for key in (KEY, OTHER):
        bank.write(key, [draw(1, 4, 8, 8)])
    assert caplog.text.count("No space left") == 1 and not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_folder_of_somebody_else_is_read_and_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    bank, answer = SourceBank(tmp_path, b"f"), draw(1, 4, 8, 8)
    bank.write(KEY, [answer])
    monkeypatch.setattr(os, "utime", forbidden)
    monkeypatch.setattr(Path, "unlink", forbidden)
    found = bank.read(KEY)
    assert found is not None and torch.equal(found[0], answer) and not caplog.text
    small = SourceBank(tmp_path, b"f", limit=2000)
    small.write(OTHER, [answer])
    assert small._size > 2000 and len(list(tmp_path.rglob("*.safetensors"))) == 2, "what stays is counted"
    path = bank._path(KEY)
    path.write_bytes(b"damaged")
    assert bank.read(KEY) is None and "damaged" in caplog.text and path.exists()
    monkeypatch.setattr(Path, "read_bytes", forbidden)
    assert bank.read(KEY) is None and bank.read(KEY) is None
    assert caplog.text.count("cannot be read (Permission denied)") == 1
    assert (bank.hits, bank.misses) == (1, 3)


def test_the_fingerprint_tells_networks_and_precisions_apart(tmp_path: Path, edit_folder: Path):
    first = load_prior(edit_folder, device="cpu", dtype="fp32")
    assert first.fingerprint() == load_prior(edit_folder, device="cpu", dtype="fp32").fingerprint()
    others = [
        load_prior(edit_folder, device="cpu", dtype="bf16"),
        load_prior(make_tiny_prior(tmp_path / "weights", seed=1), device="cpu", dtype="fp32"),
        load_prior(make_tiny_prior(tmp_path / "kind", prediction_type="v_prediction"), device="cpu", dtype="fp32"),
    ]
    nudged = load_prior(edit_folder, device="cpu", dtype="fp32")
    with torch.no_grad():
        list(nudged.unet.parameters())[-1].view(-1)[0] += 1e-6
    prints = {prior.fingerprint() for prior in [first, nudged, *others]}
    assert len(prints) == 5


@pytest.mark.parametrize("name", ["cuda.matmul", "cudnn.conv", "mkldnn.matmul"])
def test_the_fingerprint_tells_roundings_of_float32_apart_whichever_name_they_are_set_by(edit_folder: Path, name: str):
    """torch refuses to read by its older names what was set by the newer ones."""
    part = operator.attrgetter(name)(torch.backends)
    if not hasattr(part, "fp32_precision"):
        pytest.skip("this torch has the older names only")
    before, now = load_prior(edit_folder, device="cpu", dtype="fp32").fingerprint(), part.fp32_precision
    part.fp32_precision = "ieee" if now == "tf32" else "tf32"
    try:
        assert load_prior(edit_folder, device="cpu", dtype="fp32").fingerprint() != before
    finally:
        part.fp32_precision = now


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_an_edit_with_a_bank_is_the_edit_without_one(tmp_path: Path, edit_folder: Path, dtype):
    """Filled to the bit, since nothing else is computed; read up to the rounding of a smaller batch."""
    prior = load_prior(edit_folder, device="cpu", dtype=dtype)
    pictures, settings = list(draw(3, 3, 32, 32).sigmoid()), EditSettings(steps=4)

    def edit(prompt: str, bank: SourceBank | None) -> tuple[torch.Tensor, int]:
        found = edit_images(
            prior,
            pictures,
            prompt,
            settings=settings,
            generator=torch.Generator().manual_seed(0),
            solve=solver_of("csd-edit", bank),
        )
        return torch.stack(found.latents), found.network_samples

    bank = SourceBank(tmp_path, prior.fingerprint())
    filled, spent = edit("make it red", bank)
    assert torch.equal(filled, edit("make it red", None)[0]) and spent == 4 * 3 * 5
    bank = SourceBank(tmp_path, prior.fingerprint())
    other, spent = edit("make it snow", bank)
    assert spent == 4 * 3 * 3 and bank.hits == 4
    expected, _ = edit("make it snow", None)
    tolerance = 1e-5 if dtype == "fp32" else 0.05
    torch.testing.assert_close(other, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_timestep_for_each_row_is_as_good_as_calls_of_their_own(tmp_path: Path, prediction):
    """What looking ahead by several steps a call needs."""
    prior = load_prior(make_tiny_prior(tmp_path / "prior", prediction_type=prediction), device="cpu", dtype="fp32")
    assert isinstance(prior, LatentDiffusionPrior)
    n, settings = 2, EditSettings(steps=5, noise="independent")
    text, null = (prior.encode_text([prompt]).expand(n, -1, -1) for prompt in ("make it red", ""))
    target = Target((text,), null, draw(n, 4, 8, 8), source=draw(n, 4, 8, 8, seed=1))
    banks = [SourceBank(tmp_path / name, prior.fingerprint()) for name in ("one", "several")]
    for bank, steps_per_call in zip(banks, (1, 3), strict=True):
        calls = prior.calls
        distiller = make_edit_distiller(prior, settings, bank)
        generator = torch.Generator().manual_seed(0)
        spent = look_ahead(distiller, draw(n, 4, 8, 8), target, 5, generator, steps_per_call=steps_per_call)
        assert spent == 5 * 2 * n and prior.calls - calls == {1: 5, 3: 2}[steps_per_call]
    names = sorted(path.stem for path in (tmp_path / "one").rglob("*.safetensors"))
    assert names == sorted(path.stem for path in (tmp_path / "several").rglob("*.safetensors")) and len(names) == 5
    for key in names:
        for a, b in zip(read(banks[0], key), read(banks[1], key), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
