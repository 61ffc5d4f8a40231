import pytest
import torch

from csd_nerf.metrics.pictures import Loaded, Pictures, paired
from tests.metrics.fake_encoder import plain


def pictures(source: str, *named: tuple[str, float], size: int = 4) -> Pictures:
    """Grey pictures by their names and levels."""
    images = plain(*((level, level, level) for _, level in named), size=size)
    return Pictures(source, "pictures", tuple(name for name, _ in named), (size, size), lambda: Loaded(images))


def test_pairs_by_name_and_else_in_order():
    shown = pictures("AFTER a", ("3", 0.1), ("5", 0.2))
    more = pictures("--truth b", ("3", 0.3), ("4", 0.4), ("5", 0.5))
    others = pictures("--truth c", ("x", 0.6), ("y", 0.7))
    assert paired(more, shown).images[:, 0, 0, 0].tolist() == pytest.approx([0.3, 0.5])
    assert paired(pictures("--truth d", ("5", 0.8), ("3", 0.9)), shown).images[0, 0, 0, 0] == pytest.approx(0.9)
    assert paired(others, shown) is others
    with pytest.raises(ValueError, match=r"c has 2 pictures, .*b has 3: give as many, or files of the same names"):
        paired(others, more)
    with pytest.raises(ValueError, match=r"of 8 x 8 pixels, .* of 4 x 4 pixels: bring them to one size"):
        paired(pictures("--truth e", ("x", 0.6), ("y", 0.7), size=8), shown)


def test_pictures_are_made_when_they_are_asked_for_and_once():
    made = []

    def load() -> Loaded:
        made.append(1)
        return Loaded(torch.rand(2, 3, 4, 4))

    one = Pictures("AFTER a", "video", ("0", "1"), (4, 4), load)
    assert len(one) == 2 and not made
    assert one.images is one.images and made == [1]
