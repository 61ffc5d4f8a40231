"""What an edit costs, counted in the networks themselves: numbers without noise."""

from pathlib import Path
from typing import Any

import pytest
import torch

from csd_nerf.distill import EditSettings, MemoryBank, edit_images
from csd_nerf.images import edit_panorama
from csd_nerf.priors import DiffusionPrior, LatentDiffusionPrior, load_prior, solver_of

STEPS, N = 3, 4


@pytest.fixture
def prior(edit_folder: Path) -> LatentDiffusionPrior:
    found = load_prior(edit_folder, device="cpu", dtype="fp32")
    assert isinstance(found, LatentDiffusionPrior)
    return found


def pictures(n: int = N) -> list[torch.Tensor]:
    return list(torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(0)))


def edit(prior: DiffusionPrior, prompt: str = "make it red", **changes: Any) -> None:
    bank = changes.pop("bank", None)
    solve, initial = solver_of("csd-edit", bank), changes.pop("initial", None)
    settings = EditSettings(steps=STEPS, **changes)
    generator = torch.Generator().manual_seed(0)
    edit_images(prior, pictures(), prompt, settings=settings, generator=generator, initial=initial, solve=solve)


class Counter:
    """Rows through a module."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.rows = self.calls = self.largest = 0
        module.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        rows = len(arguments[0] if arguments else next(iter(options.values())))
        self.rows, self.calls, self.largest = self.rows + rows, self.calls + 1, max(self.largest, rows)


def test_a_particle_and_step_take_five_samples_and_a_step_one_call(prior: LatentDiffusionPrior):
    unet = Counter(prior.unet)
    edit(prior)
    assert (unet.rows, unet.calls) == (5 * N * STEPS, STEPS) == (prior.samples, prior.calls)


def test_without_text_guidance_four_samples(prior: LatentDiffusionPrior):
    edit(prior, guidance_scale=0.0)
    assert (prior.samples, prior.calls) == (4 * N * STEPS, STEPS)


def test_with_a_source_bank_three_samples(prior: LatentDiffusionPrior):
    bank = MemoryBank(prior.fingerprint())
    edit(prior, bank=bank)
    samples, calls = prior.samples, prior.calls
    edit(prior, "make it snow", bank=bank)
    assert (prior.samples - samples, prior.calls - calls) == (3 * N * STEPS, STEPS)


@pytest.mark.parametrize("batch_size", [1, 7, 16])
def test_micro_batches_bound_the_rows_of_a_call_and_no_more_calls_are_made(edit_folder: Path, batch_size: int):
    prior = load_prior(edit_folder, device="cpu", dtype="fp32", batch_size=batch_size)
    assert isinstance(prior, LatentDiffusionPrior)
    unet = Counter(prior.unet)
    edit(prior)
    assert unet.largest == batch_size and unet.rows == 5 * N * STEPS and unet.calls == STEPS * -(-5 * N // batch_size)


def test_where_memory_is_short_calls_are_halved_for_good_and_nothing_is_counted_twice(
    edit_folder: Path, caplog: pytest.LogCaptureFixture
):
    roomy = load_prior(edit_folder, device="cpu", dtype="fp32")
    asked = []

    def short_of_memory(inputs: torch.Tensor, *rest: Any, **options: Any) -> Any:
        asked.append(len(inputs))
        if len(inputs) > 6:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return roomy.unet(inputs, *rest, **options)

    prior = roomy.through(short_of_memory)
    results = [
        edit_images(
            one, pictures(), "make it red", settings=EditSettings(steps=2), generator=torch.Generator().manual_seed(0)
        )
        for one in (roomy, prior)
    ]
    assert asked == [20, 10, *[5] * 4, *[5] * 4] and prior.batch_size == 5
    assert (prior.samples, prior.calls) == (5 * N * 2, 8) and results[1].network_samples == 5 * N * 2
    assert "20 network samples in one call do not fit: from now on 10 at most" in caplog.text
    for expected, image in zip(*(result.images for result in results), strict=True):
        torch.testing.assert_close(image, expected, atol=1e-4, rtol=0)


def test_one_sample_that_does_not_fit_is_told(edit_folder: Path):
    def no_memory(*_: Any, **__: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    prior = load_prior(edit_folder, device="cpu", dtype="fp32").through(no_memory)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        edit(prior)


@pytest.mark.parametrize("n", [4, 64, 256])
def test_cost_is_linear_in_the_particles_and_memory_that_of_a_micro_batch(edit_folder: Path, n: int):
    prior = load_prior(edit_folder, device="cpu", dtype="fp32", batch_size=16)
    unet = Counter(prior.unet)
    settings = EditSettings(steps=1)
    edit_images(prior, pictures(n), "make it red", settings=settings, generator=torch.Generator().manual_seed(0))
    assert unet.rows == 5 * n and unet.largest == 16 and unet.calls == -(-5 * n // 16)


def test_every_picture_is_encoded_once_for_latent_and_condition_and_all_rounds(prior: LatentDiffusionPrior):
    encoder, decoder = Counter(prior.autoencoder.vae.encoder), Counter(prior.autoencoder.vae.decoder)
    edit(prior)
    # What the autoencoder makes of the photos is decoded too, to give back what it loses.
    assert encoder.rows == prior.autoencoder.encoded == N and decoder.rows == 2 * N
    edit(prior, "make it snow")
    assert encoder.rows == N and decoder.rows == 4 * N
    edit(prior, initial=[1 - picture for picture in pictures()])
    assert encoder.rows == 2 * N


def test_every_prompt_is_encoded_once(prior: LatentDiffusionPrior):
    encoder = Counter(prior.text_encoder.model)
    edit(prior)
    edit(prior)
    assert encoder.rows == 2  # the instruction, and the empty prompt
    edit(prior, "make it snow")
    assert encoder.rows == 3


def test_a_panorama_is_encoded_once_too(prior: LatentDiffusionPrior):
    encoder = Counter(prior.autoencoder.vae.encoder)
    picture = torch.rand(3, 32, 96, generator=torch.Generator().manual_seed(0))
    edit_panorama(prior, picture, "make it red", settings=EditSettings(steps=2, batch_size=2))
    assert prior.samples == 5 * 2 * 2
    assert encoder.rows == 1  # one tile holds it


def test_posteriors_are_forgotten_in_time_and_come_back_the_same(
    prior: LatentDiffusionPrior, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("csd_nerf.priors.autoencoder.REMEMBERED_BYTES", 2 * 2 * 4 * 8 * 8 * 4)  # two of them
    images = torch.stack(pictures())
    first = prior.encode(images)
    assert prior.autoencoder.encoded == N
    prior.encode(images[-2:])
    assert prior.autoencoder.encoded == N
    assert torch.equal(prior.encode(images), first) and prior.autoencoder.encoded == 2 * N


def test_a_picture_is_encoded_alike_in_any_company(prior: LatentDiffusionPrior, edit_folder: Path):
    images, other = torch.stack(pictures()), load_prior(edit_folder, device="cpu", dtype="fp32")
    together = prior.encode(images)
    assert all(
        torch.equal(other.encode(image[None])[0], latent) for image, latent in zip(images, together, strict=True)
    )
