"""Adversarial training: resuming, averaging, regularisers against closed forms, and that it learns."""

import math

import pytest
import torch
from torch import nn

from csd_nerf.images.stylegan.augmentation import AdaptiveProbability, augmented
from csd_nerf.images.stylegan.generator import GeneratorShape
from csd_nerf.images.stylegan.training import DivergedError, Training, TrainingSettings

SHAPE = GeneratorShape((4, 4), style=5, mapping_layers=1)
CPU = torch.device("cpu")


def data(n: int = 12) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, 8, 8), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)


def training(steps: int, **settings) -> Training:
    return Training(SHAPE, TrainingSettings(**{"steps": steps, "batch_size": 4, "r1_every": 2, **settings}), 7, CPU)


def test_a_resumed_training_ends_as_one_that_was_never_stopped() -> None:
    settings = {"path_weight": 2.0, "path_every": 3}
    whole, first = training(6, **settings), training(6, **settings)
    whole.run(data())
    first.run(data(), should_stop=lambda: first.step == 4)
    assert first.step == 4
    second = training(6, **settings)
    second.load_state_dict(first.state_dict())
    second.run(data())
    for name, value in whole.average.state_dict().items():
        assert torch.equal(second.average.state_dict()[name], value), name
    assert not torch.equal(first.average.constant, whole.average.constant)


def test_every_weight_of_both_networks_is_trained() -> None:
    work = training(2)
    before = [p.detach().clone() for network in (work.generator, work.discriminator) for p in network.parameters()]
    names = [n for network in (work.generator, work.discriminator) for n, _ in network.named_parameters()]
    work.run(data())
    after = [p for network in (work.generator, work.discriminator) for p in network.parameters()]
    unmoved = [name for name, a, b in zip(names, before, after, strict=True) if torch.equal(a, b)]
    assert unmoved == []


def test_r1_is_the_squared_gradient_of_the_logit() -> None:
    work = training(1, r1=3.0)

    class Linear(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1) @ torch.linspace(-1, 1, 192)

    work.discriminator = Linear()  # type: ignore[assignment]
    expected = 3.0 / 2 * 2 * float(torch.linspace(-1, 1, 192).square().sum())
    assert float(work._r1(torch.rand(4, 3, 8, 8))) == pytest.approx(expected, rel=1e-5)


def test_lazy_regularisation_corrects_rates_and_betas() -> None:
    generator, discriminator = (optimizer.param_groups[0] for optimizer in training(1, lr=0.01).optimizers)
    assert generator["lr"] == 0.01 and generator["betas"] == (0.0, 0.99)
    assert discriminator["lr"] == pytest.approx(0.01 * 2 / 3) and discriminator["betas"][1] == pytest.approx(
        0.99 ** (2 / 3)
    )


def test_rates_fall_to_a_tenth_at_the_end() -> None:
    settings = TrainingSettings(steps=200, lr=0.01)
    assert [settings.rate(step) for step in (0, 170, 185, 199)] == pytest.approx([0.01, 0.01, 0.005, 0.001])
    work = training(20, lr=0.01)
    work.step = 19
    work.run(data())
    assert work.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.01 / 3)


def test_it_learns_the_colour_of_its_pictures() -> None:
    work = training(150, batch_size=8, lr=0.01, adapt_augmentation=False)
    orange = torch.tensor([230, 120, 20], dtype=torch.uint8)[:, None, None].expand(3, 8, 8)
    work.run(orange[None].expand(4, -1, -1, -1))
    z = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
    found = (work.finished(64)(z) / 2 + 0.5).mean(dim=(0, 2, 3)) * 255
    torch.testing.assert_close(found, torch.tensor([230.0, 120.0, 20.0]), rtol=0, atol=30)


def test_a_step_that_is_not_finite_is_not_made() -> None:
    work = training(4)
    work.run(data(), should_stop=lambda: work.step == 1)
    work.discriminator.logit.bias.data.fill_(math.nan)
    before = {name: value.clone() for name, value in work.average.state_dict().items()}
    with pytest.raises(DivergedError, match="the training of the generator diverged at step 1"):
        work.run(data())
    assert work.step == 1 and all(p.isfinite().all() for p in work.generator.parameters())
    assert all(torch.equal(value, before[name]) for name, value in work.average.state_dict().items())


def test_a_generator_of_one_resolution_is_trained() -> None:
    work = Training(GeneratorShape((4,), style=5, mapping_layers=1), TrainingSettings(steps=1, batch_size=2), 0, CPU)
    work.run(data()[..., ::2, ::2])
    assert work.finished(16).shape.size == 4


def test_the_average_forgets_half_in_its_half_life() -> None:
    work = training(1, average_images=4)
    work.step = 1000
    before, now = work.average.constant.clone(), work.generator.constant.detach() + 1
    work.generator.constant.data.copy_(now)
    work._average()
    torch.testing.assert_close(work.average.constant, (before + now) / 2)


def test_augmentation_follows_how_sure_the_discriminator_is() -> None:
    probability = AdaptiveProbability(images_to_one=100)
    probability.update(torch.tensor([1.0, 2.0, 3.0, 0.5]), 10)
    assert probability.p == pytest.approx(0.1)
    probability.update(torch.tensor([1.0, -2.0]), 5)
    assert probability.p == pytest.approx(0.05)
    for _ in range(50):
        probability.update(torch.ones(4), 10)
    assert probability.p == probability.limit


def test_augmentation_changes_a_share_of_the_pictures_and_lets_gradients_through() -> None:
    images = (torch.rand(400, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1).requires_grad_()
    assert augmented(images, 0.0, torch.Generator()) is images
    changed = augmented(images, 0.1, torch.Generator().manual_seed(3))
    share = float(((changed - images).abs() > 1e-5).flatten(1).any(dim=1).float().mean())
    assert 1 - 0.9**5 - 0.08 < share < 1 - 0.9**5 + 0.05  # five changes; half the mirrors and some moves change nothing
    augmented(images, 0.8, torch.Generator().manual_seed(3)).sum().backward()
    assert images.grad is not None and torch.isfinite(images.grad).all() and (images.grad != 0).any()
