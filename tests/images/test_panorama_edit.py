"""How much work an edit of a panorama is: its steps, and what a preview makes of them."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from csd_nerf.distill import EditSettings
from csd_nerf.images.layout import panorama_layout
from csd_nerf.images.panorama import edit_panorama
from csd_nerf.images.panorama_edit import prepare
from tests.distill.analytic import FormulaPrior, seeded
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


def prepared(prior: FormulaPrior, settings: EditSettings, some: int | None = None, height: int = 12, width: int = 20):
    layout = panorama_layout(prior, height, width, stride=2, even=False)
    source = picture(height, width)
    return prepare(prior, source, ("make it red", ""), [], layout, settings, seeded(5), some=some)


@pytest.mark.parametrize("keep", [0.0, 0.1])
def test_a_preview_edits_different_patches_and_encodes_no_others(keep: float) -> None:
    encoded: list[Tensor] = []

    class Noting(FormulaPrior):
        def encode(self, images: Tensor) -> Tensor:
            encoded.append(images)
            return super().encode(images)

    settings = EditSettings(editor="no-svgd", steps=30, batch_size=4, lr_decay_every=3, keep_detail=keep)
    source = picture(12, 20)
    grid = [(top, left) for top in (0, 4) for left in (0, 4, 8, 12)]  # pixels
    for some, expected in ((100, grid), (3, [grid[0], grid[4], grid[7]])):
        encoded.clear()
        edit = prepared(Noting(), settings, some)
        patches = [source[None, :, top : top + 8, left : left + 8] for top, left in expected]
        torch.testing.assert_close(torch.cat(encoded[::2]), torch.cat(patches))  # the others are the conditions
        # A pixel of the whole, of 6 x 10 latents, is seen 30 * 4 * 16 / 60 times; here only one patch shows it.
        each = 30 * 4 * 16 / 60
        assert edit.total == round(each * len(expected) / min(4, len(expected)))
        assert edit.settings.lr_decay_every == round(3 * edit.total / 30)
        before, after = edit.compare()
        shown = torch.cat(patches)
        torch.testing.assert_close(before, shown if keep else edit.prior.decode(edit.prior.encode(shown)))
        assert (after - before).abs().amax(dim=(1, 2, 3)).min() > 1e-3, "all of them are edited"


def test_a_number_of_patches_that_the_kernel_cannot_take_is_refused_before_any_is_encoded() -> None:
    class Untouched(FormulaPrior):
        def encode_condition(self, images: Tensor, *, scaled_sample: torch.Generator | None = None) -> Tensor:
            raise AssertionError("encoded")

    settings = EditSettings("released", steps=3, batch_size=4)
    with pytest.raises(ValueError, match="preset=released: .*not defined for 2 pictures"):
        prepared(Untouched(), settings, height=8, width=12)  # lefts 0 and 2
    with pytest.raises(ValueError, match="preset=released: .*not defined for 2 pictures"):
        prepared(Untouched(), settings, some=2)
    with pytest.raises(AssertionError, match="encoded"):
        prepared(Untouched(), settings, some=3)
