"""Two processes make the edit that one makes."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from csd_nerf.distill import Condition, EditSettings, edit_images
from csd_nerf.priors import LatentDiffusionPrior, SourceBank, load_prior, solver_of
from csd_nerf.priors.sharded import AgreedBank, ShardedPrior, agreed, is_main, processes
from tests.processes import together

STEPS = 3


def pictures(n: int) -> list[torch.Tensor]:
    return list(torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(0)))


def edit(
    folder: Path, n: int, sharded: bool, preset: Any = "corrected", bank: Path | None = None, steps: int = STEPS
) -> dict[str, Any]:
    torch.manual_seed(0)
    prior = load_prior(folder, device="cpu", dtype="fp32")
    assert isinstance(prior, LatentDiffusionPrior)
    shared: Any = ShardedPrior(prior) if sharded else prior
    kept = None if bank is None else SourceBank(bank, shared.fingerprint())
    found = edit_images(
        shared,
        pictures(n),
        "make it red",
        settings=EditSettings(preset=preset, steps=steps),
        generator=torch.Generator().manual_seed(0),
        solve=solver_of("csd-edit", AgreedBank(kept) if kept and sharded else kept),
    )
    return {
        "latents": torch.stack(found.latents),
        "images": torch.stack(found.images),
        "asked": found.network_samples,
        "rows": prior.samples,
        "calls": prior.calls,
        "encoded": prior.autoencoder.encoded,
        "hits": kept.hits if kept else 0,
    }


CASES = [(1, "corrected"), (3, "corrected"), (4, "paper"), (3, "released")]


def meetings(folder: Path, steps: int) -> int:
    """How often the processes wait for each other in an edit."""
    count = 0
    names = ("all_gather", "all_gather_into_tensor", "all_gather_object", "all_reduce", "all_to_all", "barrier")
    names += ("broadcast", "broadcast_object_list", "gather", "reduce", "reduce_scatter", "scatter", "send", "recv")

    def counted(own: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            return own(*arguments, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setattr(dist, name, counted(getattr(dist, name)))
        edit(folder, 2, True, steps=steps)
    return count


def everything(folder: Path, bank: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Every case, and one with a bank twice; and what else the processes agree upon."""
    found = [edit(folder, n, True, preset) for n, preset in CASES]
    return found + [edit(folder, 2, True, bank=bank) for _ in range(2)], vote(folder)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, edit_folder: Path) -> tuple[list[Any], Path]:
    """What two processes found (one start of them for all tests: it takes seconds), and their bank."""
    folder = tmp_path_factory.mktemp("together")
    return together(folder, everything, edit_folder, folder / "bank"), folder / "bank"


def test_two_processes_edit_as_one_does_and_each_computes_half(both: tuple[list[Any], Path], edit_folder: Path):
    """15 rows are 8 and 8 in two processes, the last one computed twice; 5 rows of one particle 3 and 3."""
    (first, _), (second, _) = both[0]
    for index, (n, preset) in enumerate(CASES):
        alone = edit(edit_folder, n, False, preset)
        assert alone["asked"] == alone["rows"] == 5 * n * STEPS
        for found in (first[index], second[index]):
            torch.testing.assert_close(found["latents"], alone["latents"], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(found["images"], alone["images"], rtol=1e-5, atol=1e-5)
            assert found["asked"] == alone["asked"]
            assert found["rows"] == -(-5 * n // 2) * STEPS and found["calls"] == STEPS
            assert found["encoded"] <= (n if preset == "released" else -(-n // 2))
        assert torch.equal(first[index]["latents"], second[index]["latents"])


def test_a_bank_is_shared_and_written_by_one(both: tuple[list[Any], Path], edit_folder: Path):
    ((first, _), (second, _)), bank = both
    alone = edit(edit_folder, 2, False)
    for number, (samples, hits) in enumerate([(5, 0), (3, STEPS)], start=len(CASES)):
        for found in (first[number], second[number]):
            torch.testing.assert_close(found["latents"], alone["latents"], rtol=1e-5, atol=1e-5)
            assert (found["asked"], found["hits"]) == (samples * 2 * STEPS, hits)
    assert len([path for path in bank.rglob("*") if path.is_file()]) == STEPS


def vote(folder: Path) -> dict[str, Any]:
    rank = dist.get_rank()
    return {
        "one": agreed(rank == 1),
        "none": agreed(False),
        "main": is_main(),
        "count": processes(),
        "meetings": [meetings(folder, steps) for steps in (2, 7)],
        "noise": predict(ShardedPrior(load_prior(folder, device="cpu", dtype="fp32"))),
    }


def predict(prior: Any) -> torch.Tensor:
    """Five rows, each at a timestep of its own."""
    assert prior.batch_size is None  # what else a prior has is found
    x = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    text = prior.encode_text(["make it red"] * 5)
    return prior.predict_noise(x, torch.tensor([20, 300, 500, 700, 900]), Condition(text, x))


def test_what_one_process_finds_out_holds_for_all(both: tuple[list[Any], Path], edit_folder: Path):
    expected = predict(load_prior(edit_folder, device="cpu", dtype="fp32"))
    for rank, (_, found) in enumerate(both[0]):
        torch.testing.assert_close(found.pop("noise"), expected, rtol=1e-5, atol=1e-5)
        few, more = found.pop("meetings")
        assert more - few == 7 - 2, "one all-gather a step"
        assert found == {"one": True, "none": False, "main": rank == 0, "count": 2}


def test_alone_nothing_is_shared():
    assert processes() == 1 and is_main() and agreed(True) and not agreed(False)
