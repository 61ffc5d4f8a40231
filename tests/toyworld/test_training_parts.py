import math

import numpy as np
import pytest
import torch
from PIL import Image

from csd_nerf.toyworld.training.averaging import WeightAverage
from csd_nerf.toyworld.training.checkpoint import load_checkpoint, save_checkpoint
from csd_nerf.toyworld.training.denoiser import drop_conditions
from csd_nerf.toyworld.training.optimizer import MuonAdamW, orthogonalise
from csd_nerf.toyworld.training.pictures import save_small
from csd_nerf.toyworld.training.schedule import TimeBudget, learning_rate
from csd_nerf.toyworld.training.settings import ConditioningDropout
from csd_nerf.toyworld.training.tokenizer import load_tokenizer, tokenize, words_of, write_tokenizer
from csd_nerf.whole_files import write_atomically

TEXTS = [
    "a red metal teapot with an orange top hat on a meadow at night, front view",
    "turn it into a pencil sketch",
    "give it a hat",
    "paint it in the style of the wave",
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, TEXTS, length=20)
    return load_tokenizer(folder)


def test_every_known_word_is_one_token(tokenizer):
    for word in words_of(TEXTS):
        assert len(tokenizer.tokenize(word)) == 1, word
    assert len(tokenizer.tokenize(TEXTS[0])) == len(TEXTS[0].replace(",", " ,").split())


@pytest.mark.parametrize("text", ["give it a hat", "a xylophone on a meadow", "un caf\u00e9 \u6f22", "it cost 12"])
def test_any_text_is_read_and_written_back(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id
    back = tokenizer.decode(ids, skip_special_tokens=True)
    assert back.replace(" ", "") == text.replace(" ", "")


def test_short_and_long_texts_get_the_same_length_and_pad_with_the_end_mark(tokenizer):
    ids = tokenize(tokenizer, ["", "hat " * 50])
    assert [len(row) for row in ids] == [20, 20]
    assert ids[0] == [tokenizer.bos_token_id] + [tokenizer.eos_token_id] * 19
    assert ids[1][-1] == tokenizer.eos_token_id
    assert len(tokenizer) == max(tokenizer.get_vocab().values()) + 1


def test_learning_rate_depends_on_the_used_share_of_the_budget_only():
    assert learning_rate(0.01, peak=2.0, warmup=0.02) == pytest.approx(1.0)
    assert learning_rate(0.02, peak=2.0, warmup=0.02) == pytest.approx(2.0)
    assert learning_rate(0.51, peak=2.0, warmup=0.02, floor=0.0) == pytest.approx(1.0)
    assert learning_rate(1.0, peak=2.0, floor=0.01) == learning_rate(7.0, peak=2.0, floor=0.01) == pytest.approx(0.02)
    rates = [learning_rate(i / 100, 1.0) for i in range(2, 101)]
    assert rates == sorted(rates, reverse=True)


def test_a_budget_adds_up_over_resumes():
    times = iter([100.0, 130.0, 0.0, 15.0])
    first = TimeBudget(60.0, clock=lambda: next(times))
    assert first.tick() == 0.5 and not first.exhausted
    second = TimeBudget(60.0, used=first.used, clock=lambda: next(times))
    assert second.tick() == 0.75
    with pytest.raises(ValueError, match="positive"):
        TimeBudget(0.0)


def test_a_paused_process_uses_no_budget():
    times = iter([0.0, 1.0, 5000.0])
    budget = TimeBudget(60.0, clock=lambda: next(times), longest=10.0)
    budget.tick()
    budget.tick()
    assert budget.used == 11.0


def test_conditions_are_dropped_at_the_stated_rates():
    dropout = ConditioningDropout(no_text=0.1, no_image=0.2, neither=0.05, caption=0.15)
    count = 20_000
    condition = torch.ones(count, 4, 1, 1)
    instructions, captions, empty = (
        torch.full((count, 3), 1),
        torch.full((count, 3), 2),
        torch.zeros(3, dtype=torch.long),
    )
    image, tokens = drop_conditions(condition, instructions, captions, empty, dropout, torch.Generator().manual_seed(0))
    has_image, text = image[:, 0, 0, 0] > 0, tokens[:, 0]
    shares = {
        "full": (has_image & (text == 1), 0.5),
        "no text": (has_image & (text == 0), 0.1),
        "no image": (~has_image & (text == 1), 0.2),
        "neither": (~has_image & (text == 0), 0.05),
        "caption": (~has_image & (text == 2), 0.15),
    }
    for name, (chosen, share) in shares.items():
        error = 4 * math.sqrt(share * (1 - share) / count)
        assert chosen.float().mean().item() == pytest.approx(share, abs=error), name
    assert sum(chosen.sum().item() for chosen, _ in shares.values()) == count
    with pytest.raises(ValueError, match="add up"):
        ConditioningDropout(0.5, 0.5, 0.5, 0.0)


def test_orthogonalise_keeps_the_singular_vectors():
    matrix = torch.randn(12, 30, generator=torch.Generator().manual_seed(0))
    for shaped in (matrix, matrix.T):
        u, _, v = torch.linalg.svd(shaped, full_matrices=False)
        core = u.T @ orthogonalise(shaped) @ v.T
        assert (core - core.diag().diag()).abs().max() < 1e-4
        assert 0.6 < core.diag().min() and core.diag().max() < 1.3


def test_the_optimiser_solves_a_least_squares_problem():
    torch.manual_seed(0)
    layer, true = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)
    x = torch.randn(64, 8)
    optimizer = MuonAdamW(layer, 0.05, plain=lambda name: False, decay=0.0)
    for step in range(300):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (1 - step / 300)
        optimizer.zero_grad()
        loss = (layer(x) - true(x)).square().mean()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1e-4


def test_the_average_of_a_constant_is_the_constant_and_is_taken_back():
    layer = torch.nn.Linear(3, 3)
    average = WeightAverage(layer, 0.9)
    before = layer.weight.detach().clone()
    average.update()
    with torch.no_grad():
        layer.weight.add_(1.0)
    average.update()
    # Second update: decay min(0.9, 3 / 12).
    with average.applied():
        torch.testing.assert_close(layer.weight, before + 0.75)
    torch.testing.assert_close(layer.weight, before + 1.0)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "state.pt"
    save_checkpoint(path, {"step": 1})

    def fail(temporary):
        temporary.write_bytes(b"half")
        raise OSError("no space left on device")

    with pytest.raises(OSError):
        write_atomically(path, fail)
    assert load_checkpoint(path) == {"step": 1}


def test_a_picture_is_made_smaller_until_it_fits(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    for limit, size in ((100_000, (80, 60)), (4_000, None)):
        save_small(tmp_path / "a.png", Image.fromarray(noise), limit)
        assert (tmp_path / "a.png").stat().st_size <= limit
        with Image.open(tmp_path / "a.png") as picture:
            assert picture.size == size or size is None and 1.2 < picture.width / picture.height < 1.5
