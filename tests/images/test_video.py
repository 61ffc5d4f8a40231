"""The calls of one line, for videos in files and as their documentation shows them."""

import inspect
import textwrap
from pathlib import Path

import pytest
import torch
from PIL import Image

from csd_nerf.distill import Condition, EditSettings, NonFiniteError
from csd_nerf.images import edit_video, panorama, video
from csd_nerf.images.video_edit import steps_for
from csd_nerf.images.video_reading import open_video
from tests.distill.analytic import FormulaPrior
from tests.images.clips import noise, write_clip

SETTINGS = EditSettings(steps=4, batch_size=3)


def test_a_video_goes_from_file_to_file(tmp_path: Path) -> None:
    source, output, told = write_clip(tmp_path / "in.mp4", noise(7)), tmp_path / "out.mp4", []
    result = edit_video(
        FormulaPrior(),
        source,
        output,
        "make it red",
        settings=SETTINGS,
        frames="1:6",
        on_step=lambda *at: told.append(at),
    )
    assert result.path == output and result.frames == 5 and result.complete and told[-1] == (4, 4)
    assert result.checkpoint.network_samples == 4 * 3 * 5 and result.checkpoint.latents.shape[0] == 5
    assert (open_video(output).count, open_video(output).width) == (5, 48)


def test_without_a_number_of_steps_there_are_as_many_as_fit_the_length(tmp_path: Path) -> None:
    source, results = write_clip(tmp_path / "in.mp4", noise(3)), []
    for settings in (EditSettings(batch_size=2), EditSettings(batch_size=2, steps=100, lr_decay_every=10)):
        results.append(edit_video(FormulaPrior(), source, tmp_path / "out.mp4", "make it red", settings=settings))
    assert [result.checkpoint.step for result in results] == [steps_for(3, 2), 100] == [100, 100]
    assert torch.equal(results[0].checkpoint.latents, results[1].checkpoint.latents)
    sampled = edit_video(FormulaPrior(), source, tmp_path / "out.mp4", "make it red", editor="ip2p")
    assert sampled.checkpoint.step == 50


def test_a_stopped_video_goes_on_where_it_was(tmp_path: Path) -> None:
    source, done = write_clip(tmp_path / "in.mp4", noise(5)), []

    def run(name: str, **more: object):
        return edit_video(FormulaPrior(), source, tmp_path / name, "make it red", settings=SETTINGS, seed=3, **more)  # type: ignore[arg-type]

    whole = run("whole.mp4")
    part = run("part.mp4", on_step=lambda step, total: done.append(step), should_stop=lambda: len(done) == 2)
    assert not part.complete and part.checkpoint.step == 2 and open_video(tmp_path / "part.mp4").count == 5
    rest = run("rest.mp4", resume=part.checkpoint, latents_in=tmp_path / "latents")
    assert rest.complete and torch.equal(rest.checkpoint.latents, whole.checkpoint.latents)
    assert (tmp_path / "rest.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_a_network_that_breaks_leaves_a_video_of_what_was_reached(tmp_path: Path) -> None:
    class Breaking(FormulaPrior):
        def predict_noise(self, x_t: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor:
            return super().predict_noise(x_t, t, condition) * (float("nan") if self.calls == 3 else 1.0)

    source, output = write_clip(tmp_path / "in.mp4", noise(5)), tmp_path / "out.mp4"
    with pytest.raises(NonFiniteError, match="step 2") as caught:
        edit_video(Breaking(), source, output, "make it red", settings=SETTINGS)
    assert caught.value.partial.checkpoint.step == 2 and open_video(output).count == 5


def test_what_cannot_work_is_said_before_anything_is_read(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "in.mp4", noise(3))
    for arguments, said in (
        ((source, tmp_path / "out.xyz", "make it red"), "out.xyz"),
        ((source, source, "make it red"), "in.mp4"),
        ((source, tmp_path / "out.mp4", " "), "prompt is empty"),
        ((tmp_path / "no.mp4", tmp_path / "out.mp4", "make it red"), "no.mp4"),
    ):
        with pytest.raises(ValueError, match=said):
            edit_video(FormulaPrior(), *arguments)


@pytest.mark.slow
@pytest.mark.parametrize("module", [panorama, video])
def test_the_documented_example_runs(module, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(noise(1, 70, 90)[0]).save("river.jpg")
    write_clip(Path("walk.mp4"), noise(2))
    lines = (inspect.getdoc(module) or "").splitlines()
    example = textwrap.dedent("\n".join(line for line in lines if line.startswith("    ") or not line.strip()))
    exec(example, {})  # noqa: S102
    assert any(path.stem == "night" for path in tmp_path.iterdir())
