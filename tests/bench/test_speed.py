"""The benchmark of the distillation step: its contestants compute the same, and its report says what was measured."""

import json
import math
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.random_prior import Sizes, networks, write
from csd_nerf.bench.released_step import attention_in_slices, released_step
from csd_nerf.bench.speed import SETTINGS, Problem, measure
from csd_nerf.bench.speed_report import page, record
from csd_nerf.cli import main
from csd_nerf.distill import Condition, make_edit_distiller
from csd_nerf.priors import DiffusionPrior, load_prior
from tests.tiny_prior import make_tiny_prior


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> DiffusionPrior:
    return load_prior(make_tiny_prior(tmp_path_factory.mktemp("prior")), device="cpu", dtype="fp32")


@pytest.mark.parametrize("sliced", [True, False])
def test_the_released_schedule_needs_six_samples_in_two_calls_a_particle_for_the_same_gradient(
    prior: DiffusionPrior, sliced: bool
):
    problem = Problem.draw(prior, 4)
    samples, calls = prior.samples, prior.calls
    generator = torch.Generator().manual_seed(0)
    before = prior.unet.attn_processors
    with attention_in_slices(prior) if sliced else nullcontext():
        kinds = {type(processor).__name__ for processor in prior.unet.attn_processors.values()}
        theirs = released_step(prior, problem.particles, problem.target, SETTINGS, generator)
    assert all("Sliced" in kind for kind in kinds) == sliced and prior.unet.attn_processors == before
    assert (prior.samples - samples, prior.calls - calls) == (24, 8)
    samples, calls = prior.samples, prior.calls
    distiller = make_edit_distiller(prior, SETTINGS)
    ours = distiller(problem.particles, problem.target, torch.Generator().manual_seed(0)).gradient
    assert (prior.samples - samples, prior.calls - calls) == (20, 1)
    assert (ours - theirs).abs().max() < 1e-5 * ours.abs().max()


def test_all_contestants_are_timed_and_agree(prior: DiffusionPrior):
    found = measure(prior, 3, rounds=2)
    assert not found.failures
    others = {"matrix product", "limit", "without network", "released", "unsliced", "source bank"}
    assert others | {"ours"} == set(found.timings)
    assert all(timing.seconds > 0 and timing.peak_bytes for timing in found.timings.values())
    errors = {name: timing.error for name, timing in found.timings.items()}
    assert errors["limit"] is None and errors["without network"] is None and errors["ours"] == 0
    assert all((errors[name] or 0) < 1e-5 for name in ("released", "unsliced", "source bank")) and errors["released"]
    assert found.timings["ours"].ratio == 1
    banked = found.timings["source bank"].seconds
    assert found.rate("source bank") == pytest.approx(9 * found.sample_flops / banked)
    assert found.rate("limit") == pytest.approx(15 * found.sample_flops / found.timings["limit"].seconds)


def test_the_random_prior_has_the_size_of_instruct_pix2pix():
    """8 input channels: 4 x 320 x 9 parameters more than the 859,520,964 of Stable Diffusion 1.5."""
    with torch.device("meta"):
        made = networks(Sizes())
    sizes = {name: sum(weight.numel() for weight in network.parameters()) for name, network in made.items()}
    assert sizes == {"unet": 859_532_484, "vae": 83_653_863, "text_encoder": 123_060_480}


def test_the_random_prior_loads_as_one_that_edits(tmp_path: Path):
    write(tmp_path / "narrow", Sizes(unet=(32, 32, 32, 32), codec=(32, 32, 32, 32), text_layers=1))
    narrow = load_prior(tmp_path / "narrow", device="cpu", dtype="fp32", needs_image=True)
    assert (narrow.size, narrow.factor, narrow.takes_image) == (512, 8, True)
    x = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    eps = narrow.predict_noise(x, torch.tensor(300), Condition(narrow.encode_text(["make it snow"]), x))
    assert eps.shape == x.shape and torch.isfinite(eps).all()


def test_a_contestant_that_cannot_run_is_named_and_the_others_are_timed(
    prior: DiffusionPrior, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: object, **__: object) -> None:
        raise NotImplementedError("no slices here")

    monkeypatch.setattr(prior.unet, "set_attention_slice", broken)
    found = measure(prior, 3, rounds=1)
    assert found.failures == {"released": "NotImplementedError: no slices here"}
    assert "released" not in found.timings and "unsliced" in found.timings


@pytest.mark.parametrize(
    ("precision", "factor", "said"),
    [("fp32", 1 + 1e-3, "1.0e-03, more than 1e-05"), ("bf16", 1.2, "more than 5e-02"), ("bf16", math.nan, "nan, more")],
)
def test_who_computes_something_else_is_no_contestant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Any, factor: float, said: str
):
    """Such as a captured network that reads what it was given before."""
    prior = load_prior(make_tiny_prior(tmp_path), device="cpu", dtype=precision)

    def wrong(*arguments: Any, **options: Any) -> torch.Tensor:
        return released_step(*arguments, **options) * factor

    monkeypatch.setattr("csd_nerf.bench.speed.released_step", wrong)
    found = measure(prior, 3, rounds=1)
    assert {"ours", "source bank"} <= set(found.timings) and not {"released", "unsliced"} & set(found.timings)
    failure = found.failures["released"]
    assert "its gradient differs from that of ours by " in failure and said in failure


def test_the_first_call_counts_what_other_processes_do_for_it(prior: DiffusionPrior, monkeypatch: pytest.MonkeyPatch):
    """As compilers do: no thread's clock sees it."""
    waits = iter([0.5])

    def slow_at_first(*args: Any, **kwargs: Any) -> Any:
        time.sleep(next(waits, 0.0))
        return released_step(*args, **kwargs)

    monkeypatch.setattr("csd_nerf.bench.speed.released_step", slow_at_first)
    monkeypatch.setattr("csd_nerf.bench.speed.torch.get_num_threads", lambda: 1)
    assert max(timing.setup for timing in measure(prior, 3, rounds=1).timings.values()) > 0.3


def test_what_cannot_be_measured_is_said(prior: DiffusionPrior, tmp_path: Path):
    with pytest.raises(ValueError, match="particles=2: give at least 3"):
        measure(prior, 2)
    text = load_prior(make_tiny_prior(tmp_path / "text", in_channels=4), device="cpu")
    with pytest.raises(ValueError, match="has no image input"):
        measure(text, 4)


def test_the_page_judges_targets_by_the_ratios(prior: DiffusionPrior):
    about = {"prior": "tiny", "precision": "float32", "device": "cpu", "parameters": 1.0, "machine": "here"}
    about |= {"commit": "0", "date": "today", "rounds": 1, "command": "csd bench speed"}
    entry = record(measure(prior, 3, rounds=1), about)
    for name, ratio in (("limit", 0.9), ("released", 1.6), ("unsliced", 1.1), ("without network", 0.031)):
        entry["rows"][name]["ratio"] = ratio
    text = page([entry])
    assert "outside of the network 3.1% (at most 2%: missed)" in text
    gpu = page(
        [entry | {"device": "cuda", "rows": entry["rows"] | {"captured": entry["rows"]["ours"] | {"ratio": 0.5}}}]
    )
    assert "captured / limit 0.56 (at most 1.15: met)" in gpu and "ours / limit" not in gpu
    assert "ours / limit 1.11 (at most 1.05: missed); released / ours 1.60 (at least 1.5: met)" in text
    assert "unsliced / ours 1.10 (at least 1.2: missed)" in text


def test_the_command_writes_its_tables_and_replaces_what_it_measured_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = make_tiny_prior(tmp_path / "prior")
    flags = ["bench", "speed", "--prior", str(folder), "--rounds", "1", "--precision", "fp32"]
    flags += ["--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["csd", *flags])
    monkeypatch.setattr("csd_nerf.bench.matching_speed.DECODER", (128, 128, 128, 128))
    for n in ("3", "4", "3"):
        assert main([*flags, "--particles", n]) == 0
    kept = json.loads((tmp_path / "out/speed.json").read_text())
    assert [entry.get("particles") for entry in kept] == [4, 3, None]
    text = (tmp_path / "out/speed.md").read_text()
    assert (
        text.count("| ours |") == 2
        and text.count("Two whole decodes take") == 1
        and f"`csd bench speed --prior {folder}" in text
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["speed", "--particles", "2"], "--particles 2: give 3 or more"),
        (["speed", "--rounds", "0"], "--rounds 0: give at least 1"),
        (["speed", "--scenes", "1000001"], "--scenes has no meaning for csd bench speed"),
        (["scenes", "--rounds", "3"], "--rounds has no meaning for csd bench scenes"),
        (["speed", "--output", "{folder}"], "speed.json is damaged"),
        (["speed", "--output", "{folder}/other"], "speed.json is damaged"),
        (["speed", "--output", "{folder}/speed.json"], "--output {folder}/speed.json cannot be made"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: str):
    (tmp_path / "speed.json").write_text("no json")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "speed.json").write_text('[{"particles": 4}]')
    assert main(["bench", *[flag.replace("{folder}", str(tmp_path)) for flag in flags]]) == 2
    said = said.replace("{folder}", str(tmp_path)).replace(" ", "")
    assert said in "".join(capsys.readouterr().err.split())
