"""Frames as particles: the update rule, batches, files instead of memory, baselines, stop and resume."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from csd_nerf.distill import Condition, EditSettings, NonFiniteError, Target, edit_size
from csd_nerf.images import frames as frames_module
from csd_nerf.images.frames import FrameTargets, Shown, decode_frames, encode_frames
from csd_nerf.images.running import Hooks, steps_of_some
from csd_nerf.images.video_edit import VideoEdit, check_video, steps_for
from csd_nerf.priors.sampling import ddim_timesteps
from tests.distill.analytic import FormulaPrior, seeded
from tests.distill.test_presets import released_step


def clip(count: int, height: int = 8, width: int = 8) -> list[Tensor]:
    return [torch.rand((3, height, width), generator=seeded(i)) for i in range(count)]


def edit_of(
    count: int = 6, settings: EditSettings | None = None, seed: int = 5, prior: FormulaPrior | None = None, **more
) -> VideoEdit:
    prior, settings = prior or FormulaPrior(), settings or EditSettings(steps=6, batch_size=3, lr_decay_every=2)
    generator = seeded(seed)
    encoded = encode_frames(prior, clip(count), count, settings, generator)
    text, null = prior.encode_text(["make it red", ""])
    targets = FrameTargets(encoded.source, encoded.image, text, null, None, prior.device)
    return VideoEdit(prior, settings, targets, generator, torch.arange(count) / 10, **more)


@pytest.mark.parametrize(("editor", "samples"), [("csd-edit", 5), ("random-noise", 3)])
def test_released_preset_is_the_released_rule_on_random_batches_of_frames(editor: Any, samples: int) -> None:
    settings = EditSettings("released", steps=5, batch_size=4, lr_decay_every=2, editor=editor)
    edit = edit_of(7, settings)
    prior, generator = FormulaPrior(), seeded(5)
    start = prior.encode_condition(torch.stack(clip(7)), scaled_sample=generator)
    text, null = prior.encode_text(["make it red", ""])
    x = start.clone()
    for step in range(5):
        rows = torch.randperm(7, generator=generator)[:4]
        t = int(torch.randint(20, 501, (), generator=generator))
        eps = torch.randn((4, 4, 4, 4), generator=generator)
        target = Target(texts=(text[None].expand(4, 2, 3),), null_text=null[None].expand(4, 2, 3), image=start[rows],
                        source=start[rows])  # fmt: skip
        gradient = released_step(prior, x[rows], target, t, eps, injected=editor == "random-noise")
        x[rows] = x[rows] - 2.0 * 0.9 ** (step // 2) * gradient
    checkpoint, complete = edit.run()
    assert complete and checkpoint.network_samples == 5 * 4 * samples
    assert (edit.latents - x).norm() / (x - start).norm() < 1e-5


def test_frames_are_read_once_in_groups_of_bounded_size(monkeypatch) -> None:
    class Watching(FormulaPrior):
        def __init__(self) -> None:
            super().__init__()
            self.groups: list[int] = []

        def encode(self, images: Tensor) -> Tensor:
            self.groups.append(len(images))
            return super().encode(images)

        def decode(self, latents: Tensor) -> Tensor:
            self.groups.append(len(latents))
            return super().decode(latents)

    monkeypatch.setattr(frames_module, "PIXELS_AT_ONCE", 3 * 64)
    prior, read = Watching(), []

    def source() -> Iterator[Tensor]:
        for index, frame in enumerate(clip(8)):
            read.append(index)
            yield frame

    told = []
    encoded = encode_frames(prior, source(), 8, EditSettings(), seeded(), on_frame=lambda *at: told.append(at))
    assert read == list(range(8)) and prior.groups == [3, 3, 3, 3, 2, 2]  # latents and condition of each
    assert told[-1] == (8, 8)
    whole = FormulaPrior().encode(torch.stack(clip(8)))
    assert torch.equal(encoded.source, whole)
    pictures = list(decode_frames(prior, encoded.source, (8, 8)))
    assert prior.groups[6:] == [3, 3, 2]
    assert torch.equal(torch.stack(pictures), FormulaPrior().decode(whole))
    with pytest.raises(ValueError, match="9 frames were announced, 8"):
        encode_frames(prior, source(), 9, EditSettings(), seeded())


def test_frames_keep_their_aspect_and_come_back_in_their_size() -> None:
    prior = FormulaPrior()
    encoded = encode_frames(prior, clip(2, 20, 36), 2, EditSettings(), seeded())
    height, width = edit_size(20, 36, prior.size, prior.factor)
    assert tuple(encoded.source.shape[-2:]) == (height // 2, width // 2)
    assert [tuple(one.shape) for one in decode_frames(prior, encoded.source, (20, 36))] == [(3, 20, 36)] * 2


def test_frames_that_nothing_has_changed_come_back_as_they_were(monkeypatch) -> None:
    """At their own resolution, which is not the prior's; the others as they are without."""
    monkeypatch.setattr(frames_module, "PIXELS_AT_ONCE", 2 * 64)
    prior, frames, size = FormulaPrior(), clip(5, 20, 36), (20, 36)
    encoded = encode_frames(prior, iter(frames), 5, EditSettings(), seeded())
    latents = encoded.source.clone()
    latents[1] = -4 * latents[1].sign()
    plain = list(decode_frames(prior, latents, size))
    kept = list(decode_frames(prior, latents, size, Shown(iter(frames), encoded.source, 0.1)))
    for index in (0, 2, 3, 4):
        assert (plain[index] - frames[index]).abs().mean() > 0.05
        torch.testing.assert_close(kept[index], frames[index])
    torch.testing.assert_close(kept[1], plain[1], atol=1e-2, rtol=0)


@pytest.mark.parametrize("keep", [0.0, 0.1])
def test_the_settings_say_whether_an_edit_keeps_detail(keep: float) -> None:
    edit, told = edit_of(settings=EditSettings(steps=1, keep_detail=keep)), []
    made = torch.stack(list(edit.pictures((8, 8), told.append, frames=clip(6))))
    assert told == [1, 2, 3, 4, 5, 6]
    expected = torch.stack(clip(6)) if keep else edit.prior.decode(edit.targets.source)
    torch.testing.assert_close(made, expected)
    torch.testing.assert_close(torch.stack(list(edit.pictures((8, 8)))), edit.prior.decode(edit.targets.source))


def test_latents_in_files_give_the_same_video(tmp_path: Path) -> None:
    where = torch.from_file(str(tmp_path / "latents"), shared=True, size=6 * 4 * 16).reshape(6, 4, 4, 4)
    there, here = edit_of(current=where), edit_of()
    there.run()
    here.run()
    assert torch.equal(there.latents, here.latents) and there.latents.data_ptr() == where.data_ptr()
    assert not torch.equal(here.latents, here.targets.source)


@pytest.mark.parametrize("noise", ["shared", "independent"])
def test_each_frame_is_sampled_by_itself(noise) -> None:
    """More frames than go into one call: with shared noise all of them see the same, in whichever call."""
    count, steps = 10, 4
    settings = EditSettings(editor="ip2p", steps=steps, noise=noise, guidance_scale=4.0)
    edit, prior, generator = edit_of(count, settings), FormulaPrior(), seeded(5)
    told: list[tuple[int, int]] = []
    checkpoint, complete = edit.run(hooks=Hooks(on_step=lambda *at: told.append(at)))
    assert complete and told[-1] == (steps, steps) and checkpoint.network_samples == count * steps * 3
    conditions = prior.encode_condition(torch.stack(clip(count)))
    text, null = prior.encode_text(["make it red", ""])
    if noise == "shared":
        noises = torch.randn((1, 4, 4, 4), generator=generator).expand(count, 4, 4, 4)
    else:
        noises = torch.cat([torch.randn((n, 4, 4, 4), generator=generator) for n in (8, 2)])
    for index in (0, 7, 8, 9):
        x, image = noises[index], conditions[index]
        timesteps = [*ddim_timesteps(1000, steps).tolist(), 0]
        for t, below in zip(timesteps, timesteps[1:], strict=False):
            e_text, e_image, e_none = (
                prior.predict_noise(x[None], torch.tensor(t), Condition(words[None], shown[None]))[0]
                for words, shown in ((text, image), (null, image), (null, torch.zeros_like(image)))
            )
            eps = e_none + 1.5 * (e_image - e_none) + 4.0 * (e_text - e_image)
            a, b = (prior.schedule.alphas_cumprod[i].to(x) for i in (t, below))
            x = b.sqrt() * (x - (1 - a).sqrt() * eps) / a.sqrt() + (1 - b).sqrt() * eps
        torch.testing.assert_close(edit.latents[index], x, rtol=1e-4, atol=1e-5)


def test_a_stopped_edit_goes_on_exactly_where_it_was() -> None:
    whole, part, done = edit_of(), edit_of(), []
    whole.run()
    checkpoint, complete = part.run(
        hooks=Hooks(on_step=lambda step, total: done.append(step), should_stop=lambda: len(done) == 2)
    )
    assert (complete, checkpoint.step) == (False, 2)
    rest = edit_of()
    end, complete = rest.run(checkpoint)
    assert complete and end.step == 6 and torch.equal(rest.latents, whole.latents)


def test_a_network_that_breaks_leaves_what_was_reached() -> None:
    class Breaking(FormulaPrior):
        def predict_noise(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
            return super().predict_noise(x_t, t, condition) * (float("nan") if self.calls == 4 else 1.0)

    edit = edit_of(prior=Breaking())
    with pytest.raises(NonFiniteError, match="step 3") as caught:
        edit.run()
    assert caught.value.partial.step == 3 and torch.isfinite(edit.latents).all()
    assert torch.equal(caught.value.partial.latents, edit.latents)


def test_a_temporal_kernel_makes_frames_listen_to_their_neighbours() -> None:
    plain, near, far = edit_of(), edit_of(temporal=1e-3), edit_of(temporal=1e6)
    alone = edit_of(settings=EditSettings(editor="no-svgd", steps=6, batch_size=3, lr_decay_every=2))
    for edit in (plain, near, far, alone):
        edit.run()
    torch.testing.assert_close(far.latents, plain.latents, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(near.latents, alone.latents, rtol=1e-4, atol=1e-5)
    assert (plain.latents - alone.latents).abs().max() > 1e-3
    with pytest.raises(ValueError, match="no-svgd"):
        check_video(FormulaPrior(), "make it red", EditSettings(editor="no-svgd"), 1.0)
    with pytest.raises(ValueError, match="temporal=0.0"):
        check_video(FormulaPrior(), "make it red", EditSettings(editor="csd-edit"), 0.0)


def test_some_frames_alone_are_optimised_as_often_as_in_the_whole() -> None:
    settings = EditSettings(editor="csd-edit", steps=40, batch_size=4, lr_decay_every=4)
    few = steps_of_some(settings, 40 * 4 / 8, 2)
    assert few.steps == 20 and few.lr_decay_every == 2, "and the rate falls as often"
    sampled = EditSettings(editor="ip2p", steps=40)
    assert steps_of_some(sampled, 20.0, 2) == sampled
    assert steps_for(24, 8) == 201 and steps_for(1, 8) == 67
