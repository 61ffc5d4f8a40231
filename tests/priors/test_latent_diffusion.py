import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError

from csd_nerf.distill import Condition, EditSettings, Target, make_edit_distiller
from csd_nerf.priors import LatentDiffusionPrior, load_prior
from csd_nerf.priors.latent_diffusion import Components
from tests.tiny_prior import TEXT_LENGTH, make_tiny_prior

T = torch.tensor(400)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def picture() -> torch.Tensor:
    return draw(7, 4, 6, 8, seed=2)


def inputs(image: bool = True) -> tuple[torch.Tensor, Condition]:
    return draw(7, 4, 6, 8), Condition(draw(7, TEXT_LENGTH, 16, seed=1), picture() if image else None)


def test_all_rows_go_through_the_network_in_one_call(edit_prior: LatentDiffusionPrior):
    x_t, condition = inputs()
    together = edit_prior.predict_noise(x_t, T, condition)
    assert (edit_prior.calls, edit_prior.samples) == (1, 7)
    assert together.shape == x_t.shape
    alone = edit_prior.predict_noise(x_t[2:3], T, Condition(condition.text[2:3], picture()[2:3]))
    torch.testing.assert_close(alone, together[2:3], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("batch_size", "sizes"), [(1, [1] * 7), (3, [3, 3, 1]), (7, [7]), (100, [7])])
def test_batch_size_splits_rows_and_changes_nothing(
    edit_prior: LatentDiffusionPrior, edit_folder: Path, batch_size: int, sizes: list[int]
):
    split = load_prior(edit_folder, device="cpu", batch_size=batch_size)
    seen: list[int] = []
    split.unet.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    whole = edit_prior.predict_noise(inputs()[0], T, inputs()[1])
    torch.testing.assert_close(split.predict_noise(inputs()[0], T, inputs()[1]), whole, rtol=0, atol=1e-5)
    assert seen == sizes and split.calls == len(sizes) and split.samples == 7


class SeesItsBatch(torch.nn.Module):
    """A network whose rows depend on each other, as with batch norm in training: here a split is visible."""

    def __init__(self, unet: torch.nn.Module):
        super().__init__()
        self.unet = unet

    def forward(self, x: torch.Tensor, *args, **options) -> tuple[torch.Tensor]:
        (output,) = self.unet(x, *args, **options)
        return (output - 0.5 * output.mean(dim=0, keepdim=True),)


@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_a_distillation_step_does_not_depend_on_how_its_samples_are_split(
    edit_prior: LatentDiffusionPrior, batch_size: int
):
    """Five samples for each of three particles in calls of `batch_size`; the control shows that this could fail."""
    source = draw(3, 4, 6, 8, seed=3)
    text, null = (row.expand(3, -1, -1) for row in edit_prior.encode_text(["make it red", ""])[:, None])
    target = Target(texts=(text,), null_text=null, image=draw(3, 4, 6, 8, seed=4), source=source)

    def gradient(rows: int | None) -> torch.Tensor:
        edit_prior.batch_size = rows
        generator = torch.Generator().manual_seed(5)
        return make_edit_distiller(edit_prior, EditSettings())(source + 0.1, target, generator).gradient

    scale = gradient(None).abs().max()
    assert (gradient(batch_size) - gradient(None)).abs().max() < 1e-4 * scale
    edit_prior = edit_prior.through(SeesItsBatch(edit_prior.unet))
    assert (gradient(batch_size) - gradient(None)).abs().max() > 1e-2 * scale


def test_every_input_matters(edit_prior: LatentDiffusionPrior):
    x_t, condition = inputs()
    noise = edit_prior.predict_noise(x_t, T, condition)
    others = [
        (x_t + 1, T, condition),
        (x_t, T + 300, condition),
        (x_t, T, replace(condition, text=condition.text + 1)),
        (x_t, T, replace(condition, image=picture() + 1)),
    ]
    for changed in others:
        assert (edit_prior.predict_noise(*changed) - noise).abs().max() > 1e-4


def test_no_picture_is_a_picture_of_zeros(edit_prior: LatentDiffusionPrior):
    x_t, condition = inputs(image=False)
    zeros = Condition(condition.text, torch.zeros_like(x_t))
    torch.testing.assert_close(edit_prior.predict_noise(x_t, T, condition), edit_prior.predict_noise(x_t, T, zeros))


def test_a_text_to_image_prior_refuses_pictures(text_prior: LatentDiffusionPrior):
    assert not text_prior.takes_image
    assert text_prior.predict_noise(inputs()[0], T, inputs(image=False)[1]).shape == (7, 4, 6, 8)
    with pytest.raises(ValueError, match="no image input.*instruct-pix2pix"):
        text_prior.predict_noise(inputs()[0], T, inputs()[1])
    with pytest.raises(ValueError, match="no image input.*instruct-pix2pix"):
        text_prior.encode_condition(torch.rand(1, 3, 16, 16))


def test_rows_must_agree(edit_prior: LatentDiffusionPrior):
    x_t, condition = inputs()
    with pytest.raises(ValueError, match="7 noisy particles, but 3 text encodings"):
        edit_prior.predict_noise(x_t, T, Condition(condition.text[:3]))
    with pytest.raises(ValueError, match="image condition of shape"):
        edit_prior.predict_noise(x_t, T, Condition(condition.text, picture()[..., :2]))


@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample"])
def test_other_prediction_types_become_noise(tmp_path: Path, prediction_type):
    """Same weights, other meaning: with x_t = alpha x + sigma eps, the answer must satisfy the type's definition."""
    plain = load_prior(make_tiny_prior(tmp_path / "eps"), device="cpu")
    other = load_prior(make_tiny_prior(tmp_path / "other", prediction_type=prediction_type), device="cpu")
    x_t, condition = inputs()
    output = plain.predict_noise(x_t, T, condition)
    eps = other.predict_noise(x_t, T, condition)
    alpha, sigma = plain.schedule.alpha(T).float(), plain.schedule.sigma(T).float()
    x = (x_t - sigma * eps) / alpha
    expected = alpha * eps - sigma * x if prediction_type == "v_prediction" else x
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4)


def test_unknown_prediction_types_are_refused(edit_prior: LatentDiffusionPrior):
    with pytest.raises((ValueError, TypeCheckError), match="flow"):
        Components(edit_prior.unet, edit_prior.text_encoder, edit_prior.schedule, "flow",  # pyright: ignore[reportArgumentType]
                   edit_prior.device, edit_prior.dtype, edit_prior.autoencoder)  # fmt: skip


@pytest.mark.parametrize("batch_size", [0, -3])
def test_batch_size_below_one_is_refused(edit_folder: Path, batch_size: int):
    with pytest.raises(ValueError, match=f"batch_size={batch_size}"):
        load_prior(edit_folder, device="cpu", batch_size=batch_size)


def test_half_precision_ends_at_the_networks_edge(edit_prior: LatentDiffusionPrior, edit_folder: Path):
    half = load_prior(edit_folder, device="cpu", dtype="bf16")
    assert {p.dtype for p in half.unet.parameters()} == {torch.bfloat16}
    x_t, condition = inputs()
    noise = half.predict_noise(x_t.double(), T, condition)
    assert noise.dtype == torch.float32 == half.encode_text(["a cube"]).dtype
    torch.testing.assert_close(noise, edit_prior.predict_noise(x_t, T, condition), rtol=0.1, atol=0.05)


def test_somebody_elses_autocast_does_not_reach_the_network(edit_prior: LatentDiffusionPrior):
    x_t, condition = inputs()
    noise = edit_prior.predict_noise(x_t, T, condition)
    latents = edit_prior.encode(torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(edit_prior.predict_noise(x_t, T, condition), noise)
        again = edit_prior.encode(torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(again, latents)


def test_the_networks_are_frozen_and_their_answers_constants(edit_prior: LatentDiffusionPrior):
    for network in (edit_prior.unet, edit_prior.autoencoder.vae, edit_prior.text_encoder.model):
        assert not network.training and not any(p.requires_grad for p in network.parameters())
    x_t, condition = inputs()
    x_t.requires_grad_(True)
    noise = edit_prior.predict_noise(x_t, T, condition)
    assert not noise.requires_grad and not noise.is_inference()
    (noise * x_t).sum().backward()
    torch.testing.assert_close(x_t.grad, noise)


def test_every_prompt_is_encoded_once(edit_prior: LatentDiffusionPrior):
    rows: list[int] = []
    edit_prior.text_encoder.model.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    first = edit_prior.encode_text(["make it red", "", "make it red"])
    assert first.shape == (3, TEXT_LENGTH, 16) and first.dtype == torch.float32
    torch.testing.assert_close(first[0], first[2])
    assert not torch.allclose(first[0], first[1])
    second = edit_prior.encode_text(["", "make it blue"])
    torch.testing.assert_close(second[0], first[1])
    assert rows == [2, 1]
    second.zero_()
    torch.testing.assert_close(edit_prior.encode_text([""])[0], first[1])


def test_the_text_cache_is_bounded(edit_prior: LatentDiffusionPrior):
    edit_prior.text_encoder._cache_size = 2
    many = edit_prior.encode_text(["a", "red", "blue", "hat"])
    assert len(many) == 4 and len(edit_prior.text_encoder._cache) == 2
    torch.testing.assert_close(edit_prior.encode_text(["a"]), many[:1])


def test_only_lists_of_prompts_are_encoded(edit_prior: LatentDiffusionPrior):
    for nothing in ([], "make it red"):
        with pytest.raises(ValueError, match="no list of prompts"):
            edit_prior.encode_text(nothing)


def test_unknown_words_are_told_once(edit_prior: LatentDiffusionPrior, caplog: pytest.LogCaptureFixture):
    assert edit_prior.unknown_words("Make it a tiger, a RED tiger in 3D!") == ("tiger", "in")
    assert edit_prior.unknown_words("make it red, snow") == edit_prior.unknown_words("") == ()
    with caplog.at_level(logging.WARNING, "csd_nerf.priors"):
        edit_prior.encode_text(["make it a tiger", "make it red"])
        edit_prior.encode_text(["a blue tiger", "make it a zebra"])
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert "'tiger'" in messages[0] and edit_prior.name in messages[0] and "\n" not in messages[0]
    assert "'zebra'" in messages[1] and "tiger" not in messages[1]


def test_a_large_vocabulary_spells_rare_words_without_complaint(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [f"{a}{b}{c}" for a in letters for b in letters for c in letters[:15]]
    prior = load_prior(make_tiny_prior(tmp_path, words=words), device="cpu")
    prior.encode_text(["zzzz qqqq"])
    assert prior.unknown_words("zzzz qqqq") == () and not caplog.records


def test_what_is_cut_off_is_said(edit_prior: LatentDiffusionPrior, caplog: pytest.LogCaptureFixture):
    room = TEXT_LENGTH - 2
    short, long = " ".join(["red"] * room), " ".join(["red"] * room + ["blue", "hat"])
    encoded = edit_prior.encode_text([short])
    assert not caplog.records
    torch.testing.assert_close(edit_prior.encode_text([long]), encoded)
    assert [record.getMessage().endswith("cut off: 'blue hat'") for record in caplog.records] == [True]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_the_networks_run_in_half_precision(edit_folder: Path, edit_prior: LatentDiffusionPrior):
    on_gpu = load_prior(edit_folder)
    assert on_gpu.device.type == "cuda" and on_gpu.dtype == torch.float16
    x_t, condition = inputs()
    noise = on_gpu.predict_noise(x_t, T, condition)
    assert noise.is_cuda and noise.dtype == torch.float32
    torch.testing.assert_close(noise.cpu(), edit_prior.predict_noise(x_t, T, condition), rtol=0.05, atol=0.02)
