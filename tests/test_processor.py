"""What a CPU says of itself decides the precision of edits, and nothing else."""

from pathlib import Path

import pytest
import torch

from csd_nerf import processor
from csd_nerf.priors import auto_precision


@pytest.mark.parametrize(
    ("line", "native"),
    [
        ("vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2 avx512f avx512_bf16 sha_ni", True),
        ("vendor_id\t: GenuineIntel\nflags\t\t: fpu avx2 avx512f avx512_bf16 sha_ni", False),
        ("vendor_id\t: GenuineIntel\nflags\t\t: fpu avx512_bf16 amx_tile amx_bf16", True),
        ("Features\t: fp asimd bf16 i8mm", True),
        ("flags\t\t: fpu avx2 avx512f", False),
        ("model name\t: a bf16 machine", False),
    ],
)
def test_instructions_are_read_from_what_linux_says(tmp_path: Path, line: str, native: bool):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{line}\n")
    assert processor.gains_from_bfloat16(tmp_path / "cpuinfo") is native


def test_auto_is_bfloat16_only_for_edits_on_a_cpu_that_has_it(monkeypatch: pytest.MonkeyPatch):
    for native in (True, False):
        monkeypatch.setattr("csd_nerf.priors.registry.gains_from_bfloat16", lambda native=native: native)
        assert auto_precision("auto", "cpu") == ("bf16" if native else "auto")
        assert auto_precision("fp32", "cpu") == "fp32"
    monkeypatch.setattr("csd_nerf.priors.registry.gains_from_bfloat16", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert auto_precision("auto", "auto") == auto_precision("auto", "cuda:1") == "auto"


def test_threads_are_limited_to_the_cores_that_may_be_used_unless_they_were_chosen(monkeypatch: pytest.MonkeyPatch):
    chosen = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr(processor, "usable_cores", lambda: 3)
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    processor.limit_threads()
    assert not chosen
    monkeypatch.delenv("OMP_NUM_THREADS")
    processor.limit_threads()
    assert chosen == [3]


@pytest.mark.parametrize(
    ("share", "cores"), [("150000 100000", 2), ("20000 100000", 1), ("max 100000", None), ("", None)]
)
def test_a_containers_share_of_time_counts(monkeypatch: pytest.MonkeyPatch, share: str, cores: int | None):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(Path, "read_text", lambda self: share)
    assert processor.usable_cores() == (cores or 8)
