"""Frame ranges choose what Python slices choose."""

import itertools

import pytest

from csd_nerf.images.frame_range import FrameRange

ENDS = ["", "0", "3", "7", "99", "-1", "-4", "-99"]


@pytest.mark.parametrize("count", [1, 7, 20])
def test_ranges_are_slices(count: int) -> None:
    items = list(range(count))
    for start, stop, step in itertools.product(ENDS, ENDS, ["", "1", "3"]):
        numbers = [int(part) if part else None for part in (start, stop, step)]
        frames = FrameRange.parse(f"{start}:{stop}:{step}")
        assert list(frames.indices(count)) == items[slice(*numbers)]
        assert list(frames.indices(count, 2)) == items[slice(*numbers)][:2]
        assert FrameRange.parse(str(frames)) == frames
    assert list(FrameRange.parse("2:5").indices(count)) == items[2:5]


def test_a_bound_is_all_that_must_be_known() -> None:
    for start, stop, step, most in itertools.product(ENDS, ENDS, ["", "3"], [None, 1, 4]):
        frames = FrameRange.parse(f"{start}:{stop}:{step}")
        bound = frames.bound(most)
        if bound is None:
            continue
        for count in (1, 5, 30, 200):
            assert list(frames.indices(count, most)) == list(frames.indices(min(count, bound), most))
    assert FrameRange.parse("2:").bound() is None and FrameRange.parse(":-1").bound(3) is None
    assert FrameRange.parse("2::3").bound(4) == 12 and FrameRange.parse("2:8:3").bound(4) == 8


@pytest.mark.parametrize("text", ["", "5", "a:b", "1:2:3:4", "1.5:", "::0", "0:9:-1"])
def test_bad_ranges_name_the_flag(text: str) -> None:
    with pytest.raises(ValueError, match="--frames") as raised:
        FrameRange.parse(text)
    assert text in str(raised.value)
