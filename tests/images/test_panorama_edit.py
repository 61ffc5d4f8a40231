"""How much work an edit of a panorama is: its steps, and what a preview makes of them."""

from dataclasses import replace

import pytest
import torch

from csd_nerf.distill import EditSettings
from csd_nerf.images.layout import panorama_layout
from csd_nerf.images.panorama import edit_panorama
from tests.distill.analytic import FormulaPrior
from tests.images.test_panorama import picture


@pytest.mark.parametrize(("size", "batch"), [((16, 8), 2), ((16, 40), 4)])
def test_without_a_number_of_steps_there_are_as_many_as_fit_the_size(size: tuple[int, int], batch: int) -> None:
    prior, source, told = FormulaPrior(), picture(*size), []
    open_ended = EditSettings(batch_size=batch)
    result = edit_panorama(prior, source, "make it red", settings=open_ended, on_step=lambda *at: told.append(at))
    steps = panorama_layout(prior, *size).steps(batch)
    assert told[-1] == (steps, steps) and steps != 200
    said = replace(open_ended, steps=steps, lr_decay_every=steps // 10)
    again = edit_panorama(prior, source, "make it red", settings=said)
    assert torch.equal(again.checkpoint.latents, result.checkpoint.latents)


def test_samplers_make_fifty_steps_unless_told() -> None:
    for settings, steps in ((EditSettings(), 50), (EditSettings(steps=3), 3)):
        result = edit_panorama(FormulaPrior(), picture(8, 8), "make it red", editor="ip2p-patches", settings=settings)
        assert result.checkpoint.step == steps and result.checkpoint.network_samples == 3 * steps
